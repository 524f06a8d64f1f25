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
from streampose.registry import DETECTORS, load
from streampose.runtime.base import Runtime
from streampose.runtime.select import RUNTIMES, Choice, cpu_sums_int8

log = logging.getLogger(__name__)
CPU_BATCHES = {"pose": (1, 4), "detect": (1,)}  # a CPU gains nothing from more, and each costs 0.3 s of every start
GPU_BATCHES = {"pose": (1, 2, 4, 8, 16), "detect": (1, 2, 4, 8)}


def offers(weights: Path) -> tuple[str, ...]:
    """The runtimes that can run a weights file."""
    if weights.suffix == ".onnx":
        return ("openvino", "onnx")
    return ("openvino",) if weights.suffix == ".xml" else RUNTIMES


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
    warm = False
    runtime: Runtime
    if choice.runtime == "openvino":
        from streampose.runtime.openvino_runtime import open_openvino, picture_batch

        if weights.suffix in FOREIGN and (only := picture_batch(weights)) is not None:
            sizes = (only,)  # what is in such a model may hold for that batch alone
        key = model_key(manifest, weights, width, height, choice.precision)
        shape = width, height
        runtime, warm = open_openvino(lambda: openvino_ir(manifest, weights, *shape, choice), key, choice, shape, sizes)
    elif choice.runtime == "onnx":
        from streampose.runtime.onnx_runtime import OnnxRuntime

        runtime = OnnxRuntime(onnx_model(manifest, weights, width, height), choice, sizes)
    else:
        from streampose.models.networks import network_of
        from streampose.runtime.torch_runtime import TorchRuntime

        runtime = TorchRuntime(network_of(manifest, weights), manifest.input, (width, height), choice, sizes)
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
    if precision == "int8":
        from streampose.models.calibrate import calibration_set

        key["calibration"] = calibration_set()
    if weights.suffix == ".xml":
        key["bin"] = manifest.sha256_bin or sha256_of(_weights_of_ir(weights))
    elif manifest.sha256_bin is not None:
        key["bin"] = manifest.sha256_bin
    return key


def fixed_size(weights: Path) -> tuple[int, int] | None:
    """Width and height of the only pictures that an .onnx or .xml takes; None where it leaves them open.

    Raises ModelError where the file is damaged or its input is no picture.
    """
    from streampose.runtime.openvino_runtime import picture_size

    return picture_size(weights)


def takes_any_size(manifest: Manifest, weights: Path) -> bool:
    """Whether one conversion for OpenVINO serves pictures of every size: a detector's that is not end-to-end."""
    kind = manifest.output.kind
    return kind in DETECTORS and load(DETECTORS, kind).any_size and weights.suffix not in FOREIGN


def openvino_ir(manifest: Manifest, weights: Path, width: int, height: int, choice: Choice) -> bytes:
    """The network as OpenVINO's IR, packed; converted once and kept, quantised where the choice says int8.

    Where the network takes any size, height and width of its input are free.
    """
    from streampose.runtime import openvino_runtime as runtime
    from streampose.runtime.quiet_openvino import ov

    any_size = takes_any_size(manifest, weights)
    if any_size:
        width, height = manifest.input.width, manifest.input.height
    key = {**model_key(manifest, weights, width, height, choice.precision), "openvino": ov.get_version()}

    def build() -> bytes:
        log.info("%s %s: converted for OpenVINO, once", manifest.name, "any size" if any_size else f"{width}x{height}")
        if weights.suffix in FOREIGN:
            spec = manifest.input.model_copy(update={"width": width, "height": height})
            model = runtime.read_foreign(weights, spec)
        else:
            from streampose.models.convert import to_openvino
            from streampose.models.networks import network_of

            model = to_openvino(network_of(manifest, weights), manifest.input, width, height, any_size=any_size)
        if choice.precision == "int8":
            from streampose.models.calibrate import calibration_pictures, quantise

            pictures = calibration_pictures(manifest, width, height, any_size=any_size)
            log.info("%s: quantised to int8 on %d pictures, once", manifest.name, len(pictures))
            model = quantise(model, pictures)
        return runtime.pack(model)

    packed, _ = cache.cached(cache.entry_path("ir", key, ".ir"), build)
    return packed


def onnx_model(manifest: Manifest, weights: Path, width: int, height: int) -> bytes:
    """The network as an ONNX file's content; converted once and kept."""
    if weights.suffix == ".onnx":
        from streampose.runtime.onnx_runtime import with_preprocessing

        return with_preprocessing(weights, manifest.input.model_copy(update={"width": width, "height": height}))
    import torch

    def build() -> bytes:
        from streampose.models.convert import to_onnx
        from streampose.models.networks import network_of

        log.info("%s %dx%d: converted to ONNX, once", manifest.name, width, height)
        return to_onnx(network_of(manifest, weights), manifest.input, width, height)

    key = {**model_key(manifest, weights, width, height, "fp32"), "torch": torch.__version__}
    return cache.cached(cache.entry_path("onnx", key, ".onnx"), build)[0]


def _weights_of_ir(xml: Path) -> Path:
    weights = xml.with_suffix(".bin")
    if not weights.is_file():
        raise ModelError(f"{weights}: the weights of {xml.name} are missing; restore the file")
    return weights
