"""One run of one camera as its record tells it, gathered from the parts that files roll into."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from streampose.errors import DataError
from streampose.export.being_written import is_changing, unreadable
from streampose.export.fields import Record
from streampose.export.reader import ResultReader

_KEEPS = ("keep", "keep_bytes", "min_free")


@dataclass(frozen=True, slots=True)
class Unwritten:
    """A gap of the record alone: the camera was watched, but the record took nothing. Wall times 0 where not known."""

    start_s: float
    end_s: float
    wall_start_s: float
    wall_end_s: float
    frames: int


def _numbers(code: str) -> Callable[[], array[float]]:
    return lambda: array(code)


@dataclass(slots=True)
class Watch:
    """One run of one camera; what its frames and gaps say is there once `read_watch` has read it.

    Of each frame, in 32 bytes: `times`, `walls` (0: not known) and `stamps` (NaN: none) in seconds, and `indices`.
    `segments`: the place of the first frame of each, and its number. `unfilmed`: spans in which the video took nothing.
    `goes_on`: it was being written as the reading began."""

    camera: str
    run: str
    parts: list[tuple[int, ResultReader]] = field(default_factory=list)
    times: array[float] = field(default_factory=_numbers("d"))
    walls: array[float] = field(default_factory=_numbers("d"))
    stamps: array[float] = field(default_factory=_numbers("d"))
    indices: array[int] = field(default_factory=lambda: array("q"))
    segments: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[tuple[float, float]] = field(default_factory=list)
    unwritten: list[Unwritten] = field(default_factory=list)
    unfilmed: list[tuple[float, float]] = field(default_factory=list)
    footer: Record | None = None
    goes_on: bool = False

    @property
    def gone(self) -> int:
        """How many parts are missing from its beginning."""
        return min((number for number, _ in self.parts), default=1) - 1

    @property
    def may_lack_its_beginning(self) -> bool:
        """Whether retention took the beginning of its record, or may have taken that of its videos alone."""
        return self.gone > 0 or any(_is_swept(reader.header) for _, reader in self.parts)


def list_watches(paths: Iterable[Path], writing: Set[str]) -> tuple[dict[str, list[Watch]], list[str]]:
    """The watches of each camera among the records `paths`, by the headers alone; what cannot be read is a disagreement, but
    for what has just been begun, or deleted. `writing`: the files that were being written before."""
    watches: dict[tuple[str, str], Watch] = {}
    wrong: list[str] = []
    for path in paths:
        try:
            reader = ResultReader(path, quiet=True)
            key = (reader.camera, str(reader.header.get("run", path)))
            watch = watches.setdefault(key, Watch(*key))
            watch.parts.append((int(reader.header.get("part", 1)), reader))
            watch.goes_on |= os.path.realpath(path) in writing
        except DataError as error:
            if not is_changing(path, writing):
                wrong.append(unreadable(path, error))
    cameras: dict[str, list[Watch]] = {}
    for watch in watches.values():
        watch.parts.sort(key=lambda part: part[0])
        cameras.setdefault(watch.camera, []).append(watch)
    return cameras, wrong


def read_watch(watch: Watch) -> Iterator[str]:
    """Read all parts of a watch, and say what is wrong with each; those that retention took meanwhile go."""
    for part in list(watch.parts):
        try:
            yield from _read_part(watch, part[1])
        except DataError as error:
            if os.path.exists(part[1].path):
                yield str(error)
            else:
                watch.parts.remove(part)


def _read_part(watch: Watch, reader: ResultReader) -> Iterator[str]:
    here, newest = 0, reader is watch.parts[-1][1]
    for _, record in reader.records():
        if record["type"] == "gap":
            watch.gaps.append((record["start"], record["end"]))
            if record["cause"] == "unwritten":
                watch.unwritten.append(_unwritten(record))
        elif record["type"] == "missed" and record["sink"] == "record":
            watch.unfilmed.append((record["start"], record["end"]))
        elif record["type"] == "frame":
            here += 1
            segment = record.get("segment", 0)
            if not watch.segments or watch.segments[-1][1] != segment:
                watch.segments.append((len(watch.times), segment))
            watch.times.append(record["time"])
            watch.walls.append(unix_s(record.get("wall") or ""))
            watch.stamps.append(_stamp_s(record))
            watch.indices.append(record["index"])
    if reader.cut is not None:
        if not (watch.goes_on and newest):
            yield f"{reader.path}: {reader.cut}; its counts cannot be proven"
    elif reader.footer is not None:
        if reader.footer.get("written_here") != here:
            yield f"{reader.path}: the footer counts {reader.footer.get('written_here')} frames, the file holds {here}"
        if reader.footer.get("last", True):
            watch.footer = reader.footer


def _is_swept(header: Record) -> bool:
    """Whether the run deleted the oldest of its files, as its configuration says."""
    config = header.get("config")
    sinks = config.get("sinks") if isinstance(config, dict) else None
    records = [sink.get("record") for sink in sinks if isinstance(sink, dict)] if isinstance(sinks, list) else []
    return any(isinstance(record, dict) and any(key in record for key in _KEEPS) for record in records)


def _unwritten(gap: Record) -> Unwritten:
    wall_start_s, wall_end_s = (unix_s(gap.get(name) or "") for name in ("wall_start", "wall_end"))
    return Unwritten(gap["start"], gap["end"], wall_start_s, wall_end_s, gap.get("frames") or 0)


def _stamp_s(frame: Record) -> float:
    """The source's own stamp in seconds, NaN where it gave none."""
    if frame.get("pts") is None or not frame.get("time_base"):
        return float("nan")
    numerator, denominator = frame["time_base"]
    return float(frame["pts"] * numerator / denominator)


def unix_s(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time, 0 where it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
