"""Networks through ONNX Runtime: for its many providers (CUDA, TensorRT, DirectML, CoreML), and as an exchange format.

ONNX Runtime falls back to the CPU when a provider fails to start and says so only in its log; here, what was asked for is
compared with what was got, and a difference is an error.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.errors import ModelError, words_of
from streampose.models import cache
from streampose.models.manifest import InputSpec, Manifest
from streampose.models.open import model_key
from streampose.runtime.batches import WASTE, Outputs, run_in_batches
from streampose.runtime.select import Choice, core_count

log = logging.getLogger(__name__)
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "rocm": "ROCMExecutionProvider",
}


class OnnxRuntime:
    """An ONNX model whose input is (B, H, W, 3) uint8 BGR; for one thread at a time.

    `model` is the file's content. Raises ModelError where the provider is not there or did not start, or the model does
    not load.
    """

    name = "onnx"
    precision = "fp32"

    def __init__(self, model: bytes, choice: Choice, batch_sizes: Sequence[int]) -> None:
        import onnxruntime as ort

        kind, _, index = choice.device.lower().partition(":")
        wanted = PROVIDERS.get(kind)
        if wanted is None or wanted not in ort.get_available_providers():
            here = [name for name, provider in PROVIDERS.items() if provider in ort.get_available_providers()]
            raise ModelError(f"device: this ONNX Runtime has no {kind}; it has {', '.join(here)}")
        if index and kind != "openvino" and not index.isdecimal():
            raise ModelError(
                f"device: {choice.device}: after {kind}: the number of the device is wanted, such as {kind}:0"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = choice.threads or core_count()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other networks share the cores
        options.log_severity_level = 3
        self.device = choice.device.lower()
        self._waste = WASTE if kind == "cpu" else 1.0
        try:
            if kind in ("cuda", "tensorrt"):
                ort.preload_dlls()  # CUDA's libraries may lie in Python packages, where nothing else looks for them
            providers = provider_list(kind, index, hashlib.sha256(model).hexdigest())
            # Nor may its Python side go on with other providers, here or while it runs.
            self._session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
            got = self._session.get_providers()
            if got[0] != wanted:
                raise ModelError(
                    f"device: {kind} was asked for, ONNX Runtime started {got[0]}; see its log for the reason"
                )
            self._input = self._session.get_inputs()[0]
            fixed = self._input.shape[0]
            self.batch_sizes: Sequence[int] = (fixed,) if isinstance(fixed, int) else tuple(sorted(set(batch_sizes)))
            self._warm_up(self.batch_sizes if kind != "cpu" else self.batch_sizes[:1])
        except _faults() as error:
            raise ModelError(f"ONNX Runtime cannot run the model ({_words(error)})") from error

    def __call__(self, batch: npt.NDArray[Any]) -> Outputs:
        """See `Runtime`: (B, H, W, 3) uint8 BGR to float32 outputs; any B. Raises ModelError where the model fails."""
        try:
            return run_in_batches(batch, self.batch_sizes, self._run, self._waste)
        except _faults() as error:
            size = f"{batch.shape[2]}x{batch.shape[1]}"
            raise ModelError(f"ONNX Runtime cannot run the model on pictures of {size} ({_words(error)})") from error

    def _run(self, batch: npt.NDArray[Any]) -> Outputs:
        return tuple(np.asarray(each, np.float32) for each in self._session.run(None, {self._input.name: batch}))

    def _warm_up(self, sizes: Sequence[int]) -> None:
        """Run every batch size once: what a GPU's provider searches or builds for a shape, it does now."""
        shape = self._input.shape[1:]
        if all(isinstance(side, int) for side in shape):
            for size in sizes:
                self._run(np.zeros((size, *shape), np.uint8))

    def close(self) -> None:
        """Free the session's memory."""
        del self._session


def open_onnx(
    manifest: Manifest, weights: Path, choice: Choice, size: tuple[int, int], batch_sizes: Sequence[int]
) -> tuple[OnnxRuntime, bool]:
    """See `OpenRuntime`; what ONNX Runtime compiles is not kept."""
    return OnnxRuntime(_content(manifest, weights, *size), choice, batch_sizes), False


def _content(manifest: Manifest, weights: Path, width: int, height: int) -> bytes:
    """The network as an ONNX file's content; converted once and kept."""
    if weights.suffix == ".onnx":
        return with_preprocessing(weights, manifest.input.model_copy(update={"width": width, "height": height}))
    import torch

    def build() -> bytes:
        from streampose.models.convert import to_onnx
        from streampose.models.networks import network_of

        log.info("%s %dx%d: converted to ONNX, once", manifest.name, width, height)
        return to_onnx(network_of(manifest, weights), manifest.input, width, height)

    key = {**model_key(manifest, weights, width, height, "fp32"), "torch": torch.__version__}
    return cache.cached(cache.entry_path("onnx", key, ".onnx"), build)[0]


def has_cuda() -> bool:
    """Whether the ONNX Runtime that is installed was built for CUDA."""
    if find_spec("onnxruntime") is None:
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _faults() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises where a model, a provider or an option fails: types with nothing but Exception in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError)


def _words(error: Exception) -> str:
    """What it says, without the place in its source and the function there, which could be all that a line holds."""
    return words_of(Exception(re.sub(r"^\S+\.\w+:\d+ .*?\) ", "", str(error))), 300)


def provider_list(kind: str, index: str, digest: str) -> list[Any]:
    """The provider asked for with its options; for TensorRT, CUDA behind it runs what TensorRT cannot.

    TensorRT names the engines that it keeps by the structure of a network, not by its weights, so each model, told by its
    `digest`, has a folder of its own.
    """
    options: dict[str, str] = {"device_id": index} if index else {}
    if kind != "tensorrt":
        return [(PROVIDERS[kind], options)]
    engines = cache.cache_folder() / "tensorrt" / digest[:16]
    kept: dict[str, str] = {}
    try:
        engines.mkdir(parents=True, exist_ok=True)  # the provider makes no folder above the last
        kept = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(engines)}
    except OSError as error:
        log.warning(
            "%s: no cache (%s): TensorRT builds its engines, for minutes, at every start", engines, words_of(error)
        )
    return [(PROVIDERS["tensorrt"], {**options, **kept}), (PROVIDERS["cuda"], options)]


def picture_size(path: Path) -> tuple[int, int] | None:
    """Width and height in pixels that an .onnx model takes; None where they are open. Raises ModelError."""
    from onnx import TensorProto

    _, taken = _read(path, data=False)
    sides = [each.dim_value for each in taken.type.tensor_type.shape.dim]
    height, width = sides[1:3] if taken.type.tensor_type.elem_type == TensorProto.UINT8 else sides[2:]
    return (width, height) if width and height else None


def _read(path: Path, *, data: bool = True) -> tuple[Any, Any]:
    """A model and its one input, with four dimensions; without `data` what lies in files beside it is not read.

    Raises ModelError where the file is damaged or has other inputs.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), load_external_data=data)
    except (OSError, DecodeError) as error:
        raise ModelError(f"{path}: not an ONNX file ({words_of(error, 100)})") from error
    known = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in known]
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
        raise ModelError(f"{path}: one input (B, 3, H, W) is wanted; it has {[each.name for each in inputs]}")
    return model, inputs[0]


def with_preprocessing(path: Path, spec: InputSpec) -> bytes:
    """The content of an ONNX file with the pre-processing of `spec` put in front of its one input.

    A model that takes uint8 already is left as it is. Raises ModelError where the file is damaged or its input is not
    (B, 3, H, W) pictures of the size that `spec` says.
    """
    from onnx import TensorProto, helper, numpy_helper

    model, taken = _read(path)
    kind, target = taken.type.tensor_type, taken.name
    if kind.elem_type == TensorProto.UINT8:
        return bytes(model.SerializeToString())
    fixed = [each.dim_value for each in kind.shape.dim]
    if any(has not in (0, needs) for has, needs in zip(fixed[1:], (3, spec.height, spec.width), strict=True)):
        raise ModelError(f"{path}: takes {fixed}, its manifest says (B, 3, {spec.height}, {spec.width})")
    weight = np.zeros((3, 3, 1, 1), np.float32)
    for output in range(3):
        weight[output, 2 - output if spec.channels == "rgb" else output] = 1 / spec.std[output]
    bias = -np.asarray(spec.mean, np.float32) / np.asarray(spec.std, np.float32)
    model.graph.initializer.extend(
        [numpy_helper.from_array(weight, "streampose.weight"), numpy_helper.from_array(bias, "streampose.bias")]
    )
    steps = [
        helper.make_node("Transpose", ["streampose.pictures"], ["streampose.planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["streampose.planes"], ["streampose.float"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["streampose.float", "streampose.weight", "streampose.bias"], ["streampose.normal"]),
        helper.make_node("Cast", ["streampose.normal"], [target], to=kind.elem_type),  # a network of halves eats halves
    ]
    nodes = [*steps, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    batch = fixed[0] or kind.shape.dim[0].dim_param or "batch"
    pictures = helper.make_tensor_value_info(
        "streampose.pictures", TensorProto.UINT8, [batch, spec.height, spec.width, 3]
    )
    kept = [each for each in model.graph.input if each.name != target]
    del model.graph.input[:]
    model.graph.input.extend([pictures, *kept])
    return bytes(model.SerializeToString())
