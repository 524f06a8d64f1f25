"""The stages together, with networks that are plain functions: order, batching, endings, and nothing lost uncounted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from streampose.messages import (
    Array,
    Break,
    Control,
    Counts,
    Degrade,
    Detections,
    End,
    Frame,
    Gap,
    Image,
    PoseResult,
    SourceInfo,
)
from streampose.pipeline import detect_stage
from streampose.pipeline.channel import Channel, Policy
from streampose.pipeline.detect_stage import Detected, DetectsPeople, DetectStage
from streampose.pipeline.governor import Effort, LoadGovernor
from streampose.pipeline.lane import Lane, Result
from streampose.pipeline.ledger import CameraLedger
from streampose.pipeline.outlet import Outlet
from streampose.pipeline.pose_stage import EstimatesPose, PoseStage
from streampose.pipeline.sink_worker import SinkWorker
from streampose.pipeline.workers import WorkerGroup
from streampose.sinks.memory import MemorySink
from streampose.track.options import SmoothOptions, TrackOptions
from streampose.track.tracker import CameraTracker
from tests.pipeline.test_channel import drain

INFO = SourceInfo("test", "synthetic", False, 64, 48)
BOX = np.array([[10, 5, 30, 45]], np.float32)


def one_person(images: Sequence[Image]) -> list[tuple[Array, Array]]:
    return [(BOX.copy(), np.array([0.9], np.float32)) for _ in images]


def centred_points(images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]:
    found = []
    for own in boxes:
        points = np.zeros((len(own), 17, 3), np.float32)
        points[:, :, :2] = ((own[:, :2] + own[:, 2:]) / 2)[:, None]
        points[:, :, 2] = 0.8
        found.append(points)
    return found


def make_frame(camera: str, index: int, age_s: float = 0.0) -> Frame:
    now_s = time.monotonic() - age_s
    image = np.zeros((48, 64, 3), np.uint8)
    return Frame(camera, index, 0, index, Fraction(1, 10), index / 10, index / 10, None, "none", now_s, image)


def make_lane(camera: str, policy: Policy = "lossless", **options: float) -> tuple[Lane, MemorySink, SinkWorker]:
    ledger = CameraLedger(camera)
    frames: Channel[Frame | Control] = Channel(f"frames:{camera}", 4, policy, ledger.drop)
    sink = MemorySink()
    worker = SinkWorker(camera, sink, Channel[Result](f"memory:{camera}", 8, "lossless"))
    tracker = CameraTracker(np.full(17, 0.07, np.float32), TrackOptions(), SmoothOptions())
    return Lane(camera, frames, ledger, tracker, [Outlet(camera, sink.name, worker.inbox)], **options), sink, worker  # type: ignore[arg-type]


def feed(lane: Lane, frames: Sequence[Frame]) -> None:
    lane.frames.put(Break(lane.camera, 0, INFO))
    for frame in frames:
        lane.ledger.decoded(frame)
        lane.frames.put(frame)
    lane.frames.put(End(lane.camera, Counts()))
    lane.frames.close()


def run_stages(
    lanes: Sequence[tuple[Lane, SinkWorker, Sequence[Frame] | Callable[[], None]]],
    detector: DetectsPeople = one_person,
    estimator: EstimatesPose = centred_points,
) -> None:
    between: Channel[Detected] = Channel("between", 2, "lossless")
    detect, pose = DetectStage({1.0: detector}, between, 4), PoseStage(estimator, between, 4)
    with WorkerGroup() as group:
        group.adopt(between)
        for lane, worker, frames in lanes:
            group.adopt(lane.frames)
            group.adopt(worker.inbox)
            detect.add(lane)
            group.start(f"memory:{lane.camera}", worker.run)
            give = frames if callable(frames) else partial(feed, lane, frames)
            group.start(f"feed:{lane.camera}", give)
        group.start("detect", detect.run)
        group.start("pose", pose.run)
        detect.finish()


def test_every_frame_of_every_camera_has_one_result_in_order() -> None:
    made = [make_lane(name) for name in ("a", "b", "c")]
    counts = (30, 7, 1)
    run_stages(
        [
            (lane, worker, [make_frame(lane.camera, i) for i in range(n)])
            for (lane, _, worker), n in zip(made, counts, strict=True)
        ]
    )
    for (lane, sink, _), n in zip(made, counts, strict=True):
        assert [result.frame.index for result in sink.results] == list(range(n))
        assert isinstance(sink.messages[0], Break)
        assert isinstance(sink.messages[-1], End)
        assert sink.closed
        assert sink.end is not None
        assert sink.end.counts == Counts(decoded=n)
        assert lane.tally.frames == n


def detect_all(detectors: dict[float, DetectsPeople], lanes: Sequence[Lane], batch: int) -> list[tuple[str, bool]]:
    """What the detect stage hands on of lanes that have got all their frames: the camera, and whether it was looked at."""
    out: Channel[Detected] = Channel("detect-pose", 99, "lossless")
    stage = DetectStage(detectors, out, batch)
    for lane in lanes:
        lane.frames.close()
        stage.add(lane)
    stage.finish()
    stage.run()
    return [(lane.camera, item.boxes is not None) for lane, item in drain(out) if isinstance(item, Detections)]


def test_a_batch_is_no_larger_than_was_said_though_there_are_more_cameras_and_none_of_them_starves() -> None:
    sizes: list[int] = []

    def counted(images: Sequence[Image]) -> list[tuple[Array, Array]]:
        sizes.append(len(images))
        return one_person(images)

    lanes = [make_lane(name)[0] for name in "abcde"]
    for lane in lanes:
        for index in range(3):
            lane.frames.put(make_frame(lane.camera, index))
    assert detect_all({1.0: counted}, lanes, batch=2) == [(name, True) for name in "abcde" * 3]
    assert sizes == [2] * 7 + [1]


@pytest.mark.parametrize(("before", "after"), [(0.5, 1.0), (1.0, 0.5)])
def test_a_frame_is_looked_at_once_though_the_governor_decides_anew_meanwhile(before: float, after: float) -> None:
    """In its own thread, after the pose of an older frame."""
    asked = {1.0: 0, 0.5: 0}
    other, governed = (make_lane(name)[0] for name in ("other", "governed"))
    governed.effort = Effort(scale=before)
    for lane in (other, governed):
        lane.frames.put(make_frame(lane.camera, 0))

    def detector(scale: float, images: Sequence[Image]) -> list[tuple[Array, Array]]:
        asked[scale] += len(images)
        governed.effort = Effort(scale=after)
        return one_person(images)

    detectors: dict[float, DetectsPeople] = {scale: partial(detector, scale) for scale in asked}
    assert detect_all(detectors, [other, governed], batch=4) == [("other", True), ("governed", True)]
    assert sum(asked.values()) == 2


def test_a_person_keeps_one_id_and_detection_may_be_seldom() -> None:
    lane, sink, worker = make_lane("a", detect_every=3)
    run_stages([(lane, worker, [make_frame("a", i) for i in range(20)])])
    assert [result.detected for result in sink.results] == [i % 3 == 0 for i in range(20)]
    assert {person.id for result in sink.results[4:] for person in result.people} == {1}
    assert all(result.people for result in sink.results[4:])


@pytest.mark.parametrize("word", ["break", "stall"])
@pytest.mark.parametrize("ages", ["late", "early"])
def test_time_in_which_a_camera_was_away_is_no_proof_to_the_governor(word: str, ages: str) -> None:
    """Results just before it and the first after it were all late, or all early: nothing was seen of the minute between."""
    lane, sink, worker = make_lane("a")
    governor = LoadGovernor("a", 10.0 if ages == "early" else 1e-9)
    if ages == "early":
        late = (governor.observe(100.0, -10.0 + n / 10) for n in range(100))
        assert any(late)
        governor.forget()
    step, lane.governor = governor.step, governor

    def feed_twice() -> None:
        lane.frames.put(Break("a", 0, INFO))
        for n in range(12):
            if n == 6:
                lane.frames.put(Break("a", 1, INFO) if word == "break" else Gap("a", "stalled", 0.5, 60.6))
            frame = make_frame("a", n)
            frame = replace(frame, time_s=frame.time_s + (60.0 if n >= 6 else 0.0))
            lane.ledger.decoded(frame)
            lane.frames.put(frame)
        lane.frames.put(End("a", Counts()))
        lane.frames.close()

    run_stages([(lane, worker, feed_twice)])
    assert len(sink.results) == 12
    assert governor.step == step
    assert not [message for message in sink.messages if isinstance(message, Degrade)]


@pytest.mark.parametrize("ages", ["late", "early"])
def test_small_holes_do_not_keep_the_governor_from_changing(ages: str) -> None:
    """A camera that lacks half a second after every eight pictures."""
    lane, _, worker = make_lane("a")
    governor = LoadGovernor("a", 10.0 if ages == "early" else 1e-9)
    if ages == "early":
        assert any(governor.observe(100.0, -10.0 + n / 10) for n in range(100))
        governor.forget()
    step, lane.governor = governor.step, governor

    def feed_with_holes() -> None:
        lane.frames.put(Break("a", 0, INFO))
        for n in range(300):
            frame = make_frame("a", n)
            frame = replace(frame, time_s=frame.time_s + 0.4 * (n // 8))
            if n and n % 8 == 0:
                lane.frames.put(Gap("a", "stalled", frame.time_s - 0.5, frame.time_s))
            lane.ledger.decoded(frame)
            lane.frames.put(frame)
        lane.frames.put(End("a", Counts()))
        lane.frames.close()

    run_stages([(lane, worker, feed_with_holes)])
    assert governor.step < step if ages == "early" else governor.step > step


def test_what_goes_on_as_a_recording_gets_full_work_from_its_first_frame_on() -> None:
    """The camera before it was too much for this machine: every fourth frame was detected and posed, once a second."""
    lane, sink, worker = make_lane("a", detect_every=1)
    posed: list[int] = []
    lane.governor = LoadGovernor("a", 1e-9)
    step = sum(lane.governor.observe(9.0, n / 10) is not None for n in range(600))
    lane.effort = lane.governor.settings
    lane.tracker.pose_every_at_least(lane.effort.pose_every)
    assert (step, lane.effort.detect_every, lane.effort.pose_every, lane.effort.fps) == (8, 4, 4, 1.0)

    def give() -> None:
        lane.frames.put(Break("a", 0, replace(INFO, live=True)))
        for n in range(60):
            if n == 20:
                lane.keep_all(8)
                lane.frames.put(Break("a", 1, INFO))
            frame = make_frame("a", n)
            lane.ledger.decoded(frame)
            lane.frames.put(frame)
        lane.frames.put(End("a", Counts()))
        lane.frames.close()

    def estimator(images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]:
        posed.append(sum(len(own) for own in boxes))
        return centred_points(images, boxes)

    run_stages([(lane, worker, give)], estimator=estimator)
    whole = [result for result in sink.results if result.frame.index >= 20]
    assert [result.frame.index for result in whole] == list(range(20, 60))
    assert all(result.detected for result in whole)
    assert posed[-40:] == [1] * 40
    assert not [message for message in sink.messages if isinstance(message, Degrade)]


def test_a_frame_that_is_too_old_is_dropped_and_counted() -> None:
    lane, sink, worker = make_lane("a", max_age_s=0.5)
    frames = [make_frame("a", i, age_s=5.0 if i in (3, 4) else 0.0) for i in range(8)]
    run_stages([(lane, worker, frames)])
    assert [result.frame.index for result in sink.results] == [0, 1, 2, 5, 6, 7]
    (gap,) = sink.gaps
    assert (gap.cause, gap.frames, gap.start_s, gap.end_s) == ("dropped", 2, 0.3, 0.5)
    assert sink.end is not None
    assert sink.end.counts == Counts(8, 0, {"older than max_age": 2})
    order = [m.frame.index if isinstance(m, PoseResult) else type(m).__name__ for m in sink.messages]
    assert order == ["Break", 0, 1, 2, "Gap", 5, 6, 7, "End"]


def test_frames_that_are_all_too_old_are_told_of_in_time_and_in_order() -> None:
    """No result comes that would tell of them. After 25 s the source itself was gone for five."""
    lane, sink, worker = make_lane("a", max_age_s=0.5)
    frames = [make_frame("a", i, age_s=5.0) for i in range(250)]
    back = replace(make_frame("a", 250, age_s=5.0), time_s=30.0)
    away = Gap("a", "disconnected", frames[-1].time_s, 30.0)

    def give() -> None:
        lane.frames.put(Break("a", 0, INFO))
        for frame in frames:
            lane.ledger.decoded(frame)
            lane.frames.put(frame)
        lane.ledger.interrupted(away.start_s)
        lane.frames.put(away)
        lane.ledger.decoded(back)
        lane.frames.put(back)
        lane.frames.put(End("a", Counts()))
        lane.frames.close()

    run_stages([(lane, worker, give)])
    assert sink.results == []
    spans = [(gap.cause, gap.start_s, gap.end_s, gap.frames) for gap in sink.gaps]
    assert spans == [
        ("dropped", 0.0, 10.0, 100),
        ("dropped", 10.0, 20.0, 100),
        ("dropped", 20.0, 24.9, 50),
        ("disconnected", 24.9, 30.0, None),
        ("dropped", 30.0, 30.0, 1),
    ]
    assert sink.end is not None
    assert sink.end.counts == Counts(251, 0, {"older than max_age": 251})


def test_a_camera_of_which_every_frame_is_too_old_is_said_once_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect_stage, "TOO_OLD_S", 0.0)
    lane, sink, worker = make_lane("a", max_age_s=0.5)
    run_stages([(lane, worker, [make_frame("a", i, age_s=0.0 if i == 20 else 5.0) for i in range(22)])])
    assert [result.frame.index for result in sink.results] == [20]
    begins, ends, again = (record.getMessage() for record in caplog.records)
    assert begins.startswith(
        "a: nothing is analysed: for 0 s every frame was older than max_age, 500 ms; the last came 0 ms"
    )
    assert ends.startswith("a: is analysed again")
    assert again.startswith("a: nothing is analysed")


def test_a_time_without_a_connection_is_none_of_frames_that_are_too_old(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect_stage, "TOO_OLD_S", 1e-9)
    lane, _, _ = make_lane("a", max_age_s=0.5)
    detect = DetectStage({1.0: one_person}, Channel("between", 2, "lossless"), 4)
    for item in (make_frame("a", 0, age_s=5.0), Break("a", 1, INFO, "ended the stream"), make_frame("a", 1, age_s=5.0)):
        detect._work([(lane, item)])
    assert caplog.records == []
    detect._work([(lane, make_frame("a", 2, age_s=5.0))])
    assert len(caplog.records) == 1


def test_a_recording_with_a_window_is_looked_at_while_the_frame_before_is_posed() -> None:
    lane, sink, worker = make_lane("a")
    window: Channel[Result] = Channel("display:a", 1, "latest")
    lane.outputs.append(Outlet("a", "display", window))
    looked = 0
    second = threading.Event()
    overlapped: list[bool] = []

    def detector(images: Sequence[Image]) -> list[tuple[Array, Array]]:
        nonlocal looked
        looked += len(images)
        if looked >= 2:
            second.set()
        return one_person(images)

    def estimator(images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]:
        overlapped.append(second.wait(5.0 if not overlapped else 0.0))
        return centred_points(images, boxes)

    run_stages([(lane, worker, [make_frame("a", i) for i in range(6)])], detector, estimator)
    assert overlapped[0]
    assert len(sink.results) == 6


def test_newest_wins_and_every_frame_is_accounted_for() -> None:
    lane, sink, worker = make_lane("a", "latest")

    def slow(images: Sequence[Image]) -> list[tuple[Array, Array]]:
        time.sleep(0.01)
        return one_person(images)

    run_stages([(lane, worker, [make_frame("a", i) for i in range(60)])], detector=slow)
    assert sink.end is not None
    counts = sink.end.counts
    assert counts.decoded == 60 == len(sink.results) + sum(counts.dropped.values())
    assert sum(gap.frames or 0 for gap in sink.gaps) == sum(counts.dropped.values()) > 0
    assert sink.results[-1].frame.index == 59


@pytest.mark.parametrize("place", ["detect", "pose"])
def test_a_stage_that_fails_ends_all_and_closes_the_sinks(place: str) -> None:
    def broken(*_: object) -> list[object]:
        raise RuntimeError("broken network")

    lane, sink, worker = make_lane("a")
    frames = [make_frame("a", i) for i in range(50)]
    networks = {"detector": broken} if place == "detect" else {"estimator": broken}
    with pytest.raises(RuntimeError, match="broken network"):
        run_stages([(lane, worker, frames)], **networks)  # type: ignore[arg-type]
    assert sink.closed


def test_a_sink_that_fails_ends_alone() -> None:
    class Full(MemorySink):
        def write(self, message: Result) -> None:
            if len(self.messages) > 3:
                raise OSError("no space")
            super().write(message)

    lane, sink, worker = make_lane("a")
    full = Full()
    bad = SinkWorker("a", full, Channel[Result]("full:a", 2, "lossless"))
    lane.outputs.append(Outlet("a", "full", bad.inbox))
    with WorkerGroup() as group:
        group.start("full:a", bad.run)
        run_stages([(lane, worker, [make_frame("a", i) for i in range(20)])])
    assert isinstance(bad.error, OSError)
    assert full.closed
    assert len(sink.results) == 20


def test_a_sink_that_cannot_be_closed_ends_alone() -> None:
    """Whatever it raises: a network disk may say only then that it has no room."""

    class Full(MemorySink):
        def close(self) -> None:
            super().close()
            raise OSError("no space")

    lane, sink, worker = make_lane("a")
    bad = SinkWorker("a", Full(), Channel[Result]("full:a", 2, "lossless"))
    lane.outputs.append(Outlet("a", "full", bad.inbox))
    with WorkerGroup() as group:
        group.start("full:a", bad.run)
        run_stages([(lane, worker, [make_frame("a", i) for i in range(20)])])
    assert isinstance(bad.error, OSError)
    assert bad.ended, "or a camera that begins anew would wait for it for ever"
    assert len(sink.results) == 20
