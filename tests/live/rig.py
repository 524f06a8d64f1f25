"""A camera being watched, as a run does it but without the networks: the real source, keeper, producer and account."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from streampose.messages import Break, CameraState, Control, End, Frame, Gap
from streampose.pipeline.channel import Channel
from streampose.pipeline.keeper import KeepOptions
from streampose.pipeline.ledger import CameraLedger
from streampose.pipeline.produce import ProduceOptions, Producer
from streampose.pipeline.workers import WorkerGroup
from streampose.sources.barcode import read_code
from streampose.sources.open import open_source

PATIENCE = KeepOptions(
    live=True, stall_s=1.0, give_up_s=3.0, open_s=4.0, backoff_first_s=0.2, backoff_cap_s=1.5, refused_backoff_s=2.0
)
LIMITS: dict[str, Any] = {"open_timeout_s": 2.0, "read_timeout_s": 2.0}


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
    """One camera. `seen`, `gaps`, `states`, `breaks` grow while it runs; `end` is its last word.

    With `forget` only the last frame is remembered, for runs that look at memory."""

    group: WorkerGroup
    name: str
    url: str
    keep: KeepOptions = PATIENCE
    options: dict[str, Any] = field(default_factory=dict)
    make_watch: Any = None
    forget: bool = False
    seen: list[Seen] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    states: list[tuple[float, CameraState]] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    end: End | None = None
    count: int = 0

    def __post_init__(self) -> None:
        self.ledger = CameraLedger(self.name)
        self.out: Channel[Frame | Control] = Channel(f"frames:{self.name}", 1, "latest", self.ledger.drop)
        self.news = threading.Condition()
        source = partial(open_source, self.url, **{**LIMITS, **self.options})
        options = ProduceOptions(self.keep, self.make_watch)
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
            self.gaps += self.ledger.settle(message)
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
            self.gaps.append(message)
        elif isinstance(message, CameraState):
            self.states.append((time.monotonic(), message))
        elif isinstance(message, Break):
            self.breaks.append(message)
        elif isinstance(message, End):
            self.gaps += self.ledger.finish()
            self.end = message

    @property
    def state(self) -> str:
        """The source's state (what the picture shows aside)."""
        known = [
            s.state
            for _, s in self.states
            if s.state in ("connecting", "live", "stalled", "reconnecting", "ended", "failed")
        ]
        return known[-1] if known else ""

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
        assert sum(gap.frames or 0 for gap in self.gaps if gap.cause == "corrupt") == counts.corrupt
        spans = sorted((gap.start_s, gap.end_s) for gap in self.gaps)
        assert all(start <= stop for start, stop in spans)
        assert all(before[1] <= after[0] + 1e-6 for before, after in itertools.pairwise(spans)), "gaps overlap"
        times = [seen.time_s for seen in self.seen]
        assert all(before < after for before, after in itertools.pairwise(times)), "time went back"

    def uncovered(self, fps: float) -> list[tuple[float, float]]:
        """Stretches of time between two frames that lack five pictures or more and that no gap speaks of."""
        spans = [(gap.start_s, gap.end_s) for gap in self.gaps]
        found = []
        for before, after in zip(self.seen, self.seen[1:], strict=False):
            told_s = sum(max(0.0, min(stop, after.time_s) - max(start, before.time_s)) for start, stop in spans)
            if after.time_s - before.time_s - told_s > 5.0 / fps:
                found.append((before.time_s, after.time_s))
        return found


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

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        began_s = time.monotonic()
        self.group.stop()
        finished = self.group.wait(8.0)
        self.stop_s = time.monotonic() - began_s
        self.group.__exit__(kind, error, trace)
        if kind is None:
            assert finished, "the producers did not end"
            for camera in self.watched:
                camera.check_account()
