"""The JSONL record: one line for every message (`records.py`), whole or not at all."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import orjson
from pydantic import Field, field_validator

from streampose.errors import SinkError
from streampose.messages import Break, Control, Counts, End, Gap, PoseResult, SourceInfo
from streampose.sinks.base import Given, SinkConfig
from streampose.sinks.ledger import Ledger
from streampose.sinks.paths import Names, cannot_write, create, fill
from streampose.sinks.records import SCHEMA, Word, control_record, frame_record, rfc3339
from streampose.sinks.roll import Roller, WallClock, forget_deleted
from streampose.units import Duration

_KEPT = 32  # words of a kind before the first frame, half of them the first ones and half the newest
_encode_any_text = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


class _Lines:
    """One open file that grows by whole lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = create(path)
        self._size = 0

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line by one system call; a line that does not fit is taken back, so the file stays whole."""
        try:
            line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:  # what a file's name holds that is not UTF-8 becomes JSON's own escape
            line = (_encode_any_text(record) + "\n").encode(errors="backslashreplace")
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                os.write(self._fd, line[written:])  # raises the reason why the first one stopped short
        except OSError as error:
            self._take_back()
            raise cannot_write(self.path, error) from error
        self._size += len(line)

    def close(self) -> None:
        try:
            os.close(self._fd)
        except OSError as error:  # a network disk may only now say that it has no room
            raise cannot_write(self.path, error) from error

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            return  # a device or pipe has no length to go back to


def _kind(word: Word) -> tuple[type[Word], str]:
    return type(word), word.cause if isinstance(word, Gap) else ""


def _both(first: Gap, second: Gap) -> Gap:
    """One gap of their cause, from the start of the earlier one to the end of the later one."""
    start, end = min(first, second, key=lambda gap: gap.start_s), max(first, second, key=lambda gap: gap.end_s)
    known = [gap.frames for gap in (first, second) if gap.frames is not None]
    frames = sum(known) if known else None
    return replace(start, end_s=end.end_s, wall_end_s=end.wall_end_s, frames=frames)


class JsonlSink:
    """Writes the record of one camera.

    `path` may hold `{camera}`; with `segment_s` it is a template and files roll with the wall clock, beside the video
    (`sinks/paths.py` says how they are named). `header` brings what the caller knows: version, source, models with
    sha256, names of the points, effective config; size and nominal rate come from the source. `names` are those of the
    run. The file is begun at the first frame: a record without any takes the place of none that is there. `extra` is
    asked at the end for more footer fields, such as latency quantiles. Raises SinkError.
    """

    name = "jsonl"
    newest_only = False

    def __init__(
        self,
        path: str | Path,
        camera: str,
        header: Mapping[str, Any],
        *,
        segment_s: float | None = None,
        names: Names | None = None,
        extra: Callable[[], Mapping[str, Any]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._template = str(path)
        self.camera = camera
        self._header = dict(header)
        self._extra = extra
        self._clock = clock
        self._roller = None if segment_s is None else Roller(segment_s)
        self._wall = WallClock()
        self._path = Path()
        self._lines: _Lines | None = None
        self._names = names or Names()
        self._outputs: list[str] = []
        self._part = 0
        self._info: SourceInfo | None = None
        self._ledger = Ledger()
        self._waiting: list[Word] = []
        self._in_file = 0
        self._run = ""
        self._ended = False

    def write(self, message: PoseResult | Control) -> None:
        if self._ended:
            raise SinkError(f"{self._template}: the record of {self.camera} has ended; nothing can follow its footer")
        try:
            self._write(message)
        except SinkError:
            self._stop()
            raise

    def _write(self, message: PoseResult | Control) -> None:
        if isinstance(message, PoseResult):
            self._write_frame(message)
        elif isinstance(message, End):
            self._finish(message.counts, message.error)
        else:
            if isinstance(message, Break):
                self._info = message.info
            if self._lines is None:
                self._wait(message)
            else:
                self._write_word(self._lines, message)

    def close(self) -> None:
        """Write the footer where none was (the run was cut short, so the frames cannot be reconciled) and close."""
        if not self._ended:
            self._finish(None, None)

    def outputs(self) -> tuple[str, ...]:
        return tuple(self._outputs)

    def _write_frame(self, result: PoseResult) -> None:
        if self._roller is not None:
            wall_s = self._wall.of(result.frame, self._clock())
            if self._roller.due(wall_s):
                self._roll(fill(self._template, self.camera, self._roller.begin(wall_s)))
        lines = self._lines or self._open(self._first_path(seen=True))
        lines.write(frame_record(result))
        self._ledger.add_frame(result.frame)
        self._in_file += 1

    def _write_word(self, lines: _Lines, word: Word) -> None:
        if isinstance(word, Gap):
            self._ledger.add_gap(word)
        lines.write(control_record(word))

    def _wait(self, word: Word) -> None:
        """Keep what is said before the first frame: until then nobody knows the picture's size (or, rolled, the file's
        name), nor whether the record may take the place of an earlier one. Of a long wait the middle is not kept, but for
        its gaps: of each cause they become one."""
        self._waiting.append(word)
        alike = [place for place, kept in enumerate(self._waiting) if _kind(kept) == _kind(word)]
        if len(alike) > _KEPT:
            before = alike[_KEPT // 2 - 1]
            first, second = self._waiting[before], self._waiting.pop(alike[_KEPT // 2])
            if isinstance(first, Gap) and isinstance(second, Gap):
                self._waiting[before] = _both(first, second)

    def _open(self, path: Path) -> _Lines:
        self._path = path
        lines = self._lines = _Lines(path)
        self._outputs.append(str(path))
        self._part += 1
        self._in_file = 0
        header: dict[str, Any] = {"type": "header", "schema": SCHEMA, "camera": self.camera, **self._header}
        header["started"] = rfc3339(self._clock())
        self._run = self._run or str(header["started"])
        header["run"] = self._run
        header["part"] = self._part
        info = self._info
        header.setdefault("source", None if info is None else info.url)
        header["width"] = None if info is None else info.width
        header["height"] = None if info is None else info.height
        header["nominal_fps"] = None if info is None else info.nominal_fps
        header["live"] = None if info is None else info.live
        lines.write(header)
        waiting, self._waiting = self._waiting, []
        for word in waiting:
            self._write_word(lines, word)
        return lines

    def _roll(self, path: Path) -> None:
        if self._lines is not None:
            footer = {"type": "footer", "camera": self.camera, "part": self._part, "last": False}
            self._lines.write({**footer, "complete": True, "written_here": self._in_file})
            self._shut()
        forget_deleted(self._outputs)
        self._open(self._names.claim(path))

    def _finish(self, counts: Counts | None, error: str | None) -> None:
        try:
            lines = self._lines or self._open(self._first_path(seen=False))
            lines.write(self._footer(counts, error))
        finally:
            self._stop()

    def _stop(self) -> None:
        self._ended = True
        self._shut()

    def _shut(self) -> None:
        lines, self._lines = self._lines, None
        try:
            if lines is not None:
                lines.close()
        finally:
            self._names.release(self._path)

    def _first_path(self, seen: bool) -> Path:
        """The name of the first file; `seen`: it has a frame, and is worth more than what an earlier run left there."""
        if self._roller is None:
            return self._names.give(fill(self._template, self.camera), replace=seen)
        return self._names.claim(fill(self._template, self.camera, self._roller.begin(self._clock())))

    def _footer(self, counts: Counts | None, error: str | None) -> dict[str, Any]:
        return {
            "type": "footer",
            "camera": self.camera,
            "part": self._part,
            "last": True,
            "complete": counts is not None and error is None,
            "error": error if counts is not None else "closed before the camera had ended",
            "decoded": None if counts is None else counts.decoded,
            "written": self._ledger.frames,
            "written_here": self._in_file,
            "dropped": {} if counts is None else dict(sorted(counts.dropped.items())),
            "corrupt": None if counts is None else counts.corrupt,
            **self._ledger.summary(),
            **({} if self._extra is None else self._extra()),
        }


class JsonlConfig(SinkConfig):
    """One JSON object a line."""

    follows: ClassVar[bool] = True
    path: str = "out/{camera}.jsonl"
    segment: Duration | None = Field(
        None, description="a new file at every multiple of this wall time; not set: as `record` rolls"
    )

    @field_validator("path")
    @classmethod
    def _names_a_file(cls, value: str) -> str:
        if value.strip() and not Path(value).name:
            raise ValueError("this is a folder; name a file in it, such as out/{camera}.jsonl")
        return value

    def template(self) -> str:
        return self.path

    def files(self) -> list[str]:
        return [self.path]

    def segment_s(self) -> float | None:
        return self.segment

    def sink(self, given: Given) -> JsonlSink:
        return JsonlSink(
            self.path,
            given.camera,
            given.header(),
            segment_s=given.segment_s,
            names=given.names,
            extra=given.extra,
        )
