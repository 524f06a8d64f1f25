"""`streampose verify`: two sinks, one that hung, and one whose disk was full."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import make_info, make_person, make_result

from streampose.export.verify import verify_folder
from streampose.export.video_times import read_video
from streampose.messages import Break, Counts, End, Gap
from streampose.pipeline.channel import Channel
from streampose.pipeline.lane import Result
from streampose.pipeline.outlet import Outlet
from streampose.pipeline.sink_worker import SinkWorker
from streampose.pipeline.workers import WorkerGroup
from streampose.pose.skeleton import load_skeleton
from streampose.sinks.draw import DrawOptions, DrawSkeleton
from streampose.sinks.jsonl import JsonlSink
from streampose.sinks.record import RecordSink
from tests.export.conftest import HEADER
from tests.export.tampering import edit, put, without
from tests.pipeline.test_stages import make_lane


@pytest.fixture
def twice(tmp_path: Path) -> Path:
    """What two sinks recorded of a camera that connected anew after 50 of 100 frames."""
    coco, folder = load_skeleton("coco17"), tmp_path / "twice"
    skeleton, black = DrawSkeleton(coco.sides, coco.edges), DrawOptions(background="black")
    sinks = (
        JsonlSink(folder / "{camera}.jsonl", "gate", HEADER),
        RecordSink(folder / "{camera}.mp4", "gate", skeleton),
        RecordSink(folder / "{camera}-black.mp4", "gate", skeleton, black),
    )
    for sink in sinks:
        sink.write(Break("gate", 0, make_info(live=True)))
        for index in range(100):
            if index == 50:
                sink.write(Gap("gate", "disconnected", 2.0, 4.0))
                sink.write(Break("gate", 1, make_info(live=True), "reconnected"))
            sink.write(make_result(index, index / 25 + 2 * (index >= 50), [make_person(1)], segment=int(index >= 50)))
        sink.write(End("gate", Counts(decoded=100)))
        sink.close()
    return folder


def test_each_of_two_sinks_recorded_every_frame(twice: Path) -> None:
    verdict = verify_folder(twice)
    assert verdict.disagreements == ()
    assert "100 frames in 1 record, 200 pictures in 4 videos" in verdict.facts[0]


@pytest.mark.parametrize("lost", ["gate.mp4", "gate-2.mp4", "gate-black.mp4", "gate-black-2.mp4"])
def test_what_one_of_two_sinks_lacks_is_not_made_good_by_the_other(lost: str, twice: Path) -> None:
    (twice / lost).unlink()
    (line,) = verify_folder(twice).disagreements
    assert "50 of 100 frames are in no video, first at" in line


@pytest.fixture
def hung(tmp_path: Path) -> Path:
    """Record and video of a camera whose disk hung twice: 100 frames at 25 a second; the record lacks 20 to 49 and the
    video 40 to 69, and the camera connected anew at frame 30."""
    coco = load_skeleton("coco17")
    header = {"version": "0", "source": "test", "models": {}, "keypoints": list(coco.keypoints), "config": {}}
    folder = tmp_path / "hung"
    lane, _, _ = make_lane("gate", "latest")
    sinks = (
        JsonlSink(folder / "gate.jsonl", "gate", header),
        RecordSink(folder / "gate.mp4", "gate", DrawSkeleton(coco.sides, coco.edges)),
    )
    channels: list[Channel[Result]] = [Channel(sink.name, 1, "lossless") for sink in sinks]
    lane.outputs[:] = [Outlet("gate", sink.name, c, 0.0) for sink, c in zip(sinks, channels, strict=True)]

    def take(number: int) -> None:
        while channels[number].stats().waiting:
            sinks[number].write(channels[number].get())

    lane.put_out(Break("gate", 0, make_info(live=True)))
    for index in range(100):
        if index == 30:
            lane.put_out(Gap("gate", "disconnected", 1.2, 2.2, None, 1.8e9 + 1.2, 1.8e9 + 2.2))
            lane.put_out(Break("gate", 1, make_info(live=True), "reconnected"))
        time_s = index / 25 + (index >= 30)
        lane.put_out(make_result(index, time_s, [make_person(1)], wall_s=1.8e9 + time_s, segment=int(index >= 30)))
        if not 19 <= index < 49:
            take(0)
        if not 39 <= index < 69:
            take(1)
    lane.put_out(End("gate", Counts(decoded=100)))
    for number, sink in enumerate(sinks):
        take(number)
        sink.close()
    return folder


def test_what_a_sink_that_hung_lacks_is_no_disagreement(hung: Path) -> None:
    verdict = verify_folder(hung)
    assert verdict.disagreements == ()
    assert "70 frames in 1 record, 70 pictures in 2 videos" in verdict.facts[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("missed"), "20 of 70 frames are in no video, first at 3.000 s, last at 3.760 s"),
        (without("gap"), "frames between 0.760 and 3.000 s are in neither the frames nor the gaps"),
        (without("gap"), "no record here has a frame at its beginning (gate)"),
        (put(-1, dropped={"unwritten": 29}), "the footer counts 29 frames that were not written, the gaps tell of 30"),
    ],
)
def test_what_a_sink_that_hung_lacks_must_be_told(
    change: Callable[[list[dict[str, Any]]], None], words: str, hung: Path
) -> None:
    edit(hung / "gate.jsonl", change)
    lines = verify_folder(hung).disagreements
    assert any(words in line for line in lines), lines


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk on which no file grows beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_what_a_sink_that_ended_on_a_full_disk_lacks_is_told(
    ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also what waited before it, what the encoder held, and the half fragment that was taken back."""
    coco = load_skeleton("coco17")
    video = tmp_path / f"gate.{ending}"
    workers = [
        SinkWorker("gate", sink, Channel[Result](sink.name, 8, "lossless"))
        for sink in (
            JsonlSink(tmp_path / "gate.jsonl", "gate", HEADER),
            RecordSink(video, "gate", DrawSkeleton(coco.sides, coco.edges)),
        )
    ]
    lane, _, _ = make_lane("gate")
    lane.outputs[:] = [Outlet("gate", worker.sink.name, worker.inbox) for worker in workers]
    noise = np.random.default_rng(0)
    with largest_file(1_000_000), WorkerGroup() as group:
        for worker in workers:
            group.start(worker.sink.name, worker.run)
        lane.put_out(Break("gate", 0, make_info()))
        for index in range(150):
            image = noise.integers(0, 255, (120, 160, 3)).astype(np.uint8)
            lane.put_out(make_result(index, image=image))
        lane.put_out(End("gate", Counts(decoded=150)))
        for output in lane.outputs:
            output.close()
    assert "record of gate ended" in caplog.text
    missed = [json.loads(line) for line in (tmp_path / "gate.jsonl").read_text().splitlines() if '"missed"' in line]
    written = read_video(video)
    assert written is not None
    lacking = sum(line["frames"] for line in missed)
    held = 0 if ending == "mp4" else 25  # nobody knows how much of a second of Matroska was written
    assert 150 - len(written.times_s) <= lacking <= 150 - len(written.times_s) + held
    assert 25 <= len(written.times_s) < 125
    verdict = verify_folder(tmp_path)
    assert verdict.disagreements == ()
    assert "150 frames in 1 record" in verdict.facts[0]
