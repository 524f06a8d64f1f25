"""OpenVINO imported without its usage reports, ready for several threads: nothing is sent or written at home.

`import openvino` imports its model converter, which reports the import to its maker through the package
`openvino_telemetry`; where that package is not to be had, both it and NNCF go on without. This program watches cameras
in closed networks, so it is not to be had here. Import OpenVINO from this module only.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

if "openvino_telemetry" not in sys.modules:
    missing: Any = None  # what Python's import system reads as: there is no such module
    sys.modules["openvino_telemetry"] = missing

import openvino as ov

# The binding finds numpy at its first array. Two threads that both hand it their first one stop for ever, one in that search
# without the interpreter's lock, the other holding it and waiting for the search (seen with 2026.4.1, pybind11): so one now.
ov.Tensor(np.zeros(1, np.float32))

__all__ = ["ov"]
