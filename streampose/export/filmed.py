"""Whether every frame of a record is in its videos, and which videos are those of which record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from streampose.export.spans import Floats, within
from streampose.export.video_times import VideoTimes
from streampose.export.watch import Unwritten, Watch, unix_s

_EXACT_S = 2e-6  # the record's times have six digits
_SAME_WALL_S = 1e-3
_SAME_RUN_S = 60.0  # wall and camera time of one run stray less from each other; another run began at another time


def check_videos(watch: Watch, videos: list[VideoTimes]) -> Iterator[str]:
    """Every frame of the record in a video of this sink, at its time, and no picture more; but for what one of the two did
    not take, and what lies outside the span of both where retention took the beginning of one, or the run goes on."""
    times = np.asarray(watch.times)
    since_s, until_s = -np.inf, np.inf
    if watch.may_lack_its_beginning:
        since_s = max(times[0], begin_s(videos))
    if watch.goes_on:
        until_s = min(times[-1], max(video.times_s[-1] for video in videos))
    unwritten = [(gap.start_s, gap.end_s) for gap in watch.unwritten]
    taken = np.zeros(len(times), np.bool_)
    for video in videos:
        near, found = _match(times, taken, video)
        extra = (found < 0) & ~within(video.times_s, unwritten, video.tolerance_s)
        off = extra & ~near & (video.times_s >= since_s) & (video.times_s <= until_s)
        if off.any():
            first = int(np.flatnonzero(off)[0])
            yield (
                f"{video.path}: {int(off.sum())} of {len(off)} pictures have no frame at their time, "
                f"first picture {first} at {video.times_s[first]:.3f} s"
            )
        twice = int((extra & near).sum())
        if twice:
            yield f"{video.path}: {twice} pictures stand for frames that another picture stands for"
    taken |= within(times, watch.unfilmed, _EXACT_S) | (times < since_s) | (times > until_s)
    if not taken.all():
        lost = times[~taken]
        yield (
            f"{watch.camera}: {len(lost)} of {len(times)} frames are in no video, "
            f"first at {lost[0]:.3f} s, last at {lost[-1]:.3f} s ({videos[0].path} and what follows it)"
        )


def _match(
    times: Floats, taken: npt.NDArray[np.bool_], video: VideoTimes
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
    """For each picture of the video whether a frame has its time, and which one it takes, -1 for none.

    Both are in the order of time, and each picture takes the first frame at its time that is not `taken` yet, so that as
    many have one as can: pictures may be closer than the container's times."""
    first = np.searchsorted(times, video.times_s - video.tolerance_s)
    behind = np.searchsorted(times, video.times_s + video.tolerance_s, "right")
    found = np.full(len(first), -1, np.intp)
    free = int(first[0])
    for picture in range(len(first)):
        free, end = max(free, int(first[picture])), int(behind[picture])
        while free < end and taken[free]:
            free += 1
        if free < end:
            found[picture] = free
            taken[free] = True
    return behind > first, found


def begin_s(videos: list[VideoTimes]) -> float:
    """The time of the first picture of all, or what its container may have rounded away earlier."""
    return min(float(video.times_s[0]) - video.tolerance_s for video in videos)


def owner_of(video: VideoTimes, watches: Sequence[Watch]) -> Watch | None:
    """Of the watches of its camera the one that a video is of. Recordings know no wall time and all begin at 0: of several
    the one whose record lies beside the video, best under its name."""

    def nearness(watch: Watch) -> tuple[bool, bool]:
        beside = [reader.path.stem for _, reader in watch.parts if reader.path.parent == video.path.parent]
        named = any(video.path.stem == stem or video.path.stem.startswith(f"{stem}-") for stem in beside)
        return named, bool(beside)

    return max((watch for watch in watches if _belongs(video, watch)), key=nearness, default=None)


def _belongs(video: VideoTimes, watch: Watch) -> bool:
    """Whether the video begins with a frame of this watch: by its time and, where both know it, its wall time (a camera
    that was changed while running begins anew at 0)."""
    if not watch.times or not len(video.times_s):
        return False
    if watch.gone and video.times_s[0] < watch.times[0] - video.tolerance_s:
        return _is_of_its_beginning(video, watch)
    away = np.abs(np.asarray(watch.times) - video.times_s[0])
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


def _begins_in(video: VideoTimes, gap: Unwritten) -> bool:
    """Whether the first picture of the video is among what the record did not take."""
    if not gap.start_s - video.tolerance_s <= video.times_s[0] <= gap.end_s + video.tolerance_s:
        return False
    if video.start_wall_s is None or not gap.wall_start_s or not gap.wall_end_s:
        return True
    return gap.wall_start_s - _SAME_WALL_S <= video.start_wall_s <= gap.wall_end_s + _SAME_WALL_S


def is_left_over(video: VideoTimes, watches: Sequence[Watch]) -> bool:
    """Whether the video was finished before any run of its camera that is recorded here began: a run writes as many files
    as it has breaks, and one with fewer leaves those of the run before it."""
    begun = [unix_s(watch.run) for watch in watches]
    return bool(begun) and video.modified_s < min(begun)


def is_under_way(video: VideoTimes, watches: Sequence[Watch]) -> bool:
    """Whether the video was begun after what was read of a record of its camera that is still being written."""
    return any(
        watch.goes_on and not (watch.times and len(video.times_s) and video.times_s[0] <= watch.times[-1])
        for watch in watches
    )
