"""When a watch's files roll: at every multiple of the segment length of wall time. Times in, decisions out."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from streampose.messages import Frame


@dataclass(slots=True)
class Roller:
    """Decides which wall-clock segment a moment belongs to.

    `segment_s` is the length of a segment; segments begin at its multiples since the Unix epoch, so 10 minutes begin at
    :00, :10 … of every hour. A clock that steps back by less than half a segment stays in the segment it was in: a
    correction of some milliseconds at the boundary must not open a file twice.
    """

    segment_s: float
    start_s: float | None = None

    def __post_init__(self) -> None:
        if self.segment_s <= 0:
            raise ValueError(f"segment_s must be positive, got {self.segment_s}")

    def due(self, wall_s: float) -> bool:
        """Whether a moment begins a new file; the first one does."""
        if self.start_s is None:
            return True
        return not self.start_s - self.segment_s / 2 <= wall_s < self.start_s + self.segment_s

    def begin(self, wall_s: float) -> float:
        """Begin the segment that holds `wall_s`; gives its start, which names the file."""
        self.start_s = math.floor(wall_s / self.segment_s) * self.segment_s
        return self.start_s


def forget_deleted(paths: list[str]) -> None:
    """Take from the front of `paths`, files that rolled, those that are there no more: retention deletes the oldest, and a
    watch of months remembers no more than is kept."""
    while paths and not os.path.exists(paths[0]):
        del paths[0]


@dataclass(slots=True)
class WallClock:
    """The wall time of every frame, also of those that carry none: from the last known offset to camera time.

    `now_s` is the wall time at which the first frame without a wall time of its own is taken to be captured.
    """

    offset_s: float | None = None

    def of(self, frame: Frame, now_s: float) -> float:
        """Seconds since the epoch at which `frame` was captured, as well as it is known."""
        if frame.wall_s is not None:
            self.offset_s = frame.wall_s - frame.time_s
            return frame.wall_s
        if self.offset_s is None:
            self.offset_s = now_s - frame.time_s
        return frame.time_s + self.offset_s
