"""`streampose reference`: the configuration's keys as a page, so that docs/configuration.md cannot drift from the code."""

from __future__ import annotations

import types
import typing
from typing import Any

from streampose.config import (
    CameraConfig,
    Config,
    DetectConfig,
    PoseConfig,
    SmoothConfig,
    TrackConfig,
)
from streampose.registry import SINKS, load
from streampose.section import Section
from streampose.units import parse_duration, parse_size

SECTIONS: tuple[tuple[str, type[Section]], ...] = (
    ("cameras.NAME", CameraConfig),
    ("detect", DetectConfig),
    ("pose", PoseConfig),
    ("track", TrackConfig),
    ("smooth", SmoothConfig),
)

HEAD = """# Configuration

Made by `streampose reference`; a test holds that this page is what that command prints.

A configuration is YAML. A duration is a number of seconds or a text such as `500ms`, `1s`, `10m`, `7d`; a size is bytes
or a text such as `200GB` (powers of 1000) or `200GiB` (of 1024); `null` leaves a key not set. `${VAR}` and
`${VAR:-default}` come from the environment, `${file:PATH}` from a file; `$${` is a plain `${`. An unknown key is an error
that names the nearest right one. Cameras that are alike share keys by YAML's own means
(`gate: &gate {…}`, `yard: {<<: *gate, url: …}`), and top-level keys that begin with `x-` are only there to hold what is
shared (`x-camera: &camera {…}`). `--set key.path=value` overrides a key; sinks are addressed by their name
(`--set sinks.record.crf=28`), and null takes one out (`--set sinks.display=null`).
"""


def reference() -> None:
    """Print the page of all configuration keys."""
    print(page(), end="")


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for name, section in SECTIONS:
        parts.append(_table(name, section))
    top = "\n".join(_row(key, Config.model_fields[key]) for key in ("device", "runtime", "precision"))
    parts.append(f"## Top level\n\n| key | values | default | |\n|---|---|---|---|\n{top}\n")
    parts.append(
        "## sinks\n\nA list; each item is one name with its options. Paths may hold `{camera}`, and\n"
        "where files roll (`segment`) also `{date}` and `{time}`.\n"
    )
    parts += [_table(f"- {name}:", load(SINKS, name), level="###") for name in SINKS]
    return "\n".join(parts)


def _table(name: str, section: type[Section], level: str = "##") -> str:
    rows = "\n".join(_row(key, field) for key, field in section.model_fields.items())
    text = (section.__doc__ or "").strip().splitlines()[0]
    return f"{level} {name}\n\n{text}\n\n| key | values | default | |\n|---|---|---|---|\n{rows}\n"


def _row(key: str, field: Any) -> str:
    default = "required" if field.is_required() else _default(field.default)
    made_by = {getattr(part, "func", None) for part in _metadata(field)}
    kind = "duration" if parse_duration in made_by else "size" if parse_size in made_by else _kind(field.annotation)
    return f"| `{key}` | {kind} | {default} | {field.description or ''} |"


def _default(value: Any) -> str:
    return "not set" if value is None else f"`{_plain(value)}`"


def _metadata(field: Any) -> list[Any]:
    """What is annotated to a field, also inside an optional one."""
    inner = [part for choice in typing.get_args(field.annotation) for part in getattr(choice, "__metadata__", ())]
    return [*field.metadata, *inner]


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _kind(annotation: Any) -> str:
    """The type of a key in words."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return ", ".join(str(value) for value in typing.get_args(annotation))
    if origin in (types.UnionType, typing.Union):
        return _kind(next(part for part in typing.get_args(annotation) if part is not type(None)))
    if origin is tuple:
        return f"list of {_kind(typing.get_args(annotation)[0])}"
    if origin is typing.Annotated:
        return _kind(typing.get_args(annotation)[0])
    return {str: "text", int: "integer", float: "number", bool: "true, false"}.get(annotation, str(annotation))
