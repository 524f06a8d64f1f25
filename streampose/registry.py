"""What there is of each kind, by name: "module:name", imported when it is asked for. A new one is a file and a line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from streampose.errors import ConfigError
from streampose.runtime.base import RuntimeKind

SOURCES = {
    "synthetic": "streampose.sources.synthetic:SYNTHETIC",
    "webcam": "streampose.sources.video:WEBCAM",
    "stream": "streampose.sources.video:STREAM",
    "images": "streampose.sources.images:IMAGES",
    "video": "streampose.sources.video:VIDEO",
}
"""Kinds of sources, a `sources.base.SourceKind` each. An address is of the first that takes it."""

DETECTORS = {
    "yolo": "streampose.detect.yolo:YOLO",
    "yolo_end2end": "streampose.detect.yolo_end2end:YOLO_END2END",
}
"""Kinds of output of a detector (`output.kind` of its manifest): a `detect.base.BoxOutput` each."""

RUNTIMES = {
    "torch": RuntimeKind(
        "streampose.runtime.torch_runtime:open_torch",
        packages=("torch",),
        install="torch",
        devices=("cpu", "cuda", "mps"),
        precisions={"cpu": ("fp32", "bf16"), "cuda": ("fp16", "fp32", "bf16"), "": ("fp32", "bf16", "fp16")},
    ),
    "openvino": RuntimeKind(
        "streampose.runtime.openvino_runtime:open_openvino",
        packages=("openvino",),
        install="openvino",
        devices=("cpu",),
        precisions={"cpu": ("bf16", "fp32", "int8"), "": ("fp16", "fp32", "int8")},
        best_on=("cpu",),
        bf16_flags=frozenset({"avx512_bf16", "amx_bf16"}),  # none of ARM's
        reads=(".onnx", ".xml"),
    ),
    "onnx": RuntimeKind(
        "streampose.runtime.onnx_runtime:open_onnx",
        packages=("onnxruntime", "onnx"),  # the second puts the pre-processing in front of a model, or writes it
        install="streampose[onnx]",
        devices=("cpu", "cuda"),
        precisions={"": ("fp32",)},
        built_for_cuda="streampose.runtime.onnx_runtime:has_cuda",
        reads=(".onnx",),
    ),
}
"""Runtimes, in the order in which they are taken where none is asked for and none is best."""

SINKS = {
    "display": "streampose.sinks.display:DisplayConfig",
    "record": "streampose.sinks.record:RecordConfig",
    "jsonl": "streampose.sinks.jsonl:JsonlConfig",
    "pictures": "streampose.sinks.pictures:PicturesConfig",
}
"""Sinks by their section of the configuration, a `sinks.base.SinkConfig` each."""


def load(table: dict[str, str], name: str) -> Any:
    """What `name` stands for in `table`; raises ConfigError for a name that is not there."""
    if name not in table:
        raise ConfigError(f'"{name}" is not known; known are {", ".join(sorted(table))}')
    return found(table[name])


def found(place: str) -> Any:
    """What stands at `place`, "module:name"."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
