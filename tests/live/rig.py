"""A camera being watched, as a run does it but without the networks: the real source, keeper, producer and account.

What a camera is given is what the program gives it: the configuration's own defaults, as `build` hands them on.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from streampose.build import keep_options, source_options
from streampose.config import CameraConfig
from streampose.messages import Break, CameraState, Control, End, Frame, Gap
from streampose.pipeline.channel import Channel
from streampose.pipeline.ledger import CameraLedger
from streampose.pipeline.produce import ProduceOptions, Producer
from streampose.pipeline.workers import WorkerGroup
from streampose.sources.barcode import read_code
from streampose.sources.open import open_source

OF_THE_SOURCE = frozenset({"connecting", "live", "stalled", "reconnecting", "paused", "ended", "failed"})
LEAST_HOLE_S = 0.2  # shorter stretches are no hole at any rate that is tried here
SETTLE_S = 1.0  # what a connection brings at once, after libav analysed it, may give way


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame that came through: its times, and the number and time that its own picture shows (None: not legible)."""

    index: int
    segment: int
    time_s: float
    wall_s: float | None
    wall_source: str
    width: int
    at_s: float
    number: int | None
    shown_s: float | None


@dataclass
class Watched:
    """One camera. `config`: keys of its section other than `url`. `seen`, `gaps`, `states`, `breaks` grow while it runs;
    `end` is its last word.

    The account is kept as they come, so that with `forget` (for runs that look at memory) only what the next frame needs is
    remembered."""

    group: WorkerGroup
    name: str
    url: str
    config: dict[str, Any] = field(default_factory=dict)
    make_watch: Any = None
    forget: bool = False
    seen: list[Seen] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    states: list[tuple[float, CameraState]] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    end: End | None = None
    count: int = 0
    segments: int = 0
    state: str = ""
    causes: Counter[str] = field(default_factory=Counter)
    gap_s: float = 0.0
    corrupt: int = 0
    dropped_later: int = 0
    holes: list[tuple[float, float, float]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    first_s: float | None = None
    _last_s: float | None = None
    _told_until_s: float = 0.0

    def __post_init__(self) -> None:
        self.ledger = CameraLedger(self.name)
        self.out: Channel[Frame | Control] = Channel(f"frames:{self.name}", 1, "latest", self.ledger.drop)
        self.news = threading.Condition()
        camera = CameraConfig(url=self.url, **self.config)
        source = partial(open_source, camera.analysed_url, **source_options(camera))
        options = ProduceOptions(keep_options(self.name, camera), self.make_watch)
        self.producer = Producer(self.name, source, self.out, self.ledger, self.group, options)
        self.group.adopt(self.out)
        self.group.start(f"consume:{self.name}", self._consume)
        self.group.start(f"produce:{self.name}", self.producer.run)

    def _consume(self) -> None:
        while self.end is None:
            message = self.out.get()
            with self.news:
                self._take(message)
                self.news.notify_all()

    def _take(self, message: Frame | Control) -> None:
        if isinstance(message, Frame):
            for gap in self.ledger.settle(message):
                self._note(gap)
            self._account(message.time_s)
            self.first_s = message.time_s if self.first_s is None else self.first_s
            self.count += 1
            code = read_code(message.image)
            seen = Seen(
                message.index, message.segment, message.time_s, message.wall_s, message.wall_source, message.width,
                time.monotonic(), *(code or (None, None)),
            )  # fmt: skip
            if self.forget:
                self.seen.clear()
            self.seen.append(seen)
        elif isinstance(message, Gap):
            self._note(message)
        elif isinstance(message, CameraState):
            if message.state in OF_THE_SOURCE:
                self.state = message.state
            if self.forget:
                self.states.clear()
            self.states.append((time.monotonic(), message))
        elif isinstance(message, Break):
            self.segments += 1
            if self.forget:
                self.breaks.clear()
            self.breaks.append(message)
        elif isinstance(message, End):
            for gap in self.ledger.finish():
                self._note(gap)
            self._account(float("inf"))
            self.end = message

    def _note(self, gap: Gap) -> None:
        self.gaps.append(gap)
        self.causes[gap.cause] += 1
        self.gap_s += gap.end_s - gap.start_s
        self.corrupt += (gap.frames or 0) if gap.cause == "corrupt" else 0
        if gap.cause == "dropped" and self.first_s is not None and gap.start_s > self.first_s + SETTLE_S:
            self.dropped_later += gap.frames or 0
        if gap.start_s > gap.end_s:
            self.faults.append(f"a gap ends before it begins: {gap}")

    def _account(self, time_s: float) -> None:
        """A frame came: every gap before it was told. They may not overlap, and time between two frames must be theirs."""
        told_s = 0.0
        for gap in sorted(self.gaps, key=lambda gap: gap.start_s):
            if gap.end_s > self._told_until_s and gap.start_s < time_s:
                if gap.start_s < self._told_until_s - 1e-6:
                    self.faults.append(f"gaps overlap at {gap.start_s:.3f} s: {gap}")
                told_s += gap.end_s - max(gap.start_s, self._last_s or 0.0)
                self._told_until_s = gap.end_s
        if self._last_s is not None and time_s != float("inf"):
            if time_s <= self._last_s:
                self.faults.append(f"time went back from {self._last_s} s to {time_s} s")
            if time_s - self._last_s - told_s > LEAST_HOLE_S:
                self.holes.append((self._last_s, time_s, told_s))
        if self.forget:
            self.gaps = [gap for gap in self.gaps if gap.end_s > time_s]
        self._last_s = time_s

    def said(self) -> list[str]:
        return [state.state for _, state in self.states]

    def wait(self, until: Callable[[Watched], bool], within_s: float) -> float:
        """Wait until something holds; how long that took. Fails when it does not in `within_s`."""
        began_s = time.monotonic()
        with self.news:
            while not until(self):
                left_s = within_s - (time.monotonic() - began_s)
                if left_s <= 0 or not self.news.wait(min(left_s, 0.5)):
                    assert left_s > 0, (
                        f"{self.name}: not within {within_s} s; {len(self.seen)} frames, said {self.said()}"
                    )
        return time.monotonic() - began_s

    def wait_for_frames(self, more: int, within_s: float = 10.0) -> float:
        goal = self.count + more
        return self.wait(lambda w: w.count >= goal, within_s)

    def check_account(self) -> None:
        """What must hold at the end, whatever happened."""
        assert self.end is not None
        assert self.end.error is None, self.end.error
        counts = self.ledger.counts
        assert counts.decoded == self.count + sum(counts.dropped.values()) + counts.corrupt
        assert self.corrupt == counts.corrupt
        assert not self.faults, (self.name, self.faults)

    def uncovered(self, fps: float) -> list[tuple[float, float]]:
        """Stretches of time between two frames that lack five pictures or more and that no gap speaks of."""
        return [(start, stop) for start, stop, told_s in self.holes if stop - start - told_s > 5.0 / fps]


@dataclass
class Rig:
    """A with-block that watches cameras and, at its end, stops them and checks every account."""

    group: WorkerGroup = field(default_factory=lambda: WorkerGroup(deadline_s=5.0))
    watched: list[Watched] = field(default_factory=list)
    stop_s: float = 0.0
    forget: bool = False

    def watch(self, name: str, url: str, **how: Any) -> Watched:
        self.watched.append(Watched(self.group, name, url, **{"forget": self.forget, **how}))
        return self.watched[-1]

    def __enter__(self) -> Rig:
        self.group.__enter__()
        return self

    def stop(self) -> bool:
        """Whether all threads have ended, within eight seconds."""
        began_s = time.monotonic()
        self.group.stop()
        finished = self.group.wait(8.0)
        self.stop_s = time.monotonic() - began_s
        return finished

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        finished = self.stop()
        self.group.__exit__(kind, error, trace)
        if kind is None:
            assert finished, "the producers did not end"
            for camera in self.watched:
                camera.check_account()
