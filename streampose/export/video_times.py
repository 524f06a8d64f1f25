"""The times of the pictures in a video that we recorded, from its container alone."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streampose.errors import DataError, words_of
from streampose.libav_name import libav_name

if TYPE_CHECKING:
    from av.container import InputContainer

_TICK_S = 1 / 90000


@dataclass(frozen=True, slots=True, eq=False)
class VideoTimes:
    """`times_s` (N,) camera times of the pictures, sorted; `tolerance_s` what the container's time base may round away.

    `mode` is "annotated" or "source"; a source's times begin at 0, nobody told it the camera's time. `start_wall_s` is the
    wall time of its first picture (Unix seconds), None where it was not known; `modified_s` when the file was last written
    (Unix seconds), as it was read."""

    path: Path
    camera: str
    mode: str
    times_s: npt.NDArray[np.float64]
    tolerance_s: float
    modified_s: float
    start_wall_s: float | None = None


def read_video(path: Path) -> VideoTimes | None:
    """Read the times of one file, None for a video that we did not record. Raises DataError for one that is broken."""
    with _opened(path) as container:
        note = _note(container)
        if note is None:
            return None
        stream = container.streams.video[0]
        tick_s = float(stream.time_base or _TICK_S)
        stamps = array("q")
        for packet in container.demux(stream):
            if packet.pts is not None and packet.size:
                stamps.append(packet.pts)
        modified_s = path.stat().st_mtime
    times_s = np.sort(np.asarray(stamps)) * tick_s + float(note["start_time"])
    tolerance_s = max(tick_s, _TICK_S) + 2e-6
    wall_s = note.get("start_wall")
    return VideoTimes(
        path,
        str(note["camera"]),
        str(note.get("mode", "annotated")),
        times_s,
        tolerance_s,
        modified_s,
        float(wall_s) if isinstance(wall_s, int | float) else None,
    )


def filmed_camera(path: Path) -> str | None:
    """The camera whose annotated video this is, None for any other video. Raises DataError for one that is broken."""
    with _opened(path) as container:
        note = _note(container)
    return None if note is None or note.get("mode", "annotated") != "annotated" else str(note["camera"])


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    import av

    try:
        with av.open(libav_name(path)) as container:
            yield container
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(f"{path}: not a video that can be read ({words_of(error)})") from error


def by_sink(videos: list[VideoTimes]) -> list[list[VideoTimes]]:
    """The videos of one watch in groups, each in the order of time: a sink writes one video after the other, so that of
    those which overlap each is another sink's."""
    groups: list[list[VideoTimes]] = []
    for video in sorted((video for video in videos if len(video.times_s)), key=lambda video: video.times_s[0]):
        before = [group for group in groups if group[-1].times_s[-1] <= video.times_s[0] + video.tolerance_s]
        if before:
            max(before, key=lambda group: float(group[-1].times_s[-1])).append(video)
        else:
            groups.append([video])
    return groups


def _note(container: InputContainer) -> dict[str, Any] | None:
    tags = {key.lower(): value for key, value in container.metadata.items()}
    try:
        note = json.loads(tags.get("comment", ""))
    except ValueError:
        return None
    known = isinstance(note, dict) and "streampose" in note and "camera" in note and bool(container.streams.video)
    if known and note.get("mode") == "source":
        note.setdefault("start_time", 0.0)
    return note if known and isinstance(note.get("start_time"), int | float) else None
