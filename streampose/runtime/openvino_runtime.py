"""Networks through OpenVINO: compiled once for each batch size, kept compiled between starts.

Only this file knows OpenVINO. A network comes as one `bytes`: the length of the IR's XML, the XML, the weights. What is
compiled from it is cached as OpenVINO exports it, so that a second start reads that and imports nothing else.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.errors import ModelError, words_of
from streampose.models import cache
from streampose.models.manifest import InputSpec, Manifest
from streampose.models.open import model_key, takes_any_size
from streampose.models.resolve import FOREIGN
from streampose.runtime.batches import WASTE, Outputs, run_in_batches
from streampose.runtime.quiet_openvino import ov
from streampose.runtime.select import Choice, core_count, cpu_flags, cpu_name

log = logging.getLogger(__name__)
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


@lru_cache(maxsize=1)
def shared_core() -> Any:
    """The process's one `ov.Core`, never freed.

    OpenVINO's CPU plugin gives the thread that compiles first a signal stack of its own and unmaps it with its core; with
    several cores the thread can be left with one that is gone, and the next signal is a crash (seen with 2026.4.1).
    """
    return ov.Core()


class OpenVinoRuntime:
    """Compiled networks by batch size, each with its own request; for one thread at a time."""

    name = "openvino"

    def __init__(self, compiled: Mapping[int, Any], device: str, precision: str) -> None:
        self.device = device
        self.precision = precision
        self.batch_sizes: Sequence[int] = tuple(sorted(compiled))
        self._waste = WASTE if device == "cpu" else 1.0
        self._requests = {size: model.create_infer_request() for size, model in compiled.items()}

    def __call__(self, batch: npt.NDArray[Any]) -> Outputs:
        """See `Runtime`: (B, H, W, 3) uint8 BGR to float32 outputs; any B."""
        return run_in_batches(batch, self.batch_sizes, self._run, self._waste)

    def _run(self, batch: npt.NDArray[Any]) -> Outputs:
        request = self._requests[len(batch)]
        request.infer({0: batch}, share_inputs=True)
        return tuple(np.array(tensor.data, np.float32) for tensor in request.output_tensors)

    def close(self) -> None:
        """Free the compiled networks."""
        self._requests.clear()


def open_openvino(
    manifest: Manifest, weights: Path, choice: Choice, size: tuple[int, int], batch_sizes: Sequence[int]
) -> tuple[OpenVinoRuntime, bool]:
    """See `OpenRuntime`. An .onnx or .xml that takes one batch size alone gets that."""
    if weights.suffix in FOREIGN and (only := _picture_batch(weights)) is not None:
        batch_sizes = (only,)  # what is in such a model may hold for that batch alone
    key = model_key(manifest, weights, *size, choice.precision)
    return _compiled(lambda: _ir(manifest, weights, *size, choice), key, choice, size, batch_sizes)


def _ir(manifest: Manifest, weights: Path, width: int, height: int, choice: Choice) -> bytes:
    """The network as OpenVINO's IR, packed; converted once and kept, quantised where the choice says int8.

    Where the network takes any size, height and width of its input are free.
    """
    any_size = takes_any_size(manifest, weights)
    if any_size:
        width, height = manifest.input.width, manifest.input.height
    key = {**model_key(manifest, weights, width, height, choice.precision), "openvino": ov.get_version()}

    def build() -> bytes:
        log.info("%s %s: converted for OpenVINO, once", manifest.name, "any size" if any_size else f"{width}x{height}")
        if weights.suffix in FOREIGN:
            spec = manifest.input.model_copy(update={"width": width, "height": height})
            model = read_foreign(weights, spec)
        else:
            from streampose.models.convert import to_openvino
            from streampose.models.networks import network_of

            model = to_openvino(network_of(manifest, weights), manifest.input, width, height, any_size=any_size)
        if choice.precision == "int8":
            from streampose.models.calibrate import calibration_pictures, quantise

            pictures = calibration_pictures(manifest, width, height, any_size=any_size)
            log.info("%s: quantised to int8 on %d pictures, once", manifest.name, len(pictures))
            model = quantise(model, pictures)
        return pack(model)

    packed, _ = cache.cached(cache.entry_path("ir", key, ".ir"), build)
    return packed


def _compiled(
    read_ir: Callable[[], bytes],
    key: Mapping[str, object],
    choice: Choice,
    shape: tuple[int, int],
    batch_sizes: Sequence[int],
) -> tuple[OpenVinoRuntime, bool]:
    """The runtime for pictures of `shape` (width, height) in `batch_sizes`, and whether all of it came from the cache.

    `read_ir` gives the network (see the module) and is called only where something must be compiled; `key` is all that
    the network depends on. Raises ModelError where the device is not there or cannot run it.
    """
    core = shared_core()
    device = choice.device.upper()
    _has_device(core, device)
    options = compile_options(choice)
    key = {**key, "openvino": ov.get_version(), "cpu": [cpu_name(), *sorted(cpu_flags())], "options": options}
    compiled: dict[int, Any] = {}
    warm = True
    for size in sorted(set(batch_sizes)):
        path = cache.entry_path("openvino", {**key, "device": device, "batch": size}, ".blob")
        model = _import(core, path, device, options)
        if model is None:
            warm = False
            model = _compile(core, read_ir(), (size, shape[1], shape[0], 3), device, options)
            _export(model, path)
        compiled[size] = model
    got = _precision_got(compiled[min(compiled)], choice)
    return OpenVinoRuntime(compiled, choice.device.lower(), got), warm


def compile_options(choice: Choice) -> dict[str, object]:
    """OpenVINO's properties for a choice: one stream, low latency, no pinning (two networks share the cores)."""
    options: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": HINTS[choice.precision]}
    if choice.device.lower() == "cpu":
        options["INFERENCE_NUM_THREADS"] = choice.threads or core_count()
        options["ENABLE_CPU_PINNING"] = False
    return options


def pack(model: Any) -> bytes:
    """An OpenVINO model as one `bytes`; raises ModelError where there is no room for its files on the way."""
    try:
        with tempfile.TemporaryDirectory(prefix="streampose-") as folder:
            xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
            write_ir(model, xml, weights)
            text = xml.read_bytes()
            return len(text).to_bytes(8, "little") + text + weights.read_bytes()
    except OSError as error:
        where = tempfile.tempdir or "TMPDIR"  # None as long as no folder was found that can be written to
        raise ModelError(f"{where}: the converted network cannot be written ({words_of(error)})") from error


def write_ir(model: Any, xml: Path, weights: Path) -> None:
    """Write an OpenVINO model as two files. Raises OSError, which says how much room there is: OpenVINO does not."""
    try:
        ov.serialize(model, str(xml), str(weights))
    except RuntimeError as error:
        free_mb = shutil.disk_usage(xml.parent).free / 1e6
        raise OSError(f"OpenVINO: {words_of(error)}; {free_mb:.1f} MB are free there") from error


def unpack(packed: bytes) -> Any:
    """The OpenVINO model in what `pack` gave."""
    end = 8 + int.from_bytes(packed[:8], "little")
    return shared_core().read_model(packed[8:end], packed[end:])


def _read(path: Path) -> Any:
    """An .xml or .onnx model of one input that is a picture; raises ModelError where it is none."""
    try:
        model = shared_core().read_model(str(path))
    except RuntimeError as error:
        other = "; runtime: onnx may" if path.suffix == ".onnx" else ""
        raise ModelError(f"{path}: OpenVINO cannot read it ({_unread(error)}){other}") from error
    if len(model.inputs) != 1 or model.inputs[0].get_partial_shape().rank.get_length() != 4:
        raise ModelError(
            f"{path}: one input (B, 3, H, W) is wanted; it has {[str(i.partial_shape) for i in model.inputs]}"
        )
    return model


def _unread(error: RuntimeError) -> str:
    """Why a model cannot be read: the operations that OpenVINO has not stand in a summary at the end."""
    summary = str(error).partition("Summary:")[2].splitlines()
    lacks = "; ".join(line.strip().removeprefix("-- ") for line in summary if line.strip())
    return words_of(RuntimeError(lacks) if lacks else error)


def picture_size(path: Path) -> tuple[int, int] | None:
    """Width and height in pixels that an .xml or .onnx model takes; None where they are open. Raises ModelError."""
    port = _read(path).inputs[0]
    shape = port.get_partial_shape()
    first = 1 if port.get_element_type() == ov.Type.u8 else 2
    height, width = shape[first], shape[first + 1]
    return (width.get_length(), height.get_length()) if width.is_static and height.is_static else None


def _picture_batch(path: Path) -> int | None:
    """The one batch size that an .xml or .onnx model takes; None where it is open. Raises ModelError."""
    batch = _read(path).inputs[0].get_partial_shape()[0]
    return batch.get_length() if batch.is_static else None


def read_foreign(path: Path, spec: InputSpec) -> Any:
    """An .xml or .onnx model with the pre-processing of `spec` put in front, its batch dimension as it was.

    A model that already takes (B, H, W, 3) uint8 is left as it is. Raises ModelError where the file is damaged or its
    input is no picture.
    """
    model = _read(path)
    if model.inputs[0].get_element_type() == ov.Type.u8:
        return model
    try:
        batch = model.inputs[0].get_partial_shape()[0]
        model.reshape({0: ov.PartialShape([batch, 3, spec.height, spec.width])})
    except RuntimeError as error:
        raise ModelError(f"{path}: does not take pictures of {spec.width}x{spec.height} ({words_of(error)})") from error
    steps = ov.preprocess.PrePostProcessor(model)
    tensor = steps.input().tensor()
    tensor.set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC")).set_color_format(ov.preprocess.ColorFormat.BGR)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    chain = steps.input().preprocess().convert_element_type(ov.Type.f32)
    if spec.channels == "rgb":
        chain = chain.convert_color(ov.preprocess.ColorFormat.RGB)
    chain.mean(list(spec.mean)).scale(list(spec.std))
    return steps.build()


def _has_device(core: Any, device: str) -> None:
    if device == "CPU":
        return
    known = core.available_devices
    if device.split(".")[0].split(":")[0] not in {name.split(".")[0] for name in (*known, "AUTO", "HETERO", "MULTI")}:
        raise ModelError(f"device: OpenVINO has no {device} here; it has {', '.join(known)}")


def _compile(
    core: Any, packed: bytes, shape: tuple[int, int, int, int], device: str, options: Mapping[str, object]
) -> Any:
    model = unpack(packed)
    try:
        model.reshape({0: ov.PartialShape(list(shape))})
        return core.compile_model(model, device, dict(options))
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot compile the network for {device} ({words_of(error)})") from error


def _import(core: Any, path: Path, device: str, options: Mapping[str, object]) -> Any:
    blob = cache.read(path)
    if blob is None:
        return None
    try:
        return core.import_model(blob, device, dict(options))
    except RuntimeError as error:
        log.warning("%s: OpenVINO does not take it back (%s), compiled again", path, words_of(error))
        cache.discard(path)
        return None


def _export(model: Any, path: Path) -> None:
    try:
        blob = model.export_model()
    except RuntimeError as error:
        log.debug("not cached: %s", words_of(error))  # some devices export nothing
        return
    cache.write(path, blob if isinstance(blob, bytes) else blob.getvalue())


def _precision_got(model: Any, choice: Choice) -> str:
    if choice.precision == "int8":
        return "int8"
    if "INFERENCE_PRECISION_HINT" in model.get_property("SUPPORTED_PROPERTIES"):
        hints = [model.get_property("INFERENCE_PRECISION_HINT")]
    else:  # AUTO, HETERO and MULTI only know what the devices behind them say
        behind = model.get_property("DEVICE_PROPERTIES").values()
        hints = [device["INFERENCE_PRECISION_HINT"] for device in behind if "INFERENCE_PRECISION_HINT" in device]
    names = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}
    got = [hint.get_type_name() for hint in hints]
    name = "/".join(sorted({names.get(each, each) for each in got}))
    if name != choice.precision:
        log.warning("openvino on %s runs %s, not %s", choice.device, name, choice.precision)
    return name
