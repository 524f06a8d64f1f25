"""The latency contract under overload: networks five times too slow, a live camera, the real stages and governor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest

from streampose.messages import Array, Control, Degrade, Frame, Gap, Image, PoseResult
from streampose.pipeline.channel import Channel
from streampose.pipeline.detect_stage import Detected, DetectStage
from streampose.pipeline.governor import LADDER, LoadGovernor
from streampose.pipeline.keeper import KeepOptions
from streampose.pipeline.lane import Lane, Result
from streampose.pipeline.ledger import CameraLedger
from streampose.pipeline.pose_stage import PoseStage
from streampose.pipeline.produce import ProduceOptions, Producer
from streampose.pipeline.workers import WorkerGroup
from streampose.sources.open import open_source
from streampose.track.options import SmoothOptions, TrackOptions
from streampose.track.tracker import CameraTracker

MAX_AGE_S = 0.4
DETECT_S, POSE_S = 0.05, 0.015
BOX = np.array([[40, 20, 80, 140]], np.float32)


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


@pytest.mark.slow
def test_networks_five_times_slower_keep_the_contract_and_say_how() -> None:
    seconds, slow_from_s, judged_from_s = 20.0, 1.5, 12.0
    began_s = time.monotonic()

    def slower() -> float:
        return 5.0 if time.monotonic() - began_s > slow_from_s else 1.0

    ledger = CameraLedger("gate")
    frames: Channel[Frame | Control] = Channel("frames:gate", 1, "latest", partial(ledger.drop, detail="newest wins"))
    results: Channel[Result] = Channel("results:gate", 8, "lossless")
    lane = Lane(
        "gate",
        frames,
        ledger,
        CameraTracker(np.full(17, 0.07, np.float32), TrackOptions(), SmoothOptions()),
        [results],
        max_age_s=MAX_AGE_S,
        governor=LoadGovernor("gate", MAX_AGE_S, LADDER),
    )
    between: Channel[Detected] = Channel("detected", 2, "lossless")
    detect = DetectStage({1.0: detector(slower, 1.0), 0.5: detector(slower, 0.5)}, between, 4)
    pose = PoseStage(estimator(slower), between, 4)
    said: list[Result] = []
    ages: list[tuple[float, float]] = []

    def collect() -> None:
        while True:
            message = results.get()
            said.append(message)
            if isinstance(message, PoseResult):
                frame = message.frame
                captured_s = frame.arrival_s if frame.captured_s is None else frame.captured_s
                ages.append((time.monotonic() - began_s, time.monotonic() - captured_s))

    with WorkerGroup() as group:
        for channel in (frames, results, between):
            group.adopt(channel)
        source = partial(open_source, f"test:people?live=1&fps=15&size=320x180&people=1&seconds={seconds}")
        keep = KeepOptions(live=True)
        producer = Producer("gate", source, frames, ledger, group, ProduceOptions(keep))
        group.start("collect", collect)
        detect.add(lane)
        detect.finish()
        group.start("detect", detect.run)
        group.start("pose", pose.run)
        group.start("produce:gate", producer.run)
        group.wait(seconds)
        group.stop()

    changes = [message for message in said if isinstance(message, Degrade)]
    assert changes, "the governor did nothing"
    assert [change.step for change in changes[:2]] == [1, 2]
    assert changes[0].what == "detect on every 2nd frame"
    assert all(change.reason and change.time_s is not None for change in changes)
    judged = sorted(age for at_s, age in ages if at_s > judged_from_s)
    assert (changes[0].time_s or 0.0) > 1.0, "degraded before there was a reason"
    assert len(judged) > 10
    p95_s = judged[int(0.95 * len(judged))]
    print(f"p95 age {p95_s * 1e3:.0f} ms of {MAX_AGE_S * 1e3:.0f} ms, {[change.what for change in changes]}")
    assert p95_s < MAX_AGE_S
    counts = ledger.counts
    assert counts.decoded == len(ages) + sum(counts.dropped.values())
    assert sum(gap.frames or 0 for gap in said if isinstance(gap, Gap)) == sum(counts.dropped.values())
