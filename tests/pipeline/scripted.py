"""A source that does what a script says: the real keeper and producer, a camera made of words."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from streampose.messages import CameraState, Control, End, Frame, Gap, SourceInfo
from streampose.pipeline.channel import Channel, ChannelClosed, Policy
from streampose.pipeline.keeper import KeepOptions
from streampose.pipeline.ledger import CameraLedger
from streampose.pipeline.produce import ProduceOptions, Producer
from streampose.pipeline.workers import WorkerGroup
from streampose.sources.base import Corrupt, Picture, check_live

FAST = KeepOptions(
    live=True,
    stall_s=0.15,
    give_up_s=0.4,
    unpaced_s=0.4,
    open_s=0.4,
    backoff_first_s=0.01,
    backoff_cap_s=0.05,
    refused_backoff_s=0.05,
    stop_grace_s=0.1,
)
STEP_S = 0.02
"""Camera time between two pictures of a scripted source."""


def picture(number: int, size: tuple[int, int] = (16, 12), **fields: Any) -> Picture:
    """The picture of a camera whose clock ticks in STEP_S, arriving now."""
    image = np.full((size[1], size[0], 3), number % 256, np.uint8)
    made = {"pts": number, "time_base": Fraction(1, 50), "time_s": number * STEP_S, "wall_s": 1e9 + number * STEP_S}
    return Picture(image=image, **{**made, "wall_source": "rtcp", "arrival_s": time.monotonic(), **fields})  # type: ignore[arg-type]


class ScriptedSource:
    """Each step: an int (so many pictures), a float (silence in seconds), an item to yield, an exception to raise, or an
    Event to hang on as a native call would, deaf to being stopped."""

    def __init__(self, steps: list[Any], live: bool = True, opening: Any = None, segmented: bool = False) -> None:
        self.steps, self.live, self.opening, self.segmented = steps, live, opening, segmented
        self.closed = False

    def open(self, live_only: bool = False) -> SourceInfo:
        if isinstance(self.opening, Exception):
            raise self.opening
        if isinstance(self.opening, threading.Event):
            self.opening.wait(60)
        kind: Any = "stream" if self.live else "video"
        info = SourceInfo("test:script", kind, self.live, 16, 12, codec="none", segmented=self.segmented)
        check_live(info, live_only)
        return info

    def frames(self, stopped: Callable[[], bool]) -> Iterator[Picture | Corrupt]:
        number = 0
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, threading.Event):
                step.wait(60)
            elif isinstance(step, float):
                until_s = time.monotonic() + step
                while not stopped() and time.monotonic() < until_s:
                    time.sleep(0.005)
            elif isinstance(step, int):
                for _ in range(step):
                    if stopped():
                        return
                    yield picture(number)
                    number += 1
            else:
                yield step
                number += 1

    def close(self) -> None:
        self.closed = True


def produce(
    sources: Callable[[], ScriptedSource],
    keep: KeepOptions = FAST,
    *,
    policy: Policy = "lossless",
    until: Callable[[list[Frame | Control]], bool] = lambda said: False,
    make_watch: Any = None,
    prepare: Any = None,
    within_s: float = 20.0,
) -> tuple[list[Frame | Control], Producer, CameraLedger]:
    """Run a producer and read it as the stages do; stop it as soon as `until` holds for what it has said."""
    ledger = CameraLedger("gate")
    out: Channel[Frame | Control] = Channel("frames:gate", 4, policy, ledger.drop)
    said: list[Frame | Control] = []
    deadline_s = time.monotonic() + within_s
    with WorkerGroup() as group:
        group.adopt(out)
        producer = Producer("gate", sources, out, ledger, group, ProduceOptions(keep, make_watch, prepare))
        group.start("produce:gate", producer.run)
        try:
            while True:
                said.append(out.get(timeout_s=max(deadline_s - time.monotonic(), 0.01)))
                if isinstance(said[-1], Frame):
                    said.extend(ledger.settle(said[-1]))
                if until(said):
                    producer.stop()
        except ChannelClosed:
            said.extend(ledger.finish())
    return said, producer, ledger


def frames(said: list[Frame | Control]) -> list[Frame]:
    return [message for message in said if isinstance(message, Frame)]


def gaps(said: list[Frame | Control]) -> list[Gap]:
    return [message for message in said if isinstance(message, Gap)]


def states(said: list[Frame | Control]) -> list[str]:
    return [message.state for message in said if isinstance(message, CameraState)]


def end(said: list[Frame | Control]) -> End:
    (last,) = [message for message in said if isinstance(message, End)]
    assert said.index(last) == max(i for i, m in enumerate(said) if not isinstance(m, Gap)), "End is not the last word"
    return last
