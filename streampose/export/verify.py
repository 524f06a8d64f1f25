"""Proof that the records, the videos and the gap ledger of a folder agree: each frame, its second, its count.

Only files are read; nothing of the run that wrote them is believed without a second witness. The video's times come
from its container, the coverage is summed anew from frames and gaps, and every frame that the index counts is sought.
What retention took from the beginning, and what a run that goes on has not closed yet, is said and left out.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from streampose.errors import DataError
from streampose.export.being_written import VIDEOS, being_written, is_changing, unreadable
from streampose.export.fields import Record
from streampose.export.filmed import begin_s, check_videos, is_left_over, is_under_way, owner_of
from streampose.export.listing import list_files
from streampose.export.spans import Floats, merge, totals
from streampose.export.stamps import check_stamps
from streampose.export.video_times import VideoTimes, by_sink, filmed_camera, read_video
from streampose.export.watch import Watch, list_watches, read_watch
from streampose.units import count

T = TypeVar("T")

_EXACT_S = 2e-6  # the record's times have six digits
_SILENCE_S = 3.0  # a live camera that is silent for longer has a gap
_SILENCE_STEPS = 10.0
_HOLE_S = 0.3  # a step that is longer, and so many times the usual one, has a gap, too,
_HOLE_STEPS = 4.0
_SURE_STEPS = 9  # where so many came before it that the usual one is known
_start, _end = itemgetter(0), itemgetter(1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`facts`: a line for each camera and run, of what was counted; `disagreements`: a line for each."""

    facts: tuple[str, ...]
    disagreements: tuple[str, ...]


def verify_folder(folder: Path) -> Verdict:
    """Check every result below `folder`, through links, too, against the videos below it; raises DataError where there is
    none. Holds the times of one camera at a time."""
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: not a folder that may be entered; name the one that a run wrote into")
    writing = being_written()
    files, closed = list_files(folder)
    watches, wrong = list_watches((path for path in files if path.suffix == ".jsonl"), writing)
    wrong += closed
    nothing = f"{folder}: no result here; name the folder that a run wrote its .jsonl into"
    if not watches:
        raise DataError(wrong[0] if wrong else nothing)
    goes_on = any(watch.goes_on for camera in watches.values() for watch in camera)
    videos: dict[str, list[Path]] = {}
    paths = [path for path in files if path.suffix.lower() in VIDEOS]
    for path, camera in _readable(filmed_camera, paths, writing, goes_on, wrong):
        videos.setdefault(camera, []).append(path)
    facts: list[str] = []
    for camera in list(dict.fromkeys([*watches, *videos])):
        verdict = _verify_camera(watches.pop(camera, []), videos.get(camera, []), writing)
        facts += verdict.facts
        wrong += verdict.disagreements
    if not facts:  # retention took all of it meanwhile
        raise DataError(wrong[0] if wrong else nothing)
    return Verdict(tuple(facts), tuple(wrong))


def _readable(
    read: Callable[[Path], T | None], paths: Iterable[Path], writing: Set[str], goes_on: bool, wrong: list[str]
) -> Iterator[tuple[Path, T]]:
    """What `read` makes of each of our videos; one that is broken is `wrong`, unless it is being written or deleted."""
    for path in paths:
        try:
            found = read(path)
        except DataError as error:
            if not is_changing(path, writing, goes_on):
                wrong.append(unreadable(path, error))
            continue
        if found is not None:
            yield path, found


def _verify_camera(listed: list[Watch], paths: list[Path], writing: Set[str]) -> Verdict:
    """All runs of one camera against its videos."""
    facts: list[str] = []
    wrong = [line for watch in listed for line in read_watch(watch)]
    watches = [watch for watch in listed if watch.parts]
    goes_on = any(watch.goes_on for watch in watches)
    videos = [video for _, video in _readable(read_video, paths, writing, goes_on, wrong)]
    owners = {video.path: owner_of(video, watches) for video in videos}
    for watch in watches:
        mine = [video for video in videos if owners[video.path] is watch]
        wrong += _check_record(watch)
        wrong += [line for group in by_sink(mine) for line in check_videos(watch, group)]
        facts += [_fact(watch, mine), *_left_out(watch, mine)]
    for video in (video for video in videos if owners[video.path] is None):
        if is_left_over(video, watches):
            facts.append(f"{video.path}: older than every record of {video.camera} here, left by an earlier run")
        elif not is_under_way(video, watches):
            wrong.append(f"{video.path}: no record here has a frame at its beginning ({video.camera})")
    return Verdict(tuple(facts), tuple(wrong))


def _check_record(watch: Watch) -> Iterator[str]:
    """The record against itself."""
    name = watch.camera
    numbers = [number for number, _ in watch.parts]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        yield f"{name}: parts {numbers} of the record are here, not {numbers[0]} to {numbers[-1]}"
    newest = watch.parts[-1][1]
    if watch.footer is None and newest.footer is not None and not watch.goes_on:
        yield f"{newest.path}: its footer says that another part follows, and none is here"
    times, indices = np.asarray(watch.times), np.asarray(watch.indices)
    for place in np.flatnonzero(np.diff(indices) <= 0):
        yield f"{name}: frame {indices[place + 1]} follows frame {indices[place]}; indices must grow"
    for place in np.flatnonzero(np.diff(times) < 0):
        yield f"{name}: frame {indices[place + 1]} is at {times[place + 1]:.3f} s, before the frame before it"
    yield from check_stamps(name, times, np.asarray(watch.stamps), watch.segments, indices)
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
    missing = np.diff(indices) > 1
    known = indices[0] + np.concatenate([[0], np.cumsum(~_begin_a_gap(times, watch.gaps))])
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
            hole_s = (
                min(silence_s, max(_HOLE_S, _HOLE_STEPS * usual_s))
                if live and known[place] >= _SURE_STEPS
                else silence_s
            )
            fits = front_s <= hole_s + _EXACT_S and left_s - front_s <= 2 * step_s
            usual_s = max(usual_s, front_s) if fits else usual_s
        if not told or not fits:
            what = f"{indices[place + 1] - indices[place] - 1} frames" if missing[place] else f"{left_s:.1f} s"
            yield f"{name}: {what} between {start:.3f} and {end:.3f} s are in neither the frames nor the gaps"


def _begin_a_gap(times: Floats, gaps: list[tuple[float, float]]) -> npt.NDArray[np.bool_]:
    """For each of the times whether a gap begins there, so that the step behind it is none between two pictures."""
    starts = np.sort(np.array([start for start, _ in gaps]))
    return np.searchsorted(starts, times - _EXACT_S) < np.searchsorted(starts, times + _EXACT_S)


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
    covered = max(0.0, 1.0 - missed_s / watched_s) if watched_s else float(here > 0)
    if not watch.gone and abs(footer.get("coverage", 0.0) - covered) > _EXACT_S * (
        1 + (2 + len(watch.gaps)) / (watched_s or 1)
    ):
        yield f"{name}: coverage is {footer.get('coverage')} in the footer and {covered:.6f} by its lines"
    if _differs(watch, footer.get("gaps", 0), len(watch.gaps)):
        yield f"{name}: the footer counts {footer.get('gaps')} gaps, the record holds {len(watch.gaps)}"


def _differs(watch: Watch, said: float, found: float, tolerance: float = 0.0) -> bool:
    """Whether a figure of the whole run is another than that of its lines, or less than that of those that are left."""
    return said < found - tolerance if watch.gone else abs(said - found) > tolerance


def _fact(watch: Watch, videos: list[VideoTimes]) -> str:
    watched_s, missed_s, _ = totals(np.asarray(watch.times), watch.gaps)
    pictures = sum(len(video.times_s) for video in videos)
    shown = f"{count(pictures, 'picture')} in {count(len(videos), 'video')}" if videos else "no video"
    return (
        f"{watch.camera}: {count(len(watch.times), 'frame')} in {count(len(watch.parts), 'record')}, {shown}; "
        f"{watched_s:.3f} s watched = {watched_s - missed_s:.3f} s seen + {missed_s:.3f} s in "
        f"{count(len(watch.gaps), 'gap')}"
    )


def _left_out(watch: Watch, videos: list[VideoTimes]) -> Iterator[str]:
    """What could not be checked, since it is no more or not yet there."""
    early = int(np.sum(np.asarray(watch.times) < begin_s(videos))) if videos and watch.may_lack_its_beginning else 0
    if early:
        yield f"{watch.camera}: {count(early, 'frame')} of the beginning came before every video that is left"
    if watch.gone:
        which = "part 1 of its record is" if watch.gone == 1 else f"parts 1 to {watch.gone} of its record are"
        yield f"{watch.camera}: {which} gone: only what is left is checked"
    if watch.goes_on and watch.footer is None:
        yield f"{watch.camera}: its record is being written: checked up to {watch.parts[-1][1].path} as it was"
