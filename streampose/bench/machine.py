"""The machine and the versions a figure was measured with."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from streampose.runtime.select import core_count, cpu_multiplies_bf16, cpu_name

PACKAGES = ("torch", "openvino", "onnxruntime", "opencv-python", "av", "numpy")


def describe_machine() -> dict[str, Any]:
    """CPU, cores, load, system, versions of the libraries that do the work, and the GPU where torch runs and sees one."""
    return {
        "cpu": cpu_name(),
        "cores": core_count(),
        "gpu": _gpu(),
        "bf16": cpu_multiplies_bf16(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
