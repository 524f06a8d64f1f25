"""Annotated video at true speed: every result drawn and encoded with its own time, rolled with size and wall clock."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
from pydantic import Field, field_validator

from streampose.errors import ConfigError
from streampose.messages import Break, CameraState, Control, End, Frame, Image, PoseResult
from streampose.section import Positive
from streampose.sinks.base import Background, Given, SinkConfig
from streampose.sinks.draw import DrawOptions, DrawSkeleton, draw_people
from streampose.sinks.paths import Names, check_apart, fill, source_template
from streampose.sinks.retention import Retention, Rules
from streampose.sinks.roll import Roller, WallClock, forget_deleted
from streampose.sinks.video_file import MOST_SIDE, TIME_BASE, VideoFile, check_extension, check_preset, describe
from streampose.units import Bytes, Duration

_AWAY = ("reconnecting", "paused")  # what comes after them begins a file, so the one before is finished at once
_LEAST_SIDE = 16  # pixels
_PICTURE_SIZE = re.compile(r"[0-9]+x[0-9]+")
_LONGEST_PAUSE_S = float(2**31 * TIME_BASE) - 3600.0  # libav loses the times of an MP4 after a step of 2^31 ticks


class RecordSink:
    """Writes the annotated video of one camera.

    `path` may hold `{camera}`. Every break (a reconnect, another size or codec, a clock that was set) begins a new file,
    `name-2.mp4`. With `segment_s` the path is a template and files roll with the wall clock, too (`sinks/paths.py`), and
    `retention` is asked at every new file and every minute. `size` (width, height) is that of the video; the picture is
    fitted into it, never stretched. `names` are those of the run, which sees to it that none is written over; `sources` are
    the files that are read, which none may be either.
    Raises ConfigError for a name or preset that cannot be, SinkError where the disk says no.
    """

    name = "record"
    newest_only = False

    def __init__(
        self,
        path: str | Path,
        camera: str,
        skeleton: DrawSkeleton,
        drawing: DrawOptions | None = None,
        *,
        crf: int = 23,
        preset: str = "superfast",
        size: tuple[int, int] | None = None,
        threads: int = 1,
        segment_s: float | None = None,
        names: Names | None = None,
        sources: Sequence[Path] = (),
        retention: Retention | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_extension(Path(path))
        check_size(size)
        self._template = str(path)
        self.camera = camera
        self._skeleton = skeleton
        self._drawing = drawing or DrawOptions()
        self._crf, self._preset, self._threads = crf, preset, threads
        self._size = size
        self._roller = None if segment_s is None else Roller(segment_s)
        self._retention = retention
        self._clock = clock
        self._wall = WallClock()
        self._fps: float | None = None
        self._live = False
        self._path = Path()
        self._file: VideoFile | None = None
        self._source_size: tuple[int, int] | None = None
        self._canvas: Image | None = None
        self._last_s = 0.0
        self._names = names or Names()
        self._sources = sources
        self._outputs: list[str] = []

    def write(self, message: PoseResult | Control) -> None:
        if isinstance(message, PoseResult):
            self._add(message)
        elif isinstance(message, Break):
            self._fps, self._live = message.info.nominal_fps, message.info.live
            self.close()
        elif isinstance(message, End) or (isinstance(message, CameraState) and message.state in _AWAY):
            self.close()

    def close(self) -> None:
        """Finish the file. A sink that is closed may go on: the next result begins another file."""
        file, self._file = self._file, None
        self._canvas = None
        try:
            if file is not None:
                file.close()
        finally:
            self._names.release(self._path)

    def outputs(self) -> tuple[str, ...]:
        return tuple(self._outputs)

    def _add(self, result: PoseResult) -> None:
        frame = result.frame
        wall_s = self._wall.of(frame, self._clock())
        if self._file is None or self._rolls(frame, wall_s):
            self._begin(frame, wall_s)
        assert self._file is not None
        image = draw_people(frame.image, result.people, self._skeleton, self._drawing, self._canvas)
        self._canvas = image
        if self._size is not None:
            image = fit(image, self._size)
        self._file.add(image, frame.time_s)
        self._last_s = frame.time_s
        if self._retention is not None:
            self._retention.sweep_if_due(self._clock())

    def _rolls(self, frame: Frame, wall_s: float) -> bool:
        if (frame.width, frame.height) != self._source_size or frame.time_s - self._last_s > _LONGEST_PAUSE_S:
            return True
        return self._roller is not None and self._roller.due(wall_s)

    def _begin(self, frame: Frame, wall_s: float) -> None:
        self.close()
        if self._roller is None:
            path = self._names.give(fill(self._template, self.camera))
            check_apart(path, self._sources)
        else:
            path = self._names.claim(fill(self._template, self.camera, self._roller.begin(wall_s)))
        self._path = path
        if self._retention is not None:
            self._retention.sweep(self._clock())
        if self._roller is not None:
            forget_deleted(self._outputs)
        self._source_size = (frame.width, frame.height)
        self._file = VideoFile(
            path,
            self._size or self._source_size,
            start_s=frame.time_s,
            metadata=describe(self.camera, frame.time_s, frame.wall_s, "annotated"),
            fps=self._fps,
            crf=self._crf,
            preset=self._preset,
            threads=self._threads,
            live=self._live,
        )
        self._outputs.append(str(path))


def check_size(size: tuple[int, int] | None) -> None:
    """Raises ConfigError for a (width, height) that no video can have."""
    if size is not None and (min(size) < _LEAST_SIDE or max(size) > MOST_SIDE):
        raise ConfigError(
            f"record.size: {size[0]}x{size[1]}; from {_LEAST_SIDE}x{_LEAST_SIDE} to {MOST_SIDE}x{MOST_SIDE} is possible"
        )


def fit(image: Image, size: tuple[int, int]) -> Image:
    """`image` scaled into (width, height) with its aspect kept, on black where it does not fill it."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    scale = min(size[0] / width, size[1] / height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = np.asarray(cv2.resize(image, inner, interpolation=kind), np.uint8)
    if inner == size:
        return scaled
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    canvas[top : top + inner[1], left : left + inner[0]] = scaled
    return canvas


class RecordConfig(SinkConfig):
    """Annotated (or source) video."""

    path: str = "out/{camera}.mp4"
    crf: int = Field(23, ge=0, le=51)
    preset: str = "superfast"
    size: str | None = Field(None, description="WIDTHxHEIGHT of the video; not set: that of the source")
    background: Background = "image"
    segment: Duration | None = Field(None, description="a new file at every multiple of this wall time")
    keep: Positive | None = Field(None, description="rolled files: for so long")
    keep_bytes: Annotated[Bytes, Field(gt=0)] | None = Field(None, description="rolled files: so many bytes of them")
    min_free: Bytes | None = Field(None, description="rolled files go, oldest first, while less of the disk is free")
    mode: Literal["annotated", "source", "both"] = Field(
        "annotated",
        description="source: the video packets of a recording or camera as they come, no sound, "
        "in one `record` of a run at most",
    )

    @field_validator("size")
    @classmethod
    def _is_width_and_height(cls, value: str | None) -> str | None:
        if value is not None and not _PICTURE_SIZE.fullmatch(value):
            raise ValueError("a size is wanted, WIDTHxHEIGHT such as 1280x720")
        return value

    def template(self) -> str:
        return self.path

    def files(self) -> list[str]:
        """The annotated video, the source's own, or both."""
        annotated = [] if self.mode == "source" else [self.path]
        own = self.tap()
        return annotated if own is None else [*annotated, own]

    def segment_s(self) -> float | None:
        return self.segment

    def rules(self) -> Rules | None:
        rules = Rules(self.keep, self.keep_bytes, self.min_free)
        return None if self.segment is None or rules == Rules() else rules

    def tap(self) -> str | None:
        return None if self.mode == "annotated" else source_template(self.path)

    def check(self, name: str, *, rolls: bool) -> None:
        super().check(name, rolls=rolls)
        try:
            check_extension(Path(self.path))
        except ConfigError as error:
            raise ConfigError(f"sinks: {name}.path: {error}") from None
        check_preset(self.preset)
        check_size(self._width_and_height())
        for rule in ("keep", "keep_bytes", "min_free") if self.segment is None else ():
            if getattr(self, rule) is not None:
                raise ConfigError(f"sinks: {name}.{rule}: is of files that roll; give a `segment`, such as 10m")

    def sink(self, given: Given) -> RecordSink | None:
        """None where the source's own stream alone is recorded."""
        if self.mode == "source":
            return None
        return RecordSink(
            self.path,
            given.camera,
            given.skeleton(),
            DrawOptions(background=self.background),
            crf=self.crf,
            preset=self.preset,
            size=self._width_and_height(),
            segment_s=self.segment,
            names=given.names,
            sources=given.sources,
            retention=given.retention(self.path),
        )

    def _width_and_height(self) -> tuple[int, int] | None:
        if self.size is None:
            return None
        width, height = self.size.split("x")
        return int(width), int(height)
