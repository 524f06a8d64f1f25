"""A model made ready to run: its runtime chosen, converted and compiled, or taken as it was from the cache."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from streampose.errors import ModelError
from streampose.models import cache
from streampose.models.manifest import Manifest, sha256_of
from streampose.models.resolve import FOREIGN
from streampose.registry import DETECTORS, RUNTIMES, found, load
from streampose.runtime.base import OpenRuntime, Runtime
from streampose.runtime.select import Choice, cpu_sums_int8

log = logging.getLogger(__name__)
CPU_BATCHES = {"pose": (1, 4), "detect": (1,)}  # a CPU gains nothing from more, and each costs 0.3 s of every start
GPU_BATCHES = {"pose": (1, 2, 4, 8, 16), "detect": (1, 2, 4, 8)}


def offers(weights: Path) -> tuple[str, ...]:
    """The runtimes that can run a weights file."""
    foreign = weights.suffix in FOREIGN
    return tuple(name for name, kind in RUNTIMES.items() if not foreign or weights.suffix in kind.reads)


def open_runtime(
    manifest: Manifest,
    weights: Path,
    choice: Choice,
    *,
    size: tuple[int, int] | None = None,
    batch_sizes: Sequence[int] | None = None,
) -> Runtime:
    """The compiled network for pictures of `size` (width, height; the manifest's where None), said in one log line.

    An .onnx or .xml that takes one batch size alone gets that. Raises ModelError where the file, the runtime or the
    device does not serve.
    """
    started_s = time.perf_counter()
    width, height = size or (manifest.input.width, manifest.input.height)
    sizes = batch_sizes or (CPU_BATCHES if choice.device.lower() == "cpu" else GPU_BATCHES)[manifest.task]
    open_it: OpenRuntime = found(RUNTIMES[choice.runtime].opens)
    runtime, warm = open_it(manifest, weights, choice, (width, height), sizes)
    if choice.precision == "int8":
        from streampose.models.calibrate import keep_calibration

        keep_calibration(_calibrated(manifest, weights, width, height))
    log.info(
        "%s %dx%d: %s on %s, %s, batches of %s, %s in %.1f s",
        manifest.name,
        width,
        height,
        runtime.name,
        runtime.device,
        runtime.precision,
        "/".join(map(str, runtime.batch_sizes)),
        "from the cache" if warm else "made ready",
        time.perf_counter() - started_s,
    )
    return runtime


def model_key(manifest: Manifest, weights: Path, width: int, height: int, precision: str) -> dict[str, object]:
    """All that a converted network depends on, besides the runtime's version."""
    key: dict[str, object] = {
        "export": cache.EXPORT_VERSION,
        "weights": manifest.sha256,
        "architecture": {name: value for name, value in manifest.architecture.items() if name != "trust"},
        "input": manifest.input.model_dump(),
        "size": [width, height],
        "int8": precision == "int8" and ("whole range" if cpu_sums_int8() else "half range"),
    }
    if weights.suffix == ".xml":
        key["bin"] = manifest.sha256_bin or sha256_of(_weights_of_ir(weights))
    elif manifest.sha256_bin is not None:
        key["bin"] = manifest.sha256_bin
    if precision == "int8":
        from streampose.models.calibrate import calibration_of

        key["calibration"] = calibration_of(_calibrated(manifest, weights, width, height))
    return key


def _calibrated(manifest: Manifest, weights: Path, width: int, height: int) -> dict[str, object]:
    """What is calibrated for int8: a network of any size once for all."""
    if takes_any_size(manifest, weights):
        width, height = manifest.input.width, manifest.input.height
    return model_key(manifest, weights, width, height, "fp32")


def fixed_size(weights: Path, runtime: str) -> tuple[int, int] | None:
    """Width and height of the only pictures that an .onnx or .xml takes, as `runtime` reads it; None where it leaves them
    open, and of other files.

    Raises ModelError where the file is damaged or its input is no picture.
    """
    if weights.suffix not in FOREIGN:
        return None
    if runtime == "onnx":
        from streampose.runtime.onnx_runtime import picture_size
    else:
        from streampose.runtime.openvino_runtime import picture_size
    return picture_size(weights)


def takes_any_size(manifest: Manifest, weights: Path) -> bool:
    """Whether one conversion for OpenVINO serves pictures of every size: a detector's that is not end-to-end."""
    kind = manifest.output.kind
    return kind in DETECTORS and load(DETECTORS, kind).any_size and weights.suffix not in FOREIGN


def _weights_of_ir(xml: Path) -> Path:
    weights = xml.with_suffix(".bin")
    if not weights.is_file():
        raise ModelError(f"{weights}: the weights of {xml.name} are missing; restore the file")
    return weights
