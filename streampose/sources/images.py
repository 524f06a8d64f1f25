"""One picture, or every picture in a folder, as a source: upright, in natural order, one second apart.

Pillow decodes, not OpenCV: it refuses a cut-off file where OpenCV hands out its half-grey picture.
"""

from __future__ import annotations

import io
import logging
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from streampose.errors import PermanentSourceError
from streampose.messages import Image, SourceInfo
from streampose.sources.base import Corrupt, Picture, SourceKind, check_live, check_there
from streampose.sources.libav import scheme_of
from streampose.sources.said import say_once
from streampose.sources.suffixes import MOVING, PICTURE_SUFFIXES, UNREAD_SUFFIXES, VIDEO_SUFFIXES

if TYPE_CHECKING:
    from PIL.Image import Exif
    from PIL.Image import Image as PillowImage

T = TypeVar("T")
_STILL_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")  # those with a signature
_ORIENTATION = 0x0112  # TIFF 6.0
_EXIF_IFD = 0x8769
_DATE_TIME_ORIGINAL = 0x9003  # EXIF 2.32, table 8
_OFFSET_TIME_ORIGINAL = 0x9011
_SUBSEC_TIME_ORIGINAL = 0x9291


class ImageSource:
    """A picture, or the pictures in a folder (not those of folders in it): `time_s` is the index, `file` the name.

    `only` names the pictures of the folder that are wanted, letter by letter; what is not there is said. Without it, hidden
    files are left out. What does not decode is a `Corrupt` and keeps its place in time; the others come all the same. Of a
    file of several pictures the first is taken, which is said at the end.
    """

    def __init__(self, path: str | Path, only: Collection[str] | None = None) -> None:
        self._path = Path(path)
        self._only = None if only is None else set(only)
        self._files: list[Path] = []

    def open(self, live_only: bool = False) -> SourceInfo:
        """List the pictures; size and codec are those of the first that decodes. Raises PermanentSourceError, and
        TransientSourceError with `live_only`, for pictures in a folder are a recording."""
        self._files = self._list()
        size: tuple[int, int] | None = None
        fault = ""
        for file in self._files:
            try:
                height, width = read_picture(file)[0].shape[:2]
            except ValueError as error:
                fault = fault or str(error)
                continue
            size = (width, height)
            break
        if size is None:
            first = self._files[0]
            if len(self._files) == 1:
                raise PermanentSourceError(f"{first} is not a picture that can be decoded ({fault})", kind="codec")
            raise PermanentSourceError(
                f"{self._path} holds no picture that can be decoded ({first.name}: {fault})", kind="codec"
            )
        info = SourceInfo(
            url=str(self._path),
            kind="images",
            live=False,
            width=size[0],
            height=size[1],
            nominal_fps=1.0,
            duration_s=float(len(self._files)),
            frame_count=len(self._files),
        )
        check_live(info, live_only)
        return info

    def frames(self, stopped: Callable[[], bool]) -> Iterator[Picture | Corrupt]:
        """Every picture in natural order (picture 2 before picture 10)."""
        before: tuple[int, ...] | None = None
        several: list[tuple[Path, str]] = []
        for index, file in enumerate(self._files):
            if stopped():
                break
            try:
                image, taken_s = read_picture(file)
            except ValueError as error:
                yield Corrupt(f"{file.name} cannot be decoded ({error})", float(index))
                continue
            if left_out := _left_out(file):
                several.append((file, left_out))
            jump = "" if before is None or before == image.shape else "the pictures differ in size"
            before = image.shape
            yield Picture(
                image=image,
                pts=index,
                time_base=Fraction(1),
                time_s=float(index),
                wall_s=taken_s,
                wall_source="none" if taken_s is None else "container",
                arrival_s=time.monotonic(),
                wall_uncertainty_s=None if taken_s is None else 1.0,
                file=file.name,
                jump=jump,
            )
        if len(several) == 1:
            say_once(f"{several[0][0]}: {several[0][1]}")
        elif several:
            first, more = several[0][0].name, len(several) - 1
            say_once(f"{self._path}: {first} and {more} more hold several pictures; the first of each is taken")

    def close(self) -> None:
        self._files = []

    def _list(self) -> list[Path]:
        check_there(self._path)
        if self._path.is_file():
            return [self._path]
        try:
            files = sorted(pictures_in(self._path, self._only), key=natural_order)
        except PermissionError:
            raise PermanentSourceError(f"{self._path} may not be read; check its permissions", kind="auth") from None
        missing = ", ".join(sorted((self._only or set()) - {entry.name for entry in files}))
        if missing and not files:
            raise PermanentSourceError(f"{self._path} holds none of the pictures {missing}", kind="not_found")
        if not files:
            raise PermanentSourceError(
                f"{self._path} holds no pictures; .jpg, .png and the like are looked for, not in folders inside it",
                kind="not_found",
            )
        if missing:
            say_once(f"{self._path} does not hold the pictures {missing}; the others are taken", logging.WARNING)
        return files


def is_still(path: str) -> bool:
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
        and (file.suffix.lower() in PICTURE_SUFFIXES or (only is not None and is_still(str(file))))
    ]
    return [file for file in files if file.is_file()]


def _takes(address: str) -> bool:
    """A folder, or a file that is a picture: by its suffix, or where that does not tell, one that does not move by its
    content."""
    if scheme_of(address):
        return False
    suffix = Path(address).suffix.lower()
    if os.path.isdir(address) or (suffix in PICTURE_SUFFIXES and suffix not in MOVING):
        return True
    if suffix in UNREAD_SUFFIXES:
        raise PermanentSourceError(f"{address}: {suffix} is not read; convert it to JPEG", kind="usage")
    return suffix not in VIDEO_SUFFIXES and is_still(address)


IMAGES = SourceKind(
    takes=_takes,
    make=lambda address, _options, _tap, only: ImageSource(address, only),
    live=lambda _: False,
    on_disk=True,
    stills=True,
    no_packets="pictures have no stream to record",
)


def _left_out(path: Path) -> str:
    """What is not taken of a file that moves, or has many pages; nothing of others."""
    import PIL.Image

    try:
        with PIL.Image.open(path) as opened:
            form, pictures = opened.format or "", getattr(opened, "n_frames", 1)
    except Exception:  # noqa: BLE001  (damage behind the first, which was read; or the file is gone by now)
        return ""
    if pictures < 2 or form == "MPO":  # a phone's, with what it needs itself
        return ""
    video = {"PNG": "; under a name with .apng it is a video", "GIF": "; given by its name it is a video"}
    return f"{pictures} pictures in it; the first is taken{video.get(form, '')}"


def natural_order(path: Path) -> tuple[tuple[int, int | str], ...]:
    """The key under which `img2` sorts before `img10`, whatever the case."""
    parts = re.split(r"(\d+)", path.name.lower())
    return (*((0, int(part)) if part.isdecimal() else (1, part) for part in parts if part), (1, path.name))


def read_picture(path: Path) -> tuple[Image, float | None]:
    """(H, W, 3) BGR uint8, turned as its EXIF orientation says, and when it was taken (Unix seconds) if EXIF says.
    What is transparent shows white.

    Raises ValueError, in one line, where the file cannot be read, is no picture, or is damaged or cut off.
    """
    import PIL.Image

    try:
        with PIL.Image.open(path) as opened:
            opened.load()  # first: a TIFF is turned by it
            return _bgr(_upright(opened)), _of_exif(opened, _taken_s)
    except Exception as error:  # Pillow's readers stumble over damage in every way that Python knows
        raise ValueError(_reason(error)) from error


def _upright(picture: PillowImage) -> PillowImage:
    """Turned by hand: Pillow's `exif_transpose` writes the EXIF anew, which fails where any field of it is malformed."""
    from PIL.Image import Transpose

    methods: dict[object, Transpose] = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    method = methods.get(_of_exif(picture, lambda exif: exif.get(_ORIENTATION)))
    return picture if method is None else picture.transpose(method)


def _of_exif(picture: PillowImage, read: Callable[[Exif], T]) -> T | None:
    """What `read` makes of the EXIF of `picture`, None where that is damaged there."""
    try:
        return read(picture.getexif())
    except Exception:  # noqa: BLE001  (a field may be of any type, and Pillow believes it)
        return None


def orientation_of(data: bytes) -> int:
    """How EXIF says that the picture in the file `data` is to be turned: 1 to 8, 1 where it says nothing (TIFF 6.0)."""
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(data)) as opened:
            value = _of_exif(opened, lambda exif: int(exif.get(_ORIENTATION, 1)))
    except Exception:  # noqa: BLE001  (as `read_picture`)
        return 1
    return value if value is not None and 1 <= value <= 8 else 1


def _bgr(picture: PillowImage) -> Image:
    import PIL.Image

    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):  # Pillow would clip 16 bits, not scale them
        values = np.asarray(picture, np.float64)
        top = float(values.max(initial=0, where=np.isfinite(values)))
        white = 65535.0 if top > 255 else 255.0
        if picture.mode == "F":
            white = 1.0 if top <= 1 else max(top, 255.0)
        grey = np.clip(np.nan_to_num(values, nan=0.0, posinf=white, neginf=0.0) * (255.0 / white), 0, 255).astype(
            np.uint8
        )
        return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
    if picture.has_transparency_data:  # the colours below it are whatever the program left there
        white_below = PIL.Image.new("RGBA", picture.size, "white")
        white_below.alpha_composite(picture.convert("RGBA"))
        picture = white_below
    rgb = np.asarray(picture.convert("RGB"), np.uint8)
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _taken_s(exif: Exif) -> float | None:
    """DateTimeOriginal in Unix seconds; without a time zone of its own it is read in the zone of this machine."""
    tags = exif.get_ifd(_EXIF_IFD)
    try:
        moment = datetime.strptime(str(tags.get(_DATE_TIME_ORIGINAL, "")).strip(" \0"), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
    offset = re.fullmatch(r"([+-])(\d\d):(\d\d)", str(tags.get(_OFFSET_TIME_ORIGINAL, "")).strip(" \0"))
    if offset is not None:
        minutes = int(offset[2]) * 60 + int(offset[3])
        moment = moment.replace(tzinfo=timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes)))
    fraction = str(tags.get(_SUBSEC_TIME_ORIGINAL, "")).strip(" \0")
    return moment.astimezone(UTC).timestamp() + (float(f"0.{fraction}") if fraction.isdecimal() else 0.0)


def _reason(error: Exception) -> str:
    """What is wrong with a picture: Pillow's words where they are meant for people, without the path that they repeat."""
    from PIL.Image import DecompressionBombError

    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "larger than the memory, or damaged"
    text = str(error) if isinstance(error, OSError | ValueError | SyntaxError | DecompressionBombError) else ""
    if text.startswith("cannot identify image file"):
        return "not a picture"
    return text.splitlines()[0] if text else "damaged"
