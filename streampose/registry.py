"""What there is of each kind, by name: "module:name", imported when it is asked for. A new one is a file and a line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from streampose.errors import ConfigError

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

SINKS = {
    "display": "streampose.sinks.display:DisplaySink",
    "jsonl": "streampose.sinks.jsonl:JsonlSink",
    "pictures": "streampose.sinks.pictures:PicturesSink",
    "record": "streampose.sinks.record:RecordSink",
}


def load(table: dict[str, str], name: str) -> Any:
    """What `name` stands for in `table`; raises ConfigError for a name that is not there."""
    if name not in table:
        raise ConfigError(f'"{name}" is not known; known are {", ".join(sorted(table))}')
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)
