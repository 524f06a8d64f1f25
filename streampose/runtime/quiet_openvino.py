"""OpenVINO imported without its usage reports: nothing is sent, nothing is written to the home directory.

`import openvino` imports its model converter, which reports the import to its maker through the package
`openvino_telemetry`; where that package is not to be had, both it and NNCF go on without. This program watches cameras
in closed networks, so it is not to be had here. Import OpenVINO from this module only.
"""

from __future__ import annotations

import sys
from typing import Any

if "openvino_telemetry" not in sys.modules:
    missing: Any = None  # what Python's import system reads as: there is no such module
    sys.modules["openvino_telemetry"] = missing

import openvino as ov

__all__ = ["ov"]
