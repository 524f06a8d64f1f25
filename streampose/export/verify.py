"""Proof that the records, the videos and the gap ledger of a folder agree: each frame, its second, its count.

Only files are read; nothing of the run that wrote them is believed without a second witness. The video's times come
from its container, the coverage is summed anew from frames and gaps, and every frame that the index counts is sought.
What retention took from the beginning, and what a run that goes on has not closed yet, is said and left out.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streampose.errors import DataError
from streampose.export.being_written import VIDEOS, being_written, is_changing, unreadable
from streampose.export.fields import Record
from streampose.export.reader import ResultReader
from streampose.export.spans import Floats, merge, totals, within
from streampose.export.stamps import check_stamps
from streampose.export.video_times import VideoTimes, by_sink, read_video
from streampose.units import count

_EXACT_S = 2e-6  # the record's times have six digits
_SAME_WALL_S = 1e-3
_SILENCE_S = 3.0  # a live camera that is silent for longer has a gap
_SILENCE_STEPS = 10.0
_HOLE_S = 0.3  # a step that is longer, and so many times the usual one, has a gap, too, unless it is the first one
_HOLE_STEPS = 4.0
_SAME_RUN_S = 60.0  # wall and camera time of one run stray less from each other; another run began at another time
_start, _end = itemgetter(0), itemgetter(1)
_KEEPS = ("keep", "keep_bytes", "min_free")


@dataclass(frozen=True, slots=True)
class _Unwritten:
    """A gap of the record alone: the camera was watched, but the record took nothing. Wall times 0 where not known."""

    start_s: float
    end_s: float
    wall_start_s: float
    wall_end_s: float
    frames: int


@dataclass(slots=True)
class Watch:
    """One run of one camera, gathered from the parts of its record. `unfilmed`: spans in which the video took nothing.
    `goes_on`: it was being written as the reading began."""

    camera: str
    run: str
    parts: list[tuple[int, ResultReader]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    walls: list[float] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)
    gaps: list[tuple[float, float]] = field(default_factory=list)
    unwritten: list[_Unwritten] = field(default_factory=list)
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


@dataclass(frozen=True, slots=True)
class Verdict:
    """`facts`: a line for each camera and run, of what was counted; `disagreements`: a line for each."""

    facts: tuple[str, ...]
    disagreements: tuple[str, ...]


def verify_folder(folder: Path) -> Verdict:
    """Check every result below `folder` against the videos below it; raises DataError where there is none."""
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: not a folder that may be entered; name the one that a run wrote into")
    writing = being_written()
    watches, wrong = _gather(folder, writing)
    if not watches:
        nothing = f"{folder}: no result here; name the folder that a run wrote its .jsonl into"
        raise DataError(wrong[0] if wrong else nothing)
    videos: list[VideoTimes] = []
    goes_on = any(watch.goes_on for watch in watches)
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEOS):
        try:
            video = read_video(path)
        except DataError as error:
            if not is_changing(path, writing, goes_on):
                wrong.append(unreadable(path, error))
            continue
        if video is not None and video.mode == "annotated":
            videos.append(video)
    facts: list[str] = []
    owners = {video.path: _owner(video, watches) for video in videos}
    for watch in watches:
        mine = [video for video in videos if owners[video.path] is watch]
        wrong += _check_record(watch)
        wrong += [line for group in by_sink(mine) for line in _check_videos(watch, group)]
        facts += [_fact(watch, mine), *_left_out(watch, mine)]
    for video in (video for video in videos if owners[video.path] is None):
        if _left_over(video, watches):
            facts.append(f"{video.path}: older than every record of {video.camera} here, left by an earlier run")
        elif not _under_way(video, watches):
            wrong.append(f"{video.path}: no record here has a frame at its beginning ({video.camera})")
    return Verdict(tuple(facts), tuple(wrong))


def _is_swept(header: Record) -> bool:
    """Whether the run deleted the oldest of its files, as its configuration says."""
    config = header.get("config")
    sinks = config.get("sinks") if isinstance(config, dict) else None
    records = [sink.get("record") for sink in sinks if isinstance(sink, dict)] if isinstance(sinks, list) else []
    return any(isinstance(record, dict) and any(key in record for key in _KEEPS) for record in records)


def _gather(folder: Path, writing: Set[str]) -> tuple[list[Watch], list[str]]:
    """Read all records, part by part; what cannot be read is a disagreement, but for what has just been begun, or
    deleted. `writing`: the files that were being written before."""
    watches: dict[tuple[str, str], Watch] = {}
    wrong: list[str] = []
    for path in sorted(folder.rglob("*.jsonl")):
        try:
            reader = ResultReader(path, quiet=True)
            key = (reader.camera, str(reader.header.get("run", path)))
            watch = watches.setdefault(key, Watch(*key))
            watch.parts.append((int(reader.header.get("part", 1)), reader))
            watch.goes_on |= os.path.realpath(path) in writing
        except DataError as error:
            if not is_changing(path, writing):
                wrong.append(unreadable(path, error))
    for watch in watches.values():
        watch.parts.sort(key=lambda part: part[0])
        for part in list(watch.parts):
            try:
                wrong += _read_part(watch, part[1])
            except DataError as error:
                if os.path.exists(part[1].path):
                    wrong.append(str(error))
                else:  # retention took it meanwhile
                    watch.parts.remove(part)
    return [watch for watch in watches.values() if watch.parts], wrong


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
            watch.times.append(record["time"])
            watch.walls.append(_wall_s(record.get("wall") or ""))
            watch.indices.append(record["index"])
            watch.segments.append(record.get("segment", 0))
            watch.stamps.append(_stamp_s(record))
    if reader.cut is not None:
        if not (watch.goes_on and newest):
            yield f"{reader.path}: {reader.cut}; its counts cannot be proven"
    elif reader.footer is not None:
        if reader.footer.get("written_here") != here:
            yield f"{reader.path}: the footer counts {reader.footer.get('written_here')} frames, the file holds {here}"
        if reader.footer.get("last", True):
            watch.footer = reader.footer


def _unwritten(gap: Record) -> _Unwritten:
    wall_start_s, wall_end_s = (_wall_s(gap.get(name) or "") for name in ("wall_start", "wall_end"))
    return _Unwritten(gap["start"], gap["end"], wall_start_s, wall_end_s, gap.get("frames") or 0)


def _stamp_s(frame: Record) -> float:
    """The source's own stamp in seconds, NaN where it gave none."""
    if frame.get("pts") is None or not frame.get("time_base"):
        return float("nan")
    numerator, denominator = frame["time_base"]
    return float(frame["pts"] * numerator / denominator)


def _check_record(watch: Watch) -> Iterator[str]:
    """The record against itself."""
    name = watch.camera
    numbers = [number for number, _ in watch.parts]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        yield f"{name}: parts {numbers} of the record are here, not {numbers[0]} to {numbers[-1]}"
    newest = watch.parts[-1][1]
    if watch.footer is None and newest.footer is not None and not watch.goes_on:
        yield f"{newest.path}: its footer says that another part follows, and none is here"
    times, indices = np.array(watch.times), np.array(watch.indices, np.int64)
    for place in np.flatnonzero(np.diff(indices) <= 0):
        yield f"{name}: frame {indices[place + 1]} follows frame {indices[place]}; indices must grow"
    for place in np.flatnonzero(np.diff(times) < 0):
        yield f"{name}: frame {indices[place + 1]} is at {times[place + 1]:.3f} s, before the frame before it"
    yield from check_stamps(name, times, np.array(watch.stamps), np.array(watch.segments, np.int64), indices)
    yield from _check_gaps(watch, times, indices)
    if watch.footer is not None:
        yield from _check_footer(watch, watch.footer, times, indices)


def _check_gaps(watch: Watch, times: Floats, indices: npt.NDArray[np.int64]) -> Iterator[str]:
    """Every frame lies outside the gaps, and what lies between frames too far apart is told by them, but for a silence that
    needs no gap; where frames are missing, for the step of the frame before, and about as much as two steps elsewhere."""
    name, spans = watch.camera, merge(watch.gaps)
    instants = sorted(
        start for start, end in watch.gaps if start == end
    )  # a damaged frame between two that follow closely
    for start, end in merge(watch.gaps, touching=False):
        first = int(np.searchsorted(times, start + _EXACT_S, "right"))
        if first < len(times) and times[first] < end - _EXACT_S:
            yield f"{name}: frame {indices[first]} at {times[first]:.3f} s lies in the gap {start:.3f} to {end:.3f} s"
    if len(times) < 2:
        return
    steps = np.diff(times)
    live = any(reader.header.get("live") for _, reader in watch.parts)
    silence_s = max(_SILENCE_S, _SILENCE_STEPS * float(np.median(steps))) if live else float("inf")
    missing, begins = np.diff(indices) > 1, np.diff(watch.segments, prepend=-1) != 0
    step_s = max(float(np.median(steps)), float(steps[~missing & (steps <= silence_s)].max(initial=0.0)))
    usual_s = step_s
    for place in np.flatnonzero(missing | (steps > silence_s)):
        start, end = times[place], times[place + 1]
        near = spans[bisect_right(spans, start, key=_end) : bisect_left(spans, end, key=_start)]
        told = [(max(start, a), min(end, b)) for a, b in near]
        told = told or [(at, at) for at in instants[bisect_left(instants, start) : bisect_right(instants, end)][:1]]
        left_s = end - start - sum(b - a for a, b in told)
        fits = left_s <= silence_s
        if missing[place] and told:
            front_s = told[0][0] - start
            hole_s = min(silence_s, max(_HOLE_S, _HOLE_STEPS * usual_s)) if live and not begins[place] else silence_s
            fits = front_s <= hole_s + _EXACT_S and left_s - front_s <= 2 * step_s
            usual_s = max(usual_s, front_s) if fits else usual_s
        if not told or not fits:
            what = f"{indices[place + 1] - indices[place] - 1} frames" if missing[place] else f"{left_s:.1f} s"
            yield f"{name}: {what} between {start:.3f} and {end:.3f} s are in neither the frames nor the gaps"


def _check_footer(watch: Watch, footer: Record, times: Floats, indices: npt.NDArray[np.int64]) -> Iterator[str]:
    """The footer's figures, which are those of the whole run, against those summed here. Where the beginning is gone, what
    is left cannot be more."""
    name, here = watch.camera, len(times)
    if not footer.get("complete"):
        yield f"{name}: the record says it is not complete: {footer.get('error')}"
    written = footer.get("written", 0)
    if _differs(watch, written, here):
        yield f"{name}: the footer counts {written} frames written, the record holds {here}"
    if watch.gone and len(indices) and written - here > indices[0]:
        yield f"{name}: {written - here} frames cannot have been written before frame {indices[0]}"
    count = written if watch.gone else here
    decoded, corrupt = footer.get("decoded"), footer.get("corrupt")
    if decoded is not None and corrupt is not None:
        dropped = sum(footer.get("dropped", {}).values())
        if decoded != count + dropped + corrupt:
            yield f"{name}: decoded {decoded} is not written {count} + dropped {dropped} + corrupt {corrupt}"
        if len(indices) and indices[-1] >= decoded:
            yield f"{name}: frame {indices[-1]} cannot be among {decoded} decoded"
    unwritten, told = footer.get("dropped", {}).get("unwritten", 0), sum(gap.frames for gap in watch.unwritten)
    if decoded is not None and _differs(watch, unwritten, told):
        yield f"{name}: the footer counts {unwritten} frames that were not written, the gaps tell of {told}"
    watched_s, missed_s, longest_s = totals(times, watch.gaps)
    for field_name, found in (("watched_s", watched_s), ("gap_s", missed_s), ("longest_gap_s", longest_s)):
        # Each of the lines was rounded to a microsecond before it was summed.
        if _differs(watch, footer.get(field_name, 0.0), found, _EXACT_S * (2 + len(watch.gaps))):
            yield f"{name}: {field_name} is {footer.get(field_name)} in the footer and {found:.6f} by its lines"
    if _differs(watch, footer.get("gaps", 0), len(watch.gaps)):
        yield f"{name}: the footer counts {footer.get('gaps')} gaps, the record holds {len(watch.gaps)}"


def _differs(watch: Watch, said: float, found: float, tolerance: float = 0.0) -> bool:
    """Whether a figure of the whole run is another than that of its lines, or less than that of those that are left."""
    return said < found - tolerance if watch.gone else abs(said - found) > tolerance


def _check_videos(watch: Watch, videos: list[VideoTimes]) -> Iterator[str]:
    """Every frame of the record in a video of this sink, at its time, and no picture more; but for what one of the two did
    not take, and what lies outside the span of both where retention took the beginning of one, or the run goes on."""
    times = np.array(watch.times)
    since_s, until_s = -np.inf, np.inf
    if watch.may_lack_its_beginning:
        since_s = max(times[0], _begin_s(videos))
    if watch.goes_on:
        until_s = min(times[-1], max(video.times_s[-1] for video in videos))
    unwritten = [(gap.start_s, gap.end_s) for gap in watch.unwritten]
    taken = np.zeros(len(times), np.bool_)
    for video in videos:
        found = np.searchsorted(times, video.times_s - video.tolerance_s)
        found = np.minimum(found, len(times) - 1)
        off = np.abs(times[found] - video.times_s) > video.tolerance_s
        unmatched, off = off, off & ~within(video.times_s, unwritten, video.tolerance_s)
        off &= (video.times_s >= since_s) & (video.times_s <= until_s)
        if off.any():
            first = int(np.flatnonzero(off)[0])
            yield (
                f"{video.path}: {int(off.sum())} of {len(off)} pictures have no frame at their time, "
                f"first picture {first} at {video.times_s[first]:.3f} s"
            )
        good = found[~unmatched]
        twice = int(taken[good].sum()) + len(good) - len(np.unique(good))
        if twice:
            yield f"{video.path}: {twice} pictures stand for frames that another picture stands for"
        taken[good] = True
    taken |= within(times, watch.unfilmed, _EXACT_S) | (times < since_s) | (times > until_s)
    if not taken.all():
        lost = times[~taken]
        yield (
            f"{watch.camera}: {len(lost)} of {len(times)} frames are in no video, "
            f"first at {lost[0]:.3f} s, last at {lost[-1]:.3f} s ({videos[0].path} and what follows it)"
        )


def _begin_s(videos: list[VideoTimes]) -> float:
    """The time of the first picture of all, or what its container may have rounded away earlier."""
    return min(float(video.times_s[0]) - video.tolerance_s for video in videos)


def _owner(video: VideoTimes, watches: list[Watch]) -> Watch | None:
    """The watch that a video is of. Recordings know no wall time and all begin at 0: of several the one whose record lies
    beside the video, best under its name."""

    def nearness(watch: Watch) -> tuple[bool, bool]:
        beside = [reader.path.stem for _, reader in watch.parts if reader.path.parent == video.path.parent]
        named = any(video.path.stem == stem or video.path.stem.startswith(f"{stem}-") for stem in beside)
        return named, bool(beside)

    able = [watch for watch in watches if watch.camera == video.camera and _belongs(video, watch)]
    return max(able, key=nearness, default=None)


def _belongs(video: VideoTimes, watch: Watch) -> bool:
    """Whether the video begins with a frame of this watch: by its time and, where both know it, its wall time (a camera
    that was changed while running begins anew at 0)."""
    if not watch.times or not len(video.times_s):
        return False
    if watch.gone and video.times_s[0] < watch.times[0] - video.tolerance_s:
        return _is_of_its_beginning(video, watch)
    away = np.abs(np.array(watch.times) - video.times_s[0])
    first = int(away.argmin())
    if away[first] > video.tolerance_s:
        return any(_begins_in(video, gap) for gap in watch.unwritten)
    wall_s = watch.walls[first]
    return video.start_wall_s is None or not wall_s or abs(video.start_wall_s - wall_s) < _SAME_WALL_S


def _is_of_its_beginning(video: VideoTimes, watch: Watch) -> bool:
    """Whether a video that begins before the first frame that is left of a watch may be of that watch."""
    if video.start_wall_s is None or not watch.walls[0]:
        return True
    return abs(video.start_wall_s - float(video.times_s[0]) - (watch.walls[0] - watch.times[0])) < _SAME_RUN_S


def _begins_in(video: VideoTimes, gap: _Unwritten) -> bool:
    """Whether the first picture of the video is among what the record did not take."""
    if not gap.start_s - video.tolerance_s <= video.times_s[0] <= gap.end_s + video.tolerance_s:
        return False
    if video.start_wall_s is None or not gap.wall_start_s or not gap.wall_end_s:
        return True
    return gap.wall_start_s - _SAME_WALL_S <= video.start_wall_s <= gap.wall_end_s + _SAME_WALL_S


def _left_over(video: VideoTimes, watches: list[Watch]) -> bool:
    """Whether the video was finished before any run that is recorded here began: a run writes as many files as it has
    breaks, and one with fewer leaves those of the run before it."""
    begun = [_wall_s(watch.run) for watch in watches if watch.camera == video.camera]
    return bool(begun) and video.path.stat().st_mtime < min(begun)


def _under_way(video: VideoTimes, watches: list[Watch]) -> bool:
    """Whether the video was begun after what was read of a record that is still being written."""
    return any(
        watch.goes_on
        and watch.camera == video.camera
        and not (watch.times and len(video.times_s) and video.times_s[0] <= watch.times[-1])
        for watch in watches
    )


def _wall_s(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time, 0 where it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _fact(watch: Watch, videos: list[VideoTimes]) -> str:
    watched_s, missed_s, _ = totals(np.array(watch.times), watch.gaps)
    pictures = sum(len(video.times_s) for video in videos)
    shown = f"{count(pictures, 'picture')} in {count(len(videos), 'video')}" if videos else "no video"
    return (
        f"{watch.camera}: {count(len(watch.times), 'frame')} in {count(len(watch.parts), 'record')}, {shown}; "
        f"{watched_s:.3f} s watched = {watched_s - missed_s:.3f} s seen + {missed_s:.3f} s in "
        f"{count(len(watch.gaps), 'gap')}"
    )


def _left_out(watch: Watch, videos: list[VideoTimes]) -> Iterator[str]:
    """What could not be checked, since it is no more or not yet there."""
    early = int(np.sum(np.array(watch.times) < _begin_s(videos))) if videos and watch.may_lack_its_beginning else 0
    if early:
        yield f"{watch.camera}: {count(early, 'frame')} of the beginning came before every video that is left"
    if watch.gone:
        which = "part 1 of its record is" if watch.gone == 1 else f"parts 1 to {watch.gone} of its record are"
        yield f"{watch.camera}: {which} gone: only what is left is checked"
    if watch.goes_on and watch.footer is None:
        yield f"{watch.camera}: its record is being written: checked up to {watch.parts[-1][1].path} as it was"
