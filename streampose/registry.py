"""Name -> class, imported when it is asked for: a new sink or detector is one file and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from streampose.errors import ConfigError

SINKS = {
    "display": "streampose.sinks.display:DisplaySink",
    "jsonl": "streampose.sinks.jsonl:JsonlSink",
    "pictures": "streampose.sinks.pictures:PicturesSink",
    "record": "streampose.sinks.record:RecordSink",
}


def load(table: dict[str, str], name: str) -> Any:
    """The class that `name` stands for in `table`; raises ConfigError for a name that is not there."""
    if name not in table:
        raise ConfigError(f'"{name}" is not known; known are {", ".join(sorted(table))}')
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)
