"""Sinks that hang: the real run, stages and records, and pipes nobody reads in the place of a disk that is gone."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from streampose.build import Built
from streampose.cli.reload import Reload
from streampose.config import validate
from streampose.errors import PermanentSourceError
from streampose.export.verify import verify_folder
from streampose.messages import Array, End, Gap, Image, Missed, PoseResult
from streampose.pipeline.channel import Channel
from streampose.pipeline.detect_stage import Detected, DetectStage
from streampose.pipeline.keeper import KeepOptions
from streampose.pipeline.lane import Result
from streampose.pipeline.outlet import PATIENCE_S, Outlet
from streampose.pipeline.pose_stage import PoseStage
from streampose.pipeline.produce import ProduceOptions, Producer
from streampose.pipeline.run import CameraRun, Run
from streampose.pipeline.sink_worker import SinkWorker
from streampose.pipeline.workers import WorkerGroup
from streampose.sinks.jsonl import JsonlSink
from tests.pipeline.scripted import ScriptedSource
from tests.pipeline.test_run import LIMIT_S, execute, make_camera, make_run, watched
from tests.pipeline.test_stages import centred_points, make_lane, one_person

HEADER = {"version": "0", "source": "test", "models": {}, "keypoints": [f"p{n}" for n in range(17)], "config": {}}
MANY = 60  # far more results than a pipe of one page and a channel hold


class Pipe:
    """A pipe that holds one page, as a file: who writes more waits until it is read."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # else who opens it to write would wait, too
        fcntl.fcntl(self._end, fcntl.F_SETPIPE_SZ, 4096)
        self._read = bytearray()
        self._thread: threading.Thread | None = None

    def read_on(self) -> None:
        """Begin to read, to the end."""
        os.set_blocking(self._end, True)
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def lines(self) -> list[dict[str, Any]]:
        """Every line that was written, once the writer has closed it."""
        assert self._thread is not None
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), "the record was never closed"
        return [json.loads(line) for line in self._read.splitlines()]

    def _drain(self) -> None:
        while data := os.read(self._end, 65536):
            self._read += data

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join(LIMIT_S)
        os.close(self._end)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    made = Pipe(tmp_path / "gate.jsonl")
    yield made
    made.close()


def add_record(camera: CameraRun, path: Path, patience_s: float | None = PATIENCE_S) -> Outlet:
    """One more sink of the camera, in front of its others: a record in `path`."""
    inbox: Channel[Result] = Channel(f"jsonl:{camera.name}", 8, "lossless")
    camera.sinks.append(SinkWorker(camera.name, JsonlSink(path, camera.name, HEADER), inbox))
    camera.lane.outputs.insert(0, Outlet(camera.name, "jsonl", inbox, patience_s))
    return camera.lane.outputs[0]


def make_recording(run: Run, name: str, pictures: int) -> CameraRun:
    lane, _, worker = make_lane(name, "lossless")
    source = ScriptedSource([pictures], live=False)
    keep = KeepOptions(live=False)
    return CameraRun(
        lane, Producer(name, lambda: source, lane.frames, lane.ledger, run.group, ProduceOptions(keep)), [worker]
    )


def after(camera: CameraRun, more: int) -> Callable[[], bool]:
    """Whether the camera has brought so many results more than when this was first asked."""
    began: list[int] = []

    def brought() -> bool:
        frames = camera.lane.tally.frames
        began.append(frames)
        return frames >= began[0] + more

    return brought


def said(camera: CameraRun) -> list[Result]:
    messages: list[Result] = camera.sinks[0].sink.messages  # type: ignore[attr-defined]
    return messages


def test_a_record_that_hangs_misses_results_and_no_camera_waits(
    pipe: Pipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its camera drops frames meanwhile, which must not gather in front of it."""
    run = make_run()
    bursts = [item for _ in range(2000) for item in (8, 0.02)]  # more pictures at once than wait for the networks
    gate, yard = make_camera(run, "gate", bursts), make_camera(run, "yard")
    record = add_record(gate, pipe.path)
    run.cameras = {"gate": gate, "yard": yard}
    execute(
        run,
        [
            (lambda: record.behind_since_s is not None, lambda: None),
            (after(gate, MANY), lambda: None),
            (after(yard, MANY), pipe.read_on),
            (lambda: record.behind_since_s is None, lambda: None),
            (after(gate, MANY), lambda: None),
        ],
    )
    lines = pipe.lines()
    frames, footer = [line for line in lines if line["type"] == "frame"], lines[-1]
    assert footer["complete"] is True
    assert footer["decoded"] == footer["written"] + sum(footer["dropped"].values()) + footer["corrupt"]
    assert footer["written"] == len(frames)
    results = [message.frame.index for message in said(gate) if isinstance(message, PoseResult)]
    lacking = set(results) - {frame["index"] for frame in frames}
    assert footer["dropped"]["unwritten"] == len(lacking) == record.missed >= MANY
    gaps = [line for line in lines if line["type"] == "gap" and line["cause"] == "unwritten"]
    assert sum(gap["frames"] for gap in gaps) == len(lacking)
    told = [message for message in said(gate) if isinstance(message, Missed)]
    assert [(m.sink, m.gap.frames) for m in told] == [("jsonl", gap["frames"]) for gap in gaps]

    assert gate.sinks[1].inbox.stats().peak < MANY / 2
    dropped = [message.frames or 0 for message in said(gate) if isinstance(message, Gap) and message.cause == "dropped"]
    gathered = [line["frames"] for line in lines if line["type"] == "gap" and line["cause"] == "dropped"]
    assert sum(gathered) == sum(dropped) == sum(footer["dropped"].values()) - len(lacking)
    assert len(gathered) < len(dropped)

    among = ("dropped", "unwritten")
    words = [
        m for m in said(gate) if not isinstance(m, PoseResult | Missed | End) and getattr(m, "cause", "") not in among
    ]
    kinds = {"Gap": "gap", "CameraState": "camera", "Break": "segment"}
    written = [line for line in lines if line["type"] in kinds.values() and line.get("cause") not in among]
    assert [line["type"] for line in written] == [kinds[type(word).__name__] for word in words]
    assert not any(isinstance(message, Gap) and message.cause == "unwritten" for message in said(gate))

    heard = [
        r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and "jsonl of gate" in r.getMessage()
    ]
    assert len(heard) == 2
    assert "results go on without it" in heard[0]
    assert f"has caught up; it missed {record.missed} results in" in heard[1]

    (tmp_path / "kept").mkdir()
    kept = tmp_path / "kept" / "gate.jsonl"
    kept.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert verify_folder(kept.parent).disagreements == ()


@pytest.fixture
def short_run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that waits at its end for what hangs, but not for long."""
    monkeypatch.setattr("streampose.pipeline.run.DRAIN_S", 0.3)
    run = make_run()
    run.group.deadline_s = 0.3
    return run


def test_a_record_that_hangs_for_good_does_not_hold_up_the_stop(
    pipe: Pipe, short_run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run = short_run
    gate, yard = make_camera(run, "gate"), make_camera(run, "yard")
    record = add_record(gate, pipe.path)
    run.cameras = {"gate": gate, "yard": yard}
    execute(run, [(lambda: record.missed > 0, lambda: None), (after(yard, 5), lambda: None)])
    assert not gate.sinks[1].ended
    assert gate.sinks[0].ended
    assert yard.closed()
    assert "left behind: jsonl:gate" in caplog.text
    pipe.read_on()
    footer = pipe.lines()[-1]
    assert (footer["type"], footer["complete"], footer["decoded"]) == ("footer", False, None)


def test_a_record_that_hangs_for_good_does_not_hold_up_the_end_of_its_camera(
    pipe: Pipe, short_run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run = short_run
    gone = PermanentSourceError("the camera is gone", kind="usage")
    gate = make_camera(run, "gate", [item for _ in range(MANY) for item in (1, 0.01)] + [gone])
    add_record(gate, pipe.path, 0.1)
    run.cameras = {"gate": gate}
    until_s = time.monotonic() + LIMIT_S

    def tick() -> None:
        assert time.monotonic() < until_s, "the run does not end"

    run.execute(tick, 0.02)
    assert gate.sinks[0].ended
    assert "jsonl of gate: nothing taken for" in caplog.text
    assert "left behind: jsonl:gate" in caplog.text
    pipe.read_on()


def test_a_recording_waits_for_its_record_and_a_live_camera_does_not_wait_for_the_recording(pipe: Pipe) -> None:
    run = make_run()
    clip, yard = make_recording(run, "gate", 2 * MANY), make_camera(run, "yard")
    record = add_record(clip, pipe.path, None)
    inbox = clip.sinks[1].inbox
    run.cameras = {"gate": clip, "yard": yard}
    execute(
        run,
        [
            (lambda: watched(run, "yard") and inbox.stats().waiting >= 8 and inbox.idle_s() > 0.2, lambda: None),
            (after(yard, MANY), lambda: None),
            (lambda: clip.lane.tally.frames < MANY, pipe.read_on),
            (clip.closed, lambda: None),
        ],
    )
    lines = pipe.lines()
    assert [line["index"] for line in lines if line["type"] == "frame"] == list(range(2 * MANY))
    assert lines[-1]["dropped"] == {}
    assert record.missed == 0


def test_a_camera_that_comes_when_nothing_but_a_sink_is_left_is_refused(
    pipe: Pipe, caplog: pytest.LogCaptureFixture
) -> None:
    """It would never begin."""
    run = make_run()
    clip = make_recording(run, "gate", 6)
    add_record(clip, pipe.path, None)
    run.cameras = {"gate": clip}
    later = validate({"cameras": {"gate": {"url": "a.mp4"}, "new": {"url": "b.mp4"}}, "sinks": []})
    built = Built(run, None, lambda config, name: pytest.fail("made"))
    reading = WorkerGroup()
    before = later.model_copy(update={"cameras": {"gate": later.cameras["gate"]}})
    again = Reload(built, before, lambda: later, reading)
    execute(run, [(lambda: clip.lane.tally.state == "ended" and run.ending, again.begin), (lambda: True, pipe.read_on)])
    assert not again.under_way
    assert [r.getMessage() for r in caplog.records if "reload" in r.getMessage()] == [
        "reload: the run is ending; nothing is changed"
    ]
    assert [line["index"] for line in pipe.lines() if line["type"] == "frame"] == list(range(6))


def test_a_recording_whose_record_hangs_does_not_hold_up_the_end_by_a_stage_that_fails(
    pipe: Pipe, short_run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """Another camera goes on, and one of its pictures is too much for a network."""
    run = short_run
    clip, yard = make_recording(run, "gate", 2 * MANY), make_camera(run, "yard")
    add_record(clip, pipe.path, None)
    inbox = clip.sinks[1].inbox
    hangs = threading.Event()

    def detect(images: Sequence[Image]) -> list[tuple[Array, Array]]:
        if hangs.is_set():
            raise RuntimeError("the detect stage has a bug")
        return one_person(images)

    between: Channel[Detected] = Channel("between", 2, "lossless")
    run.group.adopt(between)
    detector, pose = DetectStage({1.0: detect}, between, 4), PoseStage(centred_points, between, 4)
    run.stages = [("detect", detector.run), ("pose", pose.run)]
    run.join_lane, run.no_more_lanes = detector.add, detector.finish
    run.cameras = {"gate": clip, "yard": yard}
    until_s = time.monotonic() + LIMIT_S

    def tick() -> None:
        if inbox.stats().waiting >= 8 and inbox.idle_s() > 0.2:
            hangs.set()
        if time.monotonic() > until_s:
            pipe.read_on()  # lets the record go, so that a run that does not end fails here and not for ever
            raise AssertionError("the run does not end")

    with pytest.raises(RuntimeError, match="the detect stage has a bug"):
        run.execute(tick, 0.02)
    assert yard.closed()
    assert clip.sinks[0].ended
    assert "left behind: jsonl:gate" in caplog.text
    pipe.read_on()
