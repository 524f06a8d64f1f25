"""Which source an address means: the kinds of the registry are asked in turn."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote

from streampose.errors import PermanentSourceError
from streampose.redact import redact_url
from streampose.registry import SOURCES, load
from streampose.sources.base import Source, SourceKind
from streampose.sources.libav import Skip, Transport, VideoOptions, scheme_of
from streampose.sources.limits import OPEN_TIMEOUT_S, READ_TIMEOUT_S

if TYPE_CHECKING:
    from streampose.sources.decoder import PacketTap
    from streampose.sources.repeats import Seen


def address_of(url: str | int) -> str:
    """`url` as it is opened: a text that is the very name of an existing file or folder is that, also where it could be a
    webcam's number (a folder `2024`) or have a scheme (`12:30.mp4`). A number that is no text is a webcam. `file://` is a
    path, whose %20 and the like are decoded where no file is named so."""
    text = str(url)
    named = isinstance(url, str) and os.path.exists(text)
    if not named and scheme_of(text) == "file":
        path = text[len("file://") :]
        if path.startswith("localhost/") and not os.path.exists(path):  # RFC 8089: the host that it may name
            path = path.removeprefix("localhost")
        text, named = path if os.path.exists(path) else unquote(path), True
    doubtful = (text.isdecimal() or ":" in text) and not os.path.isabs(text)
    return f"./{text}" if doubtful and named else text


def kind_of(url: str | int) -> str:
    """The name of the kind of source that `url` means. Raises PermanentSourceError as `source_kind` does."""
    return _find(url)[0]


def source_kind(url: str | int) -> SourceKind:
    """What is known of the kind of source that `url` means. Raises PermanentSourceError for a scheme, and for a format of
    pictures, that nothing here reads."""
    return _find(url)[1]


def _find(url: str | int) -> tuple[str, SourceKind]:
    text = address_of(url)
    kinds: dict[str, SourceKind] = {name: load(SOURCES, name) for name in SOURCES}
    for name, kind in kinds.items():
        if kind.takes(text):
            return name, kind
    known = ", ".join(sorted(frozenset().union(*(kind.schemes for kind in kinds.values()))))
    raise PermanentSourceError(
        f"{redact_url(text)}: scheme {scheme_of(text)}:// is not known; known are {known}", kind="usage"
    )


def is_live(url: str | int) -> bool:
    """Whether pictures come whether or not anybody is ready, as far as the address tells before it is opened."""
    return source_kind(url).live(address_of(url))


def open_source(
    url: str | int,
    *,
    open_timeout_s: float = OPEN_TIMEOUT_S,
    read_timeout_s: float = READ_TIMEOUT_S,
    transport: Transport = "tcp",
    skip: Skip = "none",
    threads: int = 0,
    hwaccel: str = "none",
    libav: Mapping[str, str] | None = None,
    tap: PacketTap | None = None,
    only: Collection[str] | None = None,
    seen: Seen | None = None,
) -> Source:
    """The source for `url`, not yet opened; options that its kind has no use for are ignored, those that nothing knows are
    refused (PermanentSourceError).

    `url` is a file, a folder of pictures, a picture, a network URL, a webcam (0, /dev/video0, a link to it, or what
    /dev/v4l/by-id names, plugged in or not), or `test:people`; a file
    or folder of that very name goes before the others.
    The options are those of `libav.VideoOptions`; `tap` is that of `VideoSource`,
    `only` names the pictures of a folder that are wanted. `seen`, the same each time a camera is opened anew, keeps it from
    giving again what a live playlist still holds.
    """
    kind = source_kind(url)
    options = VideoOptions(open_timeout_s, read_timeout_s, transport, skip, threads, hwaccel, libav or {}, seen)
    return kind.make(address_of(url), options, tap, only)
