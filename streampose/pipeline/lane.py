"""A lane: what belongs to one camera on its way through the shared stages."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TypeAlias

from streampose.messages import (
    Break,
    CameraState,
    Control,
    Counts,
    End,
    Frame,
    Gap,
    PoseResult,
    SourceInfo,
)
from streampose.pipeline.channel import Channel
from streampose.pipeline.governor import Effort, LoadGovernor
from streampose.pipeline.ledger import CameraLedger
from streampose.pipeline.meter import Meter
from streampose.pipeline.outlet import Outlet
from streampose.sinks.ledger import Ledger
from streampose.track.tracker import CameraTracker

log = logging.getLogger(__name__)
Result: TypeAlias = PoseResult | Control
OF_THE_PICTURE = frozenset({"frozen", "dark", "bright", "covered", "defocused", "moved", "no_signal", "seeing"})


@dataclass(slots=True, eq=False)
class Tally:
    """What a camera has brought so far, for people to read: written by the pose stage, read by the status line.

    `state` is that of the source; `blind` what is wrong with the picture, which may be so in any state of it, or empty.
    """

    info: SourceInfo | None = None
    state: str = "waiting"
    reason: str = ""
    blind: str = ""
    blind_reason: str = ""
    frames: int = 0
    dropped: int = 0
    time_s: float = 0.0
    people: int = 0
    ids: set[int] = field(default_factory=set)
    ledger: Ledger = field(default_factory=Ledger)
    counts: Counts | None = None
    error: str | None = None

    def note(self, message: Result) -> None:
        if isinstance(message, PoseResult):
            self.frames += 1
            self.time_s = message.frame.time_s
            self.ledger.add_frame(message.frame)
            self.people = sum(person.state != "tentative" for person in message.people)
            self.ids.update(person.id for person in message.people if person.state == "confirmed")
        elif isinstance(message, Gap):
            self.dropped += (message.frames or 0) if message.cause == "dropped" else 0
            self.ledger.add_gap(message)
        elif isinstance(message, Break):
            self.info = message.info
        elif isinstance(message, CameraState) and message.state in OF_THE_PICTURE:
            seeing = message.state == "seeing"
            self.blind, self.blind_reason = ("", "") if seeing else (message.state, message.reason)
        elif isinstance(message, CameraState):
            self.state, self.reason = message.state, message.reason
        elif isinstance(message, End):
            self.state, self.blind, self.blind_reason = "failed" if message.error else "ended", "", ""
            self.counts, self.error = message.counts, message.error or self.error


@dataclass(slots=True, eq=False)
class Lane:
    """One camera: its frames on the way in, its tracker, its results on the way out.

    `frames` is written by the producer and read by the detect stage; `keeps_all` and `max_age_s` are set by the producer;
    `tracker` and `governor` belong to the pose stage; `effort` is set by the pose stage and read by the detect stage, whole,
    as `work`. Frames `begun` are counted by the detect stage, those `done` by the pose stage. `outputs` lead to the sinks.
    The detect stage's own: the index of the last frame that it took, index and `time_s` of the last that it handed on
    (`last_kept`), up to when it told of lost ones, since when (monotonic) all are too old and whether it said so.
    `stills`: the frames are pictures that have nothing to do with each other, so nobody is followed from one to the next.
    """

    camera: str
    frames: Channel[Frame | Control]
    ledger: CameraLedger
    tracker: CameraTracker
    outputs: list[Outlet]
    detect_every: int = 1
    max_age_s: float | None = None
    governor: LoadGovernor | None = None
    effort: Effort = field(default_factory=Effort)
    keeps_all: bool = False
    stills: bool = False
    begun: int = 0
    done: int = 0
    since_detection: int = 0
    last_taken: int = -1
    last_kept: int = -1
    last_kept_s: float = float("-inf")
    told_s: float = float("-inf")
    old_since_s: float | None = None
    old_said: bool = False
    age: Meter = field(default_factory=Meter)
    tally: Tally = field(default_factory=Tally)

    def keep_all(self, depth: int) -> None:
        """Work as for a recording from now on: every frame, however old, up to `depth` of them waiting, and no sink is
        passed over. For the producer, before the first of these frames; the pose stage follows at their `Break`."""
        self.keeps_all, self.max_age_s = True, None
        for output in self.outputs:
            output.wait_for_it()
        self.frames.keep_all(depth)

    @property
    def work(self) -> Effort:
        """How much work a frame gets now."""
        return Effort() if self.keeps_all else self.effort

    def held(self) -> bool:
        """Whether the next frame must wait, for a sink that is waited for may have no room for its result: the lane waits,
        so that the shared stages need not."""
        return any(output.holds(self.begun - self.done + 1) for output in self.outputs)

    def put_out(self, message: Result) -> None:
        """Hand a result or a word of the source to every sink that takes it; what one has missed the others hear first."""
        self.tally.note(message)
        for output in self.outputs:
            missed = output.admit(message)
            if missed is not None:
                for other in self.outputs:
                    if other is not output:
                        other.put(missed)
        for output in self.outputs:
            output.put(message)
