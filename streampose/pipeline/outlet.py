"""The way out to one sink: who reads a live camera waits for no sink that hangs, and what that sink missed is told.

A recording waits, for nothing of it may be lost. A live camera gives a sink that has no room `PATIENCE_S` seconds to take
something; then its results are passed over until it does. What it misses is a gap of its record with the cause
`unwritten`, so that the record still adds up, and a `Missed` for the other sinks of the camera. What may follow every
result, frames that were dropped or damaged, is gathered meanwhile, so that a disk that hangs for days takes no memory.
Nobody waits for it again until it has caught up, so that one which takes a result now and then does not slow the cameras
down. A sink that has ended (its disk is full) misses the rest, and what it took and made nothing of.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from streampose.messages import Control, End, Frame, Gap, GapCause, Missed, PoseResult
from streampose.pipeline.channel import Channel, ChannelClosed

log = logging.getLogger(__name__)
PATIENCE_S = 1.0  # a sink of a live camera that takes nothing for so long is passed over
_REMEMBERED = 256  # results: what waits in front of a sink, and what an encoder and a fragment of a video hold
_GATHERED: tuple[GapCause, ...] = ("dropped", "corrupt")  # the causes of gaps that may lie after every result
UNWRITTEN: GapCause = "unwritten"  # the cause of the gaps, and the word by which the counts tell of their results


@dataclass(slots=True)
class _Stretch:
    """Results that follow each other and were all missed, with the gaps of frames among them, one a cause; it ends at the
    next result that was not missed, or where another gap begins."""

    start_s: float
    wall_start_s: float | None
    last_s: float
    wall_last_s: float | None
    frames: int
    gaps: dict[GapCause, Gap] = field(default_factory=dict)

    def gather(self, gap: Gap) -> None:
        """Take over a gap that begins no sooner than all that is here ends. Why frames were dropped is one of a few words,
        and all are kept; damage is never the same twice, and the first place stands for all."""
        before = self.gaps.get(gap.cause, gap)
        if before is not gap:
            frames = (before.frames or 0) + (gap.frames or 0)
            detail = before.detail
            if gap.cause == "dropped":
                detail = ", ".join(sorted({*detail.split(", "), *gap.detail.split(", ")}))
            gap = replace(before, end_s=gap.end_s, wall_end_s=gap.wall_end_s, frames=frames, detail=detail)
        self.gaps[gap.cause] = gap
        self.last_s, self.wall_last_s = gap.end_s, gap.wall_end_s


class Outlet:
    """Hands the results and words of one camera to one sink. Written by one thread; others may read the attributes.

    `patience_s` None: the sink is waited for. `missed` counts the results that it was not given, or made nothing of before
    it ended; `behind_since_s` is the monotonic time since when it is passed over, None while it keeps up. `closed`: it takes
    nothing more.
    """

    def __init__(
        self, camera: str, sink: str, channel: Channel[PoseResult | Control], patience_s: float | None = None
    ) -> None:
        self.camera = camera
        self.sink = sink
        self.missed = 0
        self.behind_since_s: float | None = None
        self.closed = False
        self._channel = channel
        self._patience_s = patience_s
        self._tell: Callable[[], None] = lambda: None
        self._kept_back: PoseResult | Control | None = None  # what `put` is not to hand on
        self._stretch: _Stretch | None = None
        self._missed_before = 0  # when it was last passed over
        self._recent: deque[tuple[float, float | None]] = deque(maxlen=_REMEMBERED)  # the times of what it was given

    def admit(self, message: PoseResult | Control) -> Missed | None:
        """See whether the sink gets `message`, waiting for room where it is waited for; `put` follows. Gives what it missed
        before, for the other sinks, where that ends here: with a result that it gets, a gap that is not gathered, or the
        end; where it has ended, with the end alone."""
        if self._channel.unused() is not None:
            self._end()
        if isinstance(message, PoseResult):
            frame = message.frame
            if self._has_room():
                return self._told(frame.time_s, frame.wall_s)
            self._kept_back = message
            self._miss(frame)
            return None
        stretch = self._stretch
        if isinstance(message, Gap) and stretch is not None and not self.closed and message.start_s >= stretch.last_s:
            if message.cause not in _GATHERED:
                return self._told(message.start_s, message.wall_start_s)
            self._kept_back = message
            stretch.gather(message)
        if isinstance(message, End):
            self._caught_up("had not caught up when the camera ended")
            if stretch is not None:
                return self._told(stretch.last_s, stretch.wall_last_s)
        return None

    def put(self, message: PoseResult | Control) -> None:
        """Hand `message` on, unless it is a result that was not admitted. Words never wait and are never lost, but for gaps
        of frames among results that it misses: they come with those, in one."""
        if message is self._kept_back:
            self._kept_back = None
            return
        if self.closed:  # it ended after this was admitted, as it was given a word
            if isinstance(message, PoseResult):
                self._miss(message.frame)
            return
        if isinstance(message, End) and self.missed:
            counts = message.counts
            message = replace(message, counts=replace(counts, dropped={**counts.dropped, UNWRITTEN: self.missed}))
        try:
            self._channel.put(message)
        except ChannelClosed:
            self._end()
            if isinstance(message, PoseResult):
                self._miss(message.frame)
            return
        if isinstance(message, PoseResult):
            self._recent.append((message.frame.time_s, message.frame.wall_s))

    def holds(self, frames: int) -> bool:
        """Whether the sink is waited for and has no room for so many results; a `latest` channel takes all. Any thread may
        ask."""
        if self._patience_s is not None or self._channel.policy == "latest":
            return False
        try:
            return self._channel.room(0.0) < frames
        except ChannelClosed:
            return False

    def when_taken(self, tell: Callable[[], None]) -> None:
        """Have `tell` called whenever `holds` may have changed."""
        self._tell = tell
        if self._patience_s is None:
            self._channel.on_taken = tell

    def wait_for_it(self) -> None:
        """From now on the sink is waited for. Any thread may say so."""
        self._patience_s = None
        self._channel.on_taken = self._tell

    def close(self) -> None:
        """Nothing more comes; the sink takes what waits and ends."""
        self._channel.close()

    def _end(self) -> None:
        """The sink has ended. Of what it was given last it made nothing, which came before anything that it was not given
        and has not been told of yet."""
        if self.closed:
            return
        self.closed, self.behind_since_s = True, None
        unused = self._channel.unused() or 0
        lost = list(self._recent)[-unused:] if unused else []
        for time_s, wall_s in reversed(lost if self._records() else []):
            self._lack(time_s, wall_s)

    def _records(self) -> bool:
        """Whether it lacks what it was not given; to a window nothing but the newest matters."""
        return self._channel.policy != "latest"

    def _has_room(self) -> bool:
        if self.closed:
            return False
        try:
            room = self._channel.room(self._patience_s if self.behind_since_s is None else 0.0)
        except ChannelClosed:
            self._end()
            return False
        if room == self._channel.capacity:
            self._caught_up("has caught up")
        return room > 0

    def _miss(self, frame: Frame) -> None:
        if not self._records():
            return
        if self.behind_since_s is None and not self.closed:
            idle_s = self._channel.idle_s()
            self.behind_since_s = time.monotonic() - idle_s
            self._missed_before = self.missed
            log.warning(
                "%s of %s: has taken nothing for %.1f s; results go on without it until it does: see to the disk",
                self.sink, self.camera, idle_s,
            )  # fmt: skip
        self._lack(frame.time_s, frame.wall_s)

    def _lack(self, time_s: float, wall_s: float | None) -> None:
        """Count a result, which comes before or after all those that were not told of yet."""
        self.missed += 1
        stretch = self._stretch
        if stretch is None:
            self._stretch = _Stretch(time_s, wall_s, time_s, wall_s, 1)
            return
        if time_s < stretch.start_s:
            stretch.start_s, stretch.wall_start_s = time_s, wall_s
        else:
            stretch.last_s, stretch.wall_last_s = time_s, wall_s
        stretch.frames += 1

    def _caught_up(self, how: str) -> None:
        if self.behind_since_s is not None:
            log.warning(
                "%s of %s: %s; it missed %d results in %.1f s",
                self.sink, self.camera, how, self.missed - self._missed_before, time.monotonic() - self.behind_since_s,
            )  # fmt: skip
            self.behind_since_s = None

    def _told(self, end_s: float, wall_end_s: float | None) -> Missed | None:
        """Tell the sink of the stretch that ends at `end_s`, where there is one; gives the same for the others."""
        stretch, self._stretch = self._stretch, None
        if stretch is None:
            return None
        gap = Gap(
            self.camera, UNWRITTEN, stretch.start_s, end_s, stretch.frames, stretch.wall_start_s, wall_end_s,
            f"{self.sink} took nothing",
        )  # fmt: skip
        for word in (gap, *stretch.gaps.values()):
            self.put(word)
        return Missed(self.sink, gap)
