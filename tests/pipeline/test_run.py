"""Cameras that come and go while others are watched: the real run and stages, sources that do what a script says."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import av
import pytest

from streampose.errors import ModelError, PermanentSourceError
from streampose.messages import Array, Image, PoseResult
from streampose.pipeline.channel import Channel
from streampose.pipeline.detect_stage import Detected, DetectStage
from streampose.pipeline.lane import Result
from streampose.pipeline.outlet import PATIENCE_S, Outlet
from streampose.pipeline.pose_stage import EstimatesPose, PoseStage
from streampose.pipeline.produce import ProduceOptions, Producer
from streampose.pipeline.run import CameraRun, Run
from streampose.pipeline.sink_worker import SinkWorker
from streampose.pipeline.watchdog import Asked, Watchdog
from streampose.pipeline.workers import WorkerGroup
from streampose.sinks.jsonl import JsonlSink
from streampose.sinks.remux import Remuxer
from tests.pipeline.scripted import FAST, ScriptedSource
from tests.pipeline.test_stages import centred_points, make_lane, one_person

LIMIT_S = 20.0
Step: TypeAlias = tuple[Callable[[], bool], Callable[[], None]]


def make_run(estimator: EstimatesPose = centred_points) -> Run:
    group = WorkerGroup()
    between: Channel[Detected] = Channel("between", 2, "lossless")
    group.adopt(between)
    detect, pose = DetectStage({1.0: one_person}, between, 4), PoseStage(estimator, between, 4)
    stages = [("detect", detect.run), ("pose", pose.run)]
    return Run(group, stages, detect.add, detect.finish, (detect.asked, pose.asked))


def make_camera(run: Run, name: str, script: list[Any] | None = None) -> CameraRun:
    lane, _, worker = make_lane(name, "latest")
    script = script or [item for _ in range(2000) for item in (1, 0.01)]
    producer = Producer(name, lambda: ScriptedSource(script), lane.frames, lane.ledger, run.group, ProduceOptions(FAST))
    return CameraRun(lane, producer, [worker])


def execute(run: Run, steps: list[Step]) -> None:
    """Run, and as soon as the condition of the next step holds do what it says; stop after the last."""
    until_s = time.monotonic() + LIMIT_S
    left = iter([*steps, (lambda: True, run.stop)])
    step: Step | None = next(left)

    def tick() -> None:
        nonlocal step
        assert time.monotonic() < until_s or run.group.stopping.is_set(), "the next step never came"
        if step is not None and step[0]():
            step[1]()
            step = next(left, None)

    run.execute(tick, 0.02)


def watched(run: Run, name: str) -> bool:
    return name in run.cameras and run.cameras[name].lane.tally.frames > 0


def results(camera: CameraRun) -> list[PoseResult]:
    return [said for said in camera.sinks[0].sink.messages if isinstance(said, PoseResult)]  # type: ignore[attr-defined]


def test_a_camera_that_is_changed_again_before_it_could_begin_is_that_of_the_last_change() -> None:
    run = make_run()
    run.cameras = {"gate": make_camera(run, "gate"), "yard": make_camera(run, "yard")}
    first = run.cameras["gate"]
    made: list[str] = []

    def change(what: str) -> None:
        run.remove("gate")
        run.add_when_free("gate", lambda: made.append(what) or make_camera(run, "gate"))  # type: ignore[func-returns-value]

    def twice() -> None:
        change("second")
        change("third")

    execute(
        run,
        [
            (lambda: watched(run, "gate") and watched(run, "yard"), twice),
            (lambda: run.cameras.get("gate") not in (None, first) and watched(run, "gate"), lambda: None),
        ],
    )
    assert made == ["third"]
    assert len(run.all_cameras()) == 3
    assert all(results(camera) for camera in run.all_cameras())


def test_a_camera_that_is_taken_out_before_it_could_begin_never_does() -> None:
    run = make_run()
    run.cameras = {"gate": make_camera(run, "gate"), "yard": make_camera(run, "yard")}
    gone = run.cameras["gate"]

    def change_and_take_out() -> None:
        run.remove("gate")
        run.add_when_free("gate", lambda: make_camera(run, "gate"))
        run.remove("gate")

    execute(
        run,
        [
            (lambda: watched(run, "gate") and watched(run, "yard"), change_and_take_out),
            (gone.closed, lambda: None),
            (lambda: True, lambda: None),
        ],
    )
    assert list(run.cameras) == ["yard"]
    assert run.gone == [gone]


def test_a_camera_whose_file_never_closes_is_said_once_not_to_begin_and_begins_when_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipe that nobody reads stands for a disk that is gone: who opens it never comes back."""
    monkeypatch.setattr("streampose.pipeline.run.CLOSE_S", 0.2)
    pipe = tmp_path / "gate.jsonl"
    os.mkfifo(pipe)
    run = make_run()
    stuck = make_camera(run, "gate", [1, 60.0])
    inbox: Channel[Result] = Channel("jsonl:gate", 8, "lossless")
    stuck.sinks.append(SinkWorker("gate", JsonlSink(pipe, "gate", {}), inbox))
    stuck.lane.outputs.append(Outlet("gate", "jsonl", inbox, PATIENCE_S))
    run.cameras = {"gate": stuck, "yard": make_camera(run, "yard")}

    def change() -> None:
        run.remove("gate")
        run.add_when_free("gate", lambda: make_camera(run, "gate"))

    ticks = 0

    def said_and_some_time_later() -> bool:
        nonlocal ticks
        ticks += "gate" in caplog.text
        return ticks > 20

    reader: list[int] = []
    execute(
        run,
        [
            (lambda: watched(run, "gate") and watched(run, "yard"), change),
            (said_and_some_time_later, lambda: reader.append(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))),
            (lambda: watched(run, "gate"), lambda: None),
        ],
    )
    os.close(reader[0])
    assert [record.getMessage() for record in caplog.records if "gate" in record.getMessage()] == [
        "gate: not begun anew: jsonl has not closed its file for 0.2 s; it begins as soon as that is done: see to the "
        "disk, or end the run and choose another path"
    ]
    assert stuck.closed()


def test_a_stage_that_fails_while_the_other_waits_for_pictures_ends_the_run() -> None:
    def fail(images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]:
        time.sleep(0.1)  # the detect stage has handed on the only picture and waits for more
        raise RuntimeError("the pose stage has a bug")

    run = make_run(fail)
    run.cameras = {"gate": make_camera(run, "gate", [1, 60.0])}
    until_s = time.monotonic() + LIMIT_S

    def tick() -> None:
        assert time.monotonic() < until_s, "the run does not end"

    with pytest.raises(RuntimeError, match="the pose stage has a bug"):
        run.execute(tick, 0.02)
    assert run.cameras["gate"].closed()


def test_an_error_of_the_main_thread_leaves_no_stage_behind(caplog: pytest.LogCaptureFixture) -> None:
    run = make_run()
    run.cameras = {"gate": make_camera(run, "gate")}

    def tick() -> None:
        if watched(run, "gate"):
            raise ValueError("a bug of the main thread")

    with pytest.raises(ValueError, match="a bug of the main thread"):
        run.execute(tick, 0.02)
    assert "left behind" not in caplog.text
    assert run.cameras["gate"].closed()


def test_a_stage_that_hangs_while_another_fails_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streampose.pipeline.run.DRAIN_S", 0.3)
    hangs, back = threading.Event(), threading.Event()

    def hang(images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]:
        hangs.set()
        back.wait(2 * LIMIT_S)
        return centred_points(images, boxes)

    def fail() -> None:
        hangs.wait()
        raise RuntimeError("the third stage has a bug")

    run = make_run(hang)
    run.group.deadline_s = 0.3
    run.stages.append(("third", fail))
    run.cameras = {"gate": make_camera(run, "gate")}
    until_s = time.monotonic() + LIMIT_S

    def tick() -> None:
        assert time.monotonic() < until_s, "the run does not end"

    with pytest.raises(RuntimeError, match="the third stage has a bug"):
        run.execute(tick, 0.02)
    assert "left behind: pose" in caplog.text
    back.set()


def test_a_network_that_does_not_answer_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streampose.pipeline.watchdog.HUNG_S", 0.3)
    back = threading.Event()

    def hang(images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]:
        back.wait(2 * LIMIT_S)
        return centred_points(images, boxes)

    run = make_run(hang)
    run.group.deadline_s = 0.3
    run.cameras = {"gate": make_camera(run, "gate")}
    until_s = time.monotonic() + LIMIT_S

    def tick() -> None:
        assert time.monotonic() < until_s, "the run does not end"

    with pytest.raises(ModelError, match=r"^pose: its network has not answered for 0\.3 s"):
        run.execute(tick, 0.02)
    assert "left behind: pose" in caplog.text
    back.set()


def test_networks_that_answer_late_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call is shorter than the limit, all of them together are longer; and nobody waits while a process is stopped."""
    monkeypatch.setattr("streampose.pipeline.watchdog.HUNG_S", 10.0)
    now_s = 0.0
    monkeypatch.setattr("streampose.pipeline.watchdog.time", SimpleNamespace(monotonic=lambda: now_s))
    asked = Asked("pose")
    watchdog = Watchdog([asked])
    for _ in range(3):
        with asked.call():
            for _ in range(9):
                now_s += 1.0
                watchdog.look()
    with asked.call():
        now_s += 3600.0
        watchdog.look()
        for _ in range(9):
            now_s += 1.0
            watchdog.look()
        now_s += 1.0
        with pytest.raises(ModelError, match="pose: its network has not answered for 10 s"):
            watchdog.look()


@pytest.mark.parametrize("failing", ["stage", "main thread"])
def test_the_recorded_source_stream_is_closed_whatever_ends_the_run(
    failing: str, short_clip: Path, tmp_path: Path
) -> None:
    def fail(images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]:
        raise RuntimeError("a bug")

    run = make_run(fail if failing == "stage" else centred_points)
    camera = make_camera(run, "gate")
    tap = camera.tap = Remuxer(tmp_path / "gate.mp4", "gate")
    with av.open(str(short_clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        for packet in packets:
            tap.write(packet, container.streams.video[0])
    run.cameras = {"gate": camera}

    def tick() -> None:
        if failing == "main thread" and watched(run, "gate"):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run.execute(tick, 0.02)
    with av.open(str(tmp_path / "gate.mp4")) as container:
        assert sum(bool(packet.size) for packet in container.demux(video=0)) == len(packets)


class HangingTap:
    """Records a source's stream on a disk that does not answer."""

    error = None

    def __init__(self) -> None:
        self.back = threading.Event()
        self.asked = 0

    def close(self) -> None:
        self.asked += 1
        self.back.wait(2 * LIMIT_S)

    def closed(self) -> bool:
        return self.back.is_set()

    def outputs(self) -> tuple[str, ...]:
        return ("gate.source.mp4",)


def test_a_source_stream_that_cannot_be_closed_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the main thread, which must hear the next signal, nor the end."""
    run = make_run()
    run._closing.deadline_s = 0.2
    gate, yard = make_camera(run, "gate"), make_camera(run, "yard")
    tap = gate.tap = HangingTap()
    run.cameras = {"gate": gate, "yard": yard}
    execute(
        run,
        [
            (lambda: watched(run, "gate"), lambda: run.remove("gate")),
            (lambda: tap.asked > 0, lambda: None),
            (lambda: watched(run, "yard"), lambda: None),
        ],
    )
    assert (gate.closed(), yard.closed(), gate.whole(), tap.asked) == (True, True, False, 1)
    assert "left behind: close:gate" in caplog.text
    tap.back.set()


def test_a_thread_that_hangs_when_every_camera_is_closed_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As the one that deletes old files may on a network disk."""
    monkeypatch.setattr("streampose.pipeline.run.DRAIN_S", 0.3)
    back = threading.Event()
    run = make_run()
    run.group.deadline_s = 0.3

    def hang() -> None:
        back.wait(2 * LIMIT_S)

    run.stages.append(("third", hang))
    gone = PermanentSourceError("the camera is gone", kind="usage")
    run.cameras = {"gate": make_camera(run, "gate", [1, gone])}
    until_s = time.monotonic() + LIMIT_S

    def tick() -> None:
        assert time.monotonic() < until_s, "the run does not end"

    run.execute(tick, 0.02)
    assert run.cameras["gate"].closed()
    assert "left behind: third" in caplog.text
    back.set()
