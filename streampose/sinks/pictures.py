"""One annotated picture for every picture of a folder, under the same name."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import cv2

from streampose.errors import SinkError
from streampose.messages import Break, Control, PoseResult
from streampose.sinks.base import Background, Given, SinkConfig
from streampose.sinks.draw import DrawOptions, DrawSkeleton, draw_people
from streampose.sinks.paths import Names, cannot_write, make_folder, names_of

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")


def picture_name(file: str) -> str:
    """The name of the annotated picture: JPEG and PNG keep theirs, every other kind gets ".png" behind its own, so
    that `a.jpg`, `a.png` and `a.bmp` stay apart. Folders below the source are kept."""
    path = Path(file)
    inside = path.name if path.is_absolute() or ".." in path.parts else str(path)
    return inside if path.suffix.lower() in (*_JPEG, ".png") else f"{inside}.png"


def annotated_name(file: str, source: Path) -> Path:
    """`picture_name`, or `a.bmp-2.png` where the folder `source` has an `a.bmp.png` beside `a.bmp`."""
    first = Path(picture_name(file))
    if first.name == Path(file).name:
        return first
    return next(name for name in names_of(first) if not os.path.isfile(source / name))


class PicturesSink:
    """Writes annotated pictures into `folder`. Pictures without a file name (a video's) are numbered by their index.

    `names` are those of the run: where a camera of it has filled `folder` already, this one is `folder-2`, or the next
    that is not another's.

    Raises SinkError, also where the annotated picture would replace the one it was made from.
    """

    name = "pictures"
    newest_only = False

    def __init__(
        self,
        folder: str | Path,
        camera: str,
        skeleton: DrawSkeleton,
        drawing: DrawOptions | None = None,
        *,
        quality: int = 92,
        names: Names | None = None,
    ) -> None:
        self._first = Path(str(folder).replace("{camera}", camera))
        self._folder: Path | None = None
        self._names = names or Names()
        self._skeleton = skeleton
        self._drawing = drawing or DrawOptions()
        self._quality = quality
        self._source = Path()
        self._written = 0

    def write(self, message: PoseResult | Control) -> None:
        if isinstance(message, Break):
            self._source = Path(message.info.url)
        elif isinstance(message, PoseResult):
            self._save(message)

    def close(self) -> None:
        """Nothing is open between pictures."""

    def outputs(self) -> tuple[str, ...]:
        return (str(self._folder),) if self._written else ()

    def _save(self, result: PoseResult) -> None:
        file = result.frame.file or f"{result.frame.index:06d}.jpg"
        if self._folder is None:
            self._folder = self._names.give(self._first)
        path = self._folder / annotated_name(file, self._source)
        make_folder(path)
        inputs = (self._source, self._source / file, Path(file))
        if os.path.exists(path) and any(os.path.isfile(place) and place.samefile(path) for place in inputs):
            raise SinkError(f"{path}: this is the picture itself; choose another folder for the annotated ones")
        image = draw_people(result.frame.image, result.people, self._skeleton, self._drawing)
        jpeg = path.suffix.lower() in _JPEG
        options = [cv2.IMWRITE_JPEG_QUALITY, self._quality] if jpeg else [cv2.IMWRITE_PNG_COMPRESSION, 3]
        good, data = cv2.imencode(".jpg" if jpeg else ".png", image, options)
        if not good:
            raise SinkError(f"{path}: a picture of {image.shape[1]}x{image.shape[0]} cannot be encoded")
        part = path.with_name(f".{os.getpid():x}.part")  # short, and others may write here
        try:
            part.write_bytes(data.tobytes())
            part.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise cannot_write(path, error) from error
        self._written += 1


class PicturesConfig(SinkConfig):
    """One annotated picture for every picture of a folder."""

    path: str = "out/{camera}"
    background: Background = "image"

    def template(self) -> str:
        return self.path

    def folder(self) -> str:
        return self.path

    def sink(self, given: Given) -> PicturesSink:
        drawing = DrawOptions(background=self.background)
        return PicturesSink(self.path, given.camera, given.skeleton(), drawing, names=given.names)
