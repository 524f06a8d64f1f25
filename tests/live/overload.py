"""The latency contract under overload: networks five times too slow, a live camera, the real stages and governor.

python -m tests.live.overload --seconds 30
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from streampose.messages import Array, Control, Counts, Degrade, Frame, Gap, Image, PoseResult
from streampose.pipeline.channel import Channel
from streampose.pipeline.detect_stage import Detected, DetectStage
from streampose.pipeline.governor import LADDER, LoadGovernor
from streampose.pipeline.keeper import KeepOptions
from streampose.pipeline.lane import Lane, Result
from streampose.pipeline.ledger import CameraLedger
from streampose.pipeline.outlet import PATIENCE_S, Outlet
from streampose.pipeline.pose_stage import PoseStage
from streampose.pipeline.produce import ProduceOptions, Producer
from streampose.pipeline.workers import WorkerGroup
from streampose.sources.open import open_source
from streampose.track.options import SmoothOptions, TrackOptions
from streampose.track.tracker import CameraTracker
from tests.clocks import OwnTime
from tests.live.rows import Row, judged, table

MAX_AGE_S = 0.4
DETECT_S, POSE_S = 0.03, 0.04  # five times slower: 0.9 s from picture to result where no work is taken away
SLOWER = 5.0
SLOW_FROM_S = 1.5
JUDGED_FROM_S = 20.0  # by then the governor has found its step
LEAST_S = 26.0
BOX = np.array([[40, 20, 80, 140]], np.float32)


@dataclass(frozen=True, slots=True)
class Came:
    """A result: when it came, in seconds since the beginning; its time on the camera's clock; its age; and how much of that
    this process had for itself (`tests.clocks.OwnTime`)."""

    at_s: float
    time_s: float
    age_s: float
    own_s: float


@dataclass
class Overload:
    """What came out: every result, and everything else that was said."""

    seconds: float
    said: list[Control] = field(default_factory=list)
    came: list[Came] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    @property
    def changes(self) -> list[Degrade]:
        return [message for message in self.said if isinstance(message, Degrade)]

    def judged_results(self) -> list[Came]:
        """Those that came once the governor had time to act."""
        return [result for result in self.came if result.at_s > JUDGED_FROM_S]

    def p95_s(self, *, busy: bool = False) -> float:
        """Of the ages of those; `busy`: the machine does other things too, and only the own part of an age counts."""
        ages = sorted(result.own_s if busy else result.age_s for result in self.judged_results())
        return ages[int(0.95 * len(ages))] if ages else float("inf")

    def rows(self, *, busy: bool = False) -> list[Row]:
        steps = [change.step for change in self.changes]
        told = sum(gap.frames or 0 for gap in self.said if isinstance(gap, Gap))
        dropped = sum(self.counts.dropped.values())
        p95_s = self.p95_s(busy=busy)
        return [
            judged(
                f"overload: networks {SLOWER:g} times slower",
                f"p95 age within {MAX_AGE_S * 1e3:.0f} ms",
                f"{p95_s * 1e3:.0f} ms over {len(self.judged_results())} results",
                p95_s < MAX_AGE_S,
            ),
            judged(
                "overload: degradations",
                "each recorded, one step at a time",
                "; ".join(change.what for change in self.changes) or "none",
                bool(steps) and all(abs(b - a) == 1 for a, b in zip([0, *steps], steps, strict=False)),
            ),
            judged(
                "overload: frames without a result",
                "all counted, all in gaps",
                f"{dropped} of {self.counts.decoded}, {told} in gaps",
                told == dropped and self.counts.decoded == len(self.came) + dropped,
            ),
        ]


def detector(slower: Callable[[], float], scale: float) -> Callable[[Sequence[Image]], list[tuple[Array, Array]]]:
    def detect(images: Sequence[Image]) -> list[tuple[Array, Array]]:
        time.sleep(DETECT_S * slower() * scale**2 * len(images))
        return [(BOX.copy(), np.array([0.9], np.float32)) for _ in images]

    return detect


def estimator(slower: Callable[[], float]) -> Callable[[Sequence[Image], Sequence[Array]], list[Array]]:
    def estimate(images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]:
        time.sleep(POSE_S * slower() * sum(len(own) for own in boxes))
        found = [np.full((len(own), 17, 3), 0.8, np.float32) for own in boxes]
        for own, points in zip(boxes, found, strict=True):
            points[:, :, :2] = ((own[:, :2] + own[:, 2:]) / 2)[:, None]
        return found

    return estimate


def run(seconds: float) -> Overload:
    """Watch a synthetic camera for `seconds` (26 at least) with networks that become too slow after a moment."""
    seconds = max(seconds, LEAST_S)
    report = Overload(seconds)
    began_s = time.monotonic()

    def slower() -> float:
        return SLOWER if time.monotonic() - began_s > SLOW_FROM_S else 1.0

    ledger = CameraLedger("gate")
    frames: Channel[Frame | Control] = Channel("frames:gate", 1, "latest", partial(ledger.drop, detail="newest wins"))
    results: Channel[Result] = Channel("results:gate", 8, "lossless")
    lane = Lane(
        "gate",
        frames,
        ledger,
        CameraTracker(np.full(17, 0.07, np.float32), TrackOptions(), SmoothOptions()),
        [Outlet("gate", "results", results, PATIENCE_S)],
        max_age_s=MAX_AGE_S,
        governor=LoadGovernor("gate", MAX_AGE_S, LADDER),
    )
    between: Channel[Detected] = Channel("detected", 2, "lossless")
    detect = DetectStage({1.0: detector(slower, 1.0), 0.5: detector(slower, 0.5)}, between, 4)
    pose = PoseStage(estimator(slower), between, 4)

    def collect() -> None:
        while True:
            message = results.get()
            if not isinstance(message, PoseResult):
                report.said.append(message)
                continue
            frame, now_s = message.frame, time.monotonic()
            captured_s = frame.arrival_s if frame.captured_s is None else frame.captured_s
            own_s = own.between_s(captured_s, now_s)
            report.came.append(Came(now_s - began_s, frame.time_s, now_s - captured_s, own_s))

    with OwnTime() as own, WorkerGroup() as group:
        for channel in (frames, results, between):
            group.adopt(channel)
        source = partial(open_source, f"test:people?live=1&fps=15&size=320x180&people=1&seconds={seconds}")
        producer = Producer("gate", source, frames, ledger, group, ProduceOptions(KeepOptions(live=True)))
        group.start("collect", collect)
        detect.add(lane)
        detect.finish()
        group.start("detect", detect.run)
        group.start("pose", pose.run)
        group.start("produce:gate", producer.run)
        group.wait(seconds)
        group.stop()
    report.counts = ledger.counts
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    print(table(run(parser.parse_args().seconds).rows()))


if __name__ == "__main__":
    main()
