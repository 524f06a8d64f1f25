"""Which source an address means: the one place that tells a camera from a file, a folder, a picture and a test pattern."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

from streampose.errors import PermanentSourceError
from streampose.redact import quote_credentials, redact_url
from streampose.sources.base import Source
from streampose.sources.libav import NETWORK_SCHEMES, Skip, Transport, VideoOptions, scheme_of
from streampose.sources.limits import OPEN_TIMEOUT_S, READ_TIMEOUT_S

if TYPE_CHECKING:
    from streampose.sources.decoder import PacketTap

Kind = Literal["video", "stream", "webcam", "images", "synthetic"]
PICTURE_SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".webp",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".j2k",
        ".avif",
        ".tga",
        ".ico",
    }
)
MOVING = frozenset({".gif", ".apng"})  # in a folder they are pictures, alone videos where they move
RECORDED = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".3gp", ".ogv", ".gif"})
VIDEO_SUFFIXES = (RECORDED - PICTURE_SUFFIXES) | {".ts", ".mts", ".m2ts", ".flv", ".asf", ".mjpeg", ".mjpg"}
UNREAD_SUFFIXES = frozenset(  # of pictures: libav shows a tile or the thumbnail in them as a video of one frame
    {
        ".heic",
        ".heif",
        ".hif",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".raf",
        ".orf",
        ".rw2",
        ".pef",
        ".srw",
    }
)
_STILL_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")  # those with a signature


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


def kind_of(url: str | int) -> Kind:
    """What `url` names; a file whose suffix does not tell is a picture where it holds one that does not move. Raises
    PermanentSourceError for a scheme and for a format of pictures that nothing here reads."""
    text = address_of(url)
    if text.startswith("test:"):
        return "synthetic"
    if text.isdecimal() or text.startswith(("/dev/video", "/dev/v4l/")):
        return "webcam"
    scheme = scheme_of(text)
    if scheme in NETWORK_SCHEMES:
        return "stream"
    if scheme:
        known = ", ".join(sorted(NETWORK_SCHEMES))
        raise PermanentSourceError(
            f"{redact_url(text)}: scheme {scheme}:// is not known; known are {known}", kind="usage"
        )
    if os.path.islink(text) and os.path.realpath(text).startswith("/dev/video"):
        return "webcam"
    suffix = Path(text).suffix.lower()
    if os.path.isdir(text) or (suffix in PICTURE_SUFFIXES and suffix not in MOVING):
        return "images"
    if suffix in UNREAD_SUFFIXES:
        raise PermanentSourceError(f"{text}: {suffix} is not read; convert it to JPEG", kind="usage")
    return "images" if suffix not in VIDEO_SUFFIXES and _is_still(text) else "video"


def _is_still(path: str) -> bool:
    """Whether the file `path` is a picture by its content, and not one that moves."""
    if not os.path.isfile(path):
        return False
    import PIL.Image

    try:
        with PIL.Image.open(path, formats=_STILL_FORMATS) as opened:
            return opened.format not in ("GIF", "PNG") or not getattr(opened, "is_animated", False)
    except Exception:  # noqa: BLE001  (damage, over which Pillow's readers stumble in every way that Python knows)
        return False


def pictures_in(folder: Path, only: Collection[str] | None = None) -> list[Path]:
    """The pictures of `folder` in any order: those with the suffix of one, hidden ones left out, or those that `only`
    names, letter by letter. Raises OSError."""
    files = [
        file
        for file in folder.iterdir()
        if (not file.name.startswith(".") if only is None else file.name in only)
        and (file.suffix.lower() in PICTURE_SUFFIXES or (only is not None and _is_still(str(file))))
    ]
    return [file for file in files if file.is_file()]


def is_live(url: str | int) -> bool:
    """Whether pictures come whether or not anybody is ready, as far as the address tells before it is opened."""
    kind = kind_of(url)
    if kind == "webcam":
        return True
    if kind == "stream":
        path = quote_credentials(str(url)).partition("?")[0]
        return not (scheme_of(str(url)) in ("http", "https") and Path(path).suffix.lower() in RECORDED)
    if kind == "synthetic":
        from streampose.sources.synthetic import PatternOptions

        return PatternOptions.parse(str(url)).live
    return False


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
) -> Source:
    """The source for `url`, not yet opened; options that its kind has no use for are ignored, those that nothing knows are
    refused (PermanentSourceError).

    `url` is a file, a folder of pictures, a picture, a network URL, a webcam (0, /dev/video0, a link to it, or what
    /dev/v4l/by-id names, plugged in or not), or `test:people`; a file
    or folder of that very name goes before the others.
    The options are those of `libav.VideoOptions`; `tap` is that of `VideoSource`,
    `only` names the pictures of a folder that are wanted.
    """
    kind = kind_of(url)
    text = address_of(url)
    options = VideoOptions(open_timeout_s, read_timeout_s, transport, skip, threads, hwaccel, libav or {})
    if kind == "synthetic":
        from streampose.sources.synthetic import PatternOptions, SyntheticSource

        return SyntheticSource(PatternOptions.parse(text))
    if kind == "images":
        from streampose.sources.images import ImageSource

        return ImageSource(text, only)
    from streampose.sources.video import VideoSource

    if kind == "webcam":
        return VideoSource(f"/dev/video{text}" if text.isdecimal() else text, options, webcam=True, tap=tap)
    return VideoSource(text, options, tap=tap)
