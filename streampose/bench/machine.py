"""The machine and the versions a figure was measured with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from streampose.runtime.select import core_count, cpu_multiplies_bf16, cpu_name

PACKAGES = ("torch", "openvino", "onnxruntime", "opencv-python", "av", "numpy")


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """CPU, cores, load, system, versions of the libraries that do the work, and the GPU that a CUDA `device` is."""
    return {
        "cpu": cpu_name(),
        "cores": core_count(),
        "gpu": _gpu(device),
        "bf16": cpu_multiplies_bf16(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _gpu(device: str) -> str | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
