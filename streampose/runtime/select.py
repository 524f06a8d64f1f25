"""Which runtime, device and precision a network runs with: what was asked, filled in by what the machine has.

Nothing heavy is imported to find out, so that a start on a CPU with compiled networks never waits for torch.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from streampose.errors import ConfigError, ModelError
from streampose.registry import RUNTIMES, found

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
SHARED = ("cpu", "cuda", "mps")
"""Devices that every runtime calls the same; others are named with their runtime, such as openvino:GPU."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A runtime with its device ("cpu", "cuda:0", "mps", or the runtime's own name, such as "GPU"), precision, threads.

    `threads` is None where the runtime may use every core.
    """

    runtime: str
    device: str
    precision: str
    threads: int | None = None


def choose(
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "auto",
    *,
    threads: int | None = None,
    offers: tuple[str, ...] = tuple(RUNTIMES),
    cpu_has_bf16: Callable[[], bool] | None = None,
    has_cuda: Callable[[], bool] | None = None,
    has_mps: Callable[[], bool] | None = None,
) -> Choice:
    """Fill in what is "auto".

    `device` is auto, cpu, cuda, cuda:1, mps, or RUNTIME:NAME (openvino:GPU); `offers` are the runtimes that can run the
    model's file. CUDA goes to torch in fp16, Apple's GPU to torch in fp32, a CPU to OpenVINO, in bf16 where OpenVINO
    multiplies it in hardware. Raises ConfigError for what cannot be, ModelError for a runtime that is not installed.
    """
    runtime, device = _split(runtime, device)
    if precision not in ("auto", *PRECISIONS):
        raise ConfigError(f"precision: {precision!r} is none of auto, {', '.join(PRECISIONS)}")
    if device == "auto":
        device = _find_device(runtime, has_cuda or _has_cuda, has_mps or _has_mps, offers)
    if runtime == "auto":
        runtime = _find_runtime(device, offers)
    if runtime not in offers:
        raise ConfigError(f"runtime: {runtime} cannot run this model file; {' or '.join(offers)} can")
    if (word := device.partition(":")[0]) in SHARED and word not in RUNTIMES[runtime].devices:
        others = " or ".join(name for name, kind in RUNTIMES.items() if word in kind.devices)
        raise ConfigError(f"device: {device} is none of {runtime}'s; use runtime {others}, or a device {runtime}:NAME")
    require(runtime)
    if precision == "auto":
        precision = _find_precision(runtime, device, cpu_has_bf16 or partial(cpu_multiplies_bf16, runtime))
    _possible(runtime, device, precision)
    return Choice(runtime, device, precision, threads)


def _split(runtime: str, device: str) -> tuple[str, str]:
    prefix, colon, rest = device.partition(":")
    if colon and prefix in RUNTIMES:
        if runtime not in ("auto", prefix):
            raise ConfigError(f"device: {device} names runtime {prefix}, runtime says {runtime}; name one")
        return prefix, rest
    if runtime not in ("auto", *RUNTIMES):
        raise ConfigError(f"runtime: {runtime!r} is none of auto, {', '.join(RUNTIMES)}")
    if device not in ("auto", "cpu", "mps") and prefix != "cuda":
        raise ConfigError(f"device: {device!r} is none of auto, cpu, cuda, cuda:1, mps, openvino:GPU, onnx:tensorrt")
    return runtime, device


def _find_device(
    runtime: str, has_cuda: Callable[[], bool], has_mps: Callable[[], bool], offers: tuple[str, ...]
) -> str:
    kind = RUNTIMES[offers[0] if runtime == "auto" else runtime]
    built = not kind.built_for_cuda or found(kind.built_for_cuda)()
    if "cuda" in kind.devices and built and has_cuda():
        return "cuda"
    return "mps" if "mps" in kind.devices and has_mps() else "cpu"


def _find_runtime(device: str, offers: tuple[str, ...]) -> str:
    word = device.partition(":")[0]
    usable = [runtime for runtime in offers if word in RUNTIMES[runtime].devices]
    if not usable:
        raise ConfigError(f"device: {device}: this model file runs by {' or '.join(offers)} only")
    usable.sort(key=lambda runtime: word not in RUNTIMES[runtime].best_on)
    return next((runtime for runtime in usable if not lacking(runtime)), usable[0])


def _precisions(runtime: str, device: str) -> tuple[str, ...]:
    """Those that a runtime has on a device, the one for "auto" first."""
    precisions = RUNTIMES[runtime].precisions
    return precisions.get(device.lower().partition(":")[0], precisions[""])


def _find_precision(runtime: str, device: str, has_bf16: Callable[[], bool]) -> str:
    emulated = device.lower() == "cpu" and not has_bf16()
    return next(each for each in _precisions(runtime, device) if not (each == "bf16" and emulated))


def _possible(runtime: str, device: str, precision: str) -> None:
    allowed = _precisions(runtime, device)
    if precision not in allowed:
        names = ", ".join(each for each in PRECISIONS if each in allowed)
        raise ConfigError(f"precision: {runtime} on {device} runs {names}, not {precision}")


def lacking(runtime: str) -> list[str]:
    """The packages of a runtime that are not installed."""
    return [package for package in RUNTIMES[runtime].packages if find_spec(package) is None]


def require(runtime: str) -> None:
    """Raise ModelError where a package of the runtime is not installed."""
    if missing := lacking(runtime):
        raise ModelError(
            f"runtime {runtime} is not installed (it lacks {' and '.join(missing)}): "
            f"pip install '{RUNTIMES[runtime].install}', or choose another runtime"
        )


def cpu_sums_int8() -> bool:
    """Whether the CPU adds products of 8 bits up in 32 (VNNI, AMX); others do it in 16, where sums may overflow."""
    return bool(cpu_flags() & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})


def cpu_multiplies_bf16(runtime: str = "torch") -> bool:
    """Whether `runtime` uses bf16 instructions of this CPU; where they are emulated, bf16 is far slower than fp32."""
    return bool(RUNTIMES[runtime].bf16_flags & cpu_flags())


def cpu_flags() -> frozenset[str]:
    """Instruction sets of this CPU as Linux names them; empty where that cannot be read."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    return frozenset(next((rest.split() for name, _, rest in lines if name.strip() in ("flags", "Features")), []))


def cpu_name() -> str:
    """The CPU's model name, for tables and cache keys."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _has_cuda() -> bool:
    """Whether torch sees a CUDA device; torch is imported only where the driver's device files suggest one."""
    if sys.platform == "linux" and not has_driver_files(Path("/dev")):
        return False
    if sys.platform == "darwin" or find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def has_driver_files(folder: Path) -> bool:
    """Whether the device files in `folder` are of an NVIDIA driver, with whichever GPUs a container was given, or WSL's."""
    return any(folder.glob("nvidia[0-9]*")) or any((folder / name).exists() for name in ("nvidiactl", "dxg"))


def _has_mps() -> bool:
    """Whether torch sees Apple's GPU; a virtual machine on such a computer has none."""
    if platform.system() != "Darwin" or platform.machine() != "arm64" or find_spec("torch") is None:
        return False
    import torch

    return bool(torch.backends.mps.is_available())
