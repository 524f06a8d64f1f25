"""Verify: agrees with what the sinks wrote, and sees every kind of tampering."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import make_info, make_person, make_result

from streampose.errors import DataError
from streampose.export.verify import verify_folder
from streampose.export.video_times import read_video
from streampose.messages import Break, Counts, End, Gap
from streampose.pipeline.channel import Channel
from streampose.pipeline.lane import Result
from streampose.pipeline.ledger import CameraLedger
from streampose.pipeline.outlet import Outlet
from streampose.pipeline.produce import HOLE_S, HOLE_STEPS
from streampose.pipeline.sink_worker import SinkWorker
from streampose.pipeline.workers import WorkerGroup
from streampose.pose.skeleton import load_skeleton
from streampose.sinks.draw import DrawOptions, DrawSkeleton
from streampose.sinks.jsonl import JsonlSink
from streampose.sinks.record import RecordSink
from tests.export.conftest import HEADER
from tests.pipeline.test_stages import make_lane


def edit(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    change(records)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_what_the_sinks_wrote_agrees(ending: str, recorded: Callable[..., Path]) -> None:
    verdict = verify_folder(recorded(ending))
    assert verdict.disagreements == ()
    assert verdict.facts == (
        "gate: 100 frames in 1 record, 100 pictures in 2 videos; 7.360 s watched = 3.960 s seen + 3.400 s in 2 gaps",
    )


def test_files_that_roll_are_put_together(recorded: Callable[..., Path]) -> None:
    folder = recorded(segment_s=2)
    assert len(list(folder.rglob("*.mp4"))) == 3
    verdict = verify_folder(folder)
    assert verdict.disagreements == ()
    assert "100 frames in 3 records, 100 pictures in 3 videos" in verdict.facts[0]


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


def test_a_record_alone_can_be_proven_too(recorded: Callable[..., Path]) -> None:
    folder = recorded()
    for video in folder.glob("*.mp4"):
        video.unlink()
    verdict = verify_folder(folder)
    assert verdict.disagreements == ()
    assert "no video" in verdict.facts[0]


def remove(position: int) -> Callable[[list[dict[str, Any]]], None]:
    return lambda records: records.pop(position) and None


def put(position: int, **fields: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda records: records[position].update(fields)


def without(kind: str) -> Callable[[list[dict[str, Any]]], None]:
    def change(records: list[dict[str, Any]]) -> None:
        records[:] = [record for record in records if record["type"] != kind]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove(10), "the footer counts 100 frames, the file holds 99"),
        (remove(10), "1 of 70 pictures have no frame at their time, first picture 8 at 0.320 s"),
        (remove(10), "1 frames between 0.280 and 0.360 s are in neither the frames nor the gaps"),
        (put(10, time=0.33), "pictures have no frame at their time, first picture 8"),
        (put(10, time=0.2), "frame 8 is at 0.200 s, before the frame before it"),
        (put(10, index=7), "frame 7 follows frame 7; indices must grow"),
        (without("gap"), "10 frames between 1.960 and 2.400 s are in neither"),
        (without("gap"), "3.0 s between 3.160 and 6.200 s are in neither"),
        (without("gap"), "the footer counts 2 gaps, the record holds 0"),
        (without("gap"), "gap_s is 3.4 in the footer and 0.000000 by its lines"),
        (without("footer"), "no footer: the run was cut short; its counts cannot be proven"),
        (put(-1, decoded=113), "decoded 113 is not written 100 + dropped 10 + corrupt 2"),
        (put(-2, index=200), "frame 200 cannot be among 112 decoded"),
        (put(-1, complete=False, error="killed"), "the record says it is not complete: killed"),
        (put(-1, watched_s=8.0), "watched_s is 8.0 in the footer and 7.360000"),
        (put(52, start=1.0), "lies in the gap 1.000 to 2.400 s"),
    ],
)  # fmt: skip
def test_every_tampering_is_a_line(
    change: Callable[[list[dict[str, Any]]], None], words: str, recorded: Callable[..., Path]
) -> None:
    folder = recorded()
    edit(folder / "gate.jsonl", change)
    lines = verify_folder(folder).disagreements
    assert any(words in line for line in lines), lines
    assert all("\n" not in line for line in lines)


def test_a_frame_exactly_between_two_gaps_lies_in_neither(tmp_path: Path) -> None:
    path = tmp_path / "gate.jsonl"
    sink = JsonlSink(path, "gate", HEADER)
    sink.write(Break("gate", 0, make_info(live=True)))
    for time_s, gap in ((0.0, (0.0, 1.5)), (1.5, (1.5, 3.0)), (3.0, None)):
        sink.write(make_result(int(time_s / 1.5), time_s))
        if gap is not None:
            sink.write(Gap("gate", "stalled", *gap))
    sink.write(End("gate", Counts(decoded=3)))
    assert verify_folder(tmp_path).disagreements == ()
    edit(path, lambda records: next(record for record in records if record["type"] == "gap").update(end=1.6))
    lines = verify_folder(tmp_path).disagreements
    assert "gate: frame 1 at 1.500 s lies in the gap 0.000 to 3.000 s" in lines


def test_a_damaged_frame_between_two_that_follow_closely_is_told_by_a_gap_without_length(tmp_path: Path) -> None:
    """A decoder that holds pictures back finds the damage before it gives those in front of it."""
    path = tmp_path / "gate.jsonl"
    sink = JsonlSink(path, "gate", HEADER)
    sink.write(Break("gate", 0, make_info()))
    for index in (0, 1, 3, 4, 6):
        if index == 3:
            sink.write(Gap("gate", "corrupt", 0.08, 0.08, 1))
        if index == 6:
            sink.write(Gap("gate", "corrupt", 0.16, 0.2, 1))
        sink.write(make_result(index, {3: 0.08, 4: 0.12, 6: 0.2}.get(index, index / 25)))
    sink.write(End("gate", Counts(decoded=7, corrupt=2)))
    assert verify_folder(tmp_path).disagreements == ()
    edit(path, lambda records: records.remove(next(record for record in records if record["type"] == "gap")))
    lines = verify_folder(tmp_path).disagreements
    assert "gate: 1 frames between 0.040 and 0.080 s are in neither the frames nor the gaps" in lines


@pytest.mark.parametrize(
    ("missing", "live", "gap"),
    [
        (True, True, (0.4, 0.5)),
        (True, True, (2.0, 4.0)),
        (True, True, (0.7, 4.0)),
        (True, True, (0.4, 3.9)),
        (True, False, (0.4, 0.5)),
        (True, False, (2.0, 3.9)),
        (False, True, (0.4, 0.7)),
        (False, True, (2.0, 36.0)),
    ],
)
def test_a_gap_that_covers_a_part_alone_leaves_the_rest_untold(
    missing: bool, live: bool, gap: tuple[float, float], tmp_path: Path
) -> None:
    """Frames 10 to 99 are missing, or the camera was silent; each of 4 seconds or 40."""
    path = tmp_path / "gate.jsonl"
    end_s = 4.0 if missing else 40.0
    for number, told in enumerate([(0.4, end_s), gap]):
        sink = JsonlSink(path, "gate", HEADER)
        sink.write(Break("gate", 0, make_info(live=live)))
        for index in range(10):
            sink.write(make_result(index, index / 25))
        sink.write(Gap("gate", "dropped" if missing else "stalled", *told, frames=90 if missing else None))
        for index in range(10):
            sink.write(make_result(index + (100 if missing else 10), end_s + index / 25))
        sink.write(End("gate", Counts(decoded=110, dropped={"newest wins": 90}) if missing else Counts(decoded=20)))
        sink.close()
        lines = verify_folder(tmp_path).disagreements
        assert len(lines) == number, lines
        assert all("s are in neither the frames nor the gaps" in line for line in lines)


STUTTER_S = HOLE_S - 0.01


@pytest.mark.parametrize(
    ("steps_s", "dropped", "live"),
    [
        ([0.04] * 99 + [STUTTER_S] + [0.04] * 400, range(100, 102), True),
        ([0.04] * 99 + [STUTTER_S] + [0.04] * 400, [i for i in range(100, 500) if i % 3], True),
        ([0.2] * 99 + [HOLE_STEPS * 0.2 - 0.01] + [0.2] * 400, range(100, 101), True),
        ([1.9] + [0.04] * 500, range(1, 3), True),
        ([1.9] + [0.04] * 9 + [0.9] + [0.04] * 500, [1, 2, 3, 11], True),
        ([0.04] * 9 + [60.0] + [0.04] * 50, range(10, 11), False),
    ],
)
def test_a_picture_that_is_dropped_after_a_stutter_is_no_disagreement(
    steps_s: list[float], dropped: Sequence[int], live: bool, tmp_path: Path
) -> None:
    """A step that the producer takes for no hole has no gap: up to its limits, the first one, and all of a recording."""
    sink, ledger = JsonlSink(tmp_path / "gate.jsonl", "gate", HEADER), CameraLedger("gate")
    sink.write(Break("gate", 0, make_info(live=live)))
    results = [make_result(index, float(time_s)) for index, time_s in enumerate(np.cumsum([0.0, *steps_s]))]
    for result in results:
        ledger.decoded(result.frame)
    for result in results:
        if result.frame.index in dropped:
            ledger.drop(result.frame)
            continue
        for gap in ledger.settle(result.frame):
            sink.write(gap)
        sink.write(result)
    for gap in ledger.finish():
        sink.write(gap)
    sink.write(End("gate", ledger.counts))
    sink.close()
    assert verify_folder(tmp_path).disagreements == ()


def test_times_that_are_not_those_of_the_stamps(recorded: Callable[..., Path]) -> None:
    folder = recorded()

    def change(records: list[dict[str, Any]]) -> None:
        for record in records[20:30]:
            record["pts"] += 90000

    edit(folder / "gate.jsonl", change)
    (line,) = verify_folder(folder).disagreements
    assert (
        line == "gate: segment 0: the times of 10 of 70 frames are not those of their stamps, first frame 18 at 0.720 s"
    )


def test_a_stamp_alone_may_be_another_one(recorded: Callable[..., Path]) -> None:
    """The clock bridges the first picture of a source whose clock was set: it could be a single absurd stamp."""
    folder = recorded()

    def change(records: list[dict[str, Any]]) -> None:
        frames = [record for record in records if record["type"] == "frame"]
        [record for record in frames if record["segment"] == 0][-1]["pts"] += 10**9

    edit(folder / "gate.jsonl", change)
    assert verify_folder(folder).disagreements == ()


def test_a_stamp_that_is_repeated_tells_no_time(recorded: Callable[..., Path]) -> None:
    folder = recorded()

    def change(records: list[dict[str, Any]]) -> None:
        for record in records[20:24]:
            record["pts"] = records[19]["pts"]

    edit(folder / "gate.jsonl", change)
    assert verify_folder(folder).disagreements == ()


def test_a_counter_that_wrapped_is_no_disagreement(recorded: Callable[..., Path]) -> None:
    folder = recorded()

    def change(records: list[dict[str, Any]]) -> None:
        for record in records:
            if record["type"] == "frame":
                record["pts"] = (record["pts"] + 2**33 - 30000) % 2**33

    edit(folder / "gate.jsonl", change)
    assert verify_folder(folder).disagreements == ()


def test_a_video_of_another_run_and_a_lost_one(recorded: Callable[..., Path]) -> None:
    folder = recorded(segment_s=2)
    videos = sorted(folder.rglob("*.mp4"))
    videos[1].unlink()
    (line,) = verify_folder(folder).disagreements
    assert "frames are in no video, first at 2.400 s" in line

    def shift(records: list[dict[str, Any]]) -> None:
        for record in records:
            if record["type"] == "frame":
                record["time"] += 100

    for path in folder.rglob("*.jsonl"):
        edit(path, shift)
    lines = verify_folder(folder).disagreements
    assert sum("no record here has a frame at its beginning (gate)" in line for line in lines) == 2


def test_a_video_that_an_earlier_run_left_is_no_disagreement(recorded: Callable[..., Path]) -> None:
    """A run of fewer breaks writes fewer files than the one before it, and takes none away."""
    folder = recorded()
    left = folder / "gate-9.mp4"
    left.write_bytes((folder / "gate.mp4").read_bytes())

    def later(records: list[dict[str, Any]]) -> None:
        for record in records:
            if record["type"] == "frame":
                record["time"] += 100

    edit(folder / "gate.jsonl", later)
    (folder / "gate.mp4").unlink()
    assert any("gate-9.mp4: no record here" in line for line in verify_folder(folder).disagreements)
    os.utime(left, (1e9, 1e9))
    verdict = verify_folder(folder)
    assert not any("gate-9.mp4" in line for line in verdict.disagreements)
    assert any("gate-9.mp4: older than every record" in line for line in verdict.facts)


def test_two_watches_that_begin_alike_are_told_apart_by_their_wall_time(recorded: Callable[..., Path]) -> None:
    """A camera that was changed while running begins at 0 again, an hour later by the wall."""
    folder = recorded()
    first = (folder / "gate.jsonl").read_text()

    def an_hour_later(records: list[dict[str, Any]]) -> None:
        for record in records:
            if record["type"] == "header":
                record["run"] = "2027-01-15T09:00:00Z"
            if record["type"] == "frame":
                record["wall"] = record["wall"].replace("T08:", "T09:")

    edit(folder / "gate.jsonl", an_hour_later)
    (folder / "gate-again.jsonl").write_text((folder / "gate.jsonl").read_text())
    (folder / "gate.jsonl").write_text(first)
    verdict = verify_folder(folder)
    assert verdict.disagreements == ()
    assert sorted("in 2 videos" in fact for fact in verdict.facts) == [False, True]
    assert sum("no video" in fact for fact in verdict.facts) == 1


def test_two_runs_of_one_recording_keep_their_videos(recorded: Callable[..., Path]) -> None:
    """Nothing in the files tells them apart; a video belongs to the record beside it, and there to that of its name."""
    folder = recorded()

    def another_run(records: list[dict[str, Any]]) -> None:
        records[0]["run"] = "2027-01-15T09:00:00Z"

    for name in ("again", "beside"):
        shutil.copytree(folder, folder.parent / name)
    shutil.copytree(folder.parent / "again", folder / "a")
    edit(folder / "a" / "gate.jsonl", another_run)
    for path in sorted((folder.parent / "beside").iterdir()):
        path.rename(folder / path.name.replace("gate", "b"))
    edit(folder / "b.jsonl", lambda records: records[0].update(run="2027-01-15T10:00:00Z"))
    verdict = verify_folder(folder)
    assert verdict.disagreements == ()
    assert len(verdict.facts) == 3
    assert all("100 pictures in 2 videos" in fact for fact in verdict.facts)


def test_a_broken_video_is_a_line(recorded: Callable[..., Path]) -> None:
    folder = recorded()
    (folder / "other.mp4").write_bytes(b"nothing of the kind")
    (line,) = verify_folder(folder).disagreements
    assert line == f"{folder / 'other.mp4'}: not a video that can be read (Invalid data found when processing input)"


def test_a_missing_part_is_a_line(recorded: Callable[..., Path]) -> None:
    folder = recorded(segment_s=2)
    sorted(folder.rglob("*.jsonl"))[1].unlink()
    assert any(
        "parts [1, 3] of the record are here, not 1 to 3" in line for line in verify_folder(folder).disagreements
    )


def parts(folder: Path, ending: str) -> list[Path]:
    return sorted(folder.rglob(f"*.{ending}"))


def test_a_beginning_that_retention_took_is_said_and_the_rest_is_checked(recorded: Callable[..., Path]) -> None:
    folder = recorded(segment_s=2)
    for ending in ("jsonl", "mp4"):
        parts(folder, ending)[0].unlink()
    verdict = verify_folder(folder)
    assert verdict.disagreements == ()
    assert verdict.facts[0].startswith("gate: 50 frames in 2 records, 50 pictures in 2 videos")
    assert verdict.facts[1:] == ("gate: part 1 of its record is gone: only what is left is checked",)
    for ending in ("jsonl", "mp4"):
        parts(folder, ending)[0].unlink()
    verdict = verify_folder(folder)
    assert verdict.disagreements == ()
    assert verdict.facts[1:] == ("gate: parts 1 to 2 of its record are gone: only what is left is checked",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove(10), "frames, the file holds 29"),
        (remove(10), "1 of 30 pictures have no frame at their time"),
        (put(-1, decoded=113), "decoded 113 is not written 100 + dropped 10 + corrupt 2"),
        (put(-1, written=29, decoded=41), "the footer counts 29 frames written, the record holds 30"),
        (put(-1, written=150, decoded=162), "120 frames cannot have been written before frame 80"),
        (put(-1, watched_s=1.0), "watched_s is 1.0 in the footer and 1.160000 by its lines"),
        (put(-1, complete=False, error="killed"), "the record says it is not complete: killed"),
        (without("footer"), "no footer: the run was cut short; its counts cannot be proven"),
    ],
)
def test_what_retention_left_is_still_proven(
    change: Callable[[list[dict[str, Any]]], None], words: str, recorded: Callable[..., Path]
) -> None:
    folder = recorded(segment_s=2)
    for ending in ("jsonl", "mp4"):
        for path in parts(folder, ending)[:2]:
            path.unlink()
    edit(parts(folder, "jsonl")[0], change)
    lines = verify_folder(folder).disagreements
    assert any(words in line for line in lines), lines


def test_retention_may_stop_between_a_record_and_its_video(recorded: Callable[..., Path]) -> None:
    folder = recorded(segment_s=2)
    record, video = parts(folder, "jsonl")[0], parts(folder, "mp4")[0]
    video.rename(folder / "gone")
    assert any("50 of 100 frames are in no video" in line for line in verify_folder(folder).disagreements)
    for path in parts(folder, "jsonl"):
        edit(path, put(0, config={"sinks": [{"record": {"segment": 2.0, "keep": 60.0}}]}))
    verdict = verify_folder(folder)
    assert verdict.disagreements == ()
    assert verdict.facts[1:] == ("gate: 50 frames of the beginning came before every video that is left",)
    (folder / "gone").rename(video)
    record.unlink()
    verdict = verify_folder(folder)
    assert verdict.disagreements == ()
    assert verdict.facts[0].startswith("gate: 50 frames in 2 records, 100 pictures in 3 videos")

    def another_day(records: list[dict[str, Any]]) -> None:
        for record in records:
            if record["type"] == "frame":
                record["wall"] = record["wall"].replace("2027-01-15", "2027-01-16")

    for path in parts(folder, "jsonl"):
        edit(path, another_day)
    assert any("no record here has a frame at its beginning" in line for line in verify_folder(folder).disagreements)


def test_a_missing_end_is_a_line(recorded: Callable[..., Path]) -> None:
    folder = recorded(segment_s=2)
    parts(folder, "jsonl")[-1].unlink()
    assert (
        f"{parts(folder, 'jsonl')[-1]}: its footer says that another part follows, and none is here"
        in verify_folder(folder).disagreements
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which files are being written")
@pytest.mark.parametrize("segment_s", [None, 2.0])
def test_what_is_being_written_is_no_disagreement_and_what_was_cut_short_is(
    segment_s: float | None, tmp_path: Path
) -> None:
    coco = load_skeleton("coco17")
    folder = tmp_path / "out"
    sinks = (
        JsonlSink(folder / "{camera}.jsonl", "gate", HEADER, segment_s=segment_s),
        RecordSink(folder / "{camera}.mp4", "gate", DrawSkeleton(coco.sides, coco.edges), segment_s=segment_s),
    )
    for sink in sinks:
        sink.write(Break("gate", 0, make_info(live=True)))
        for index in range(150):
            sink.write(make_result(index, index / 25, [make_person(1)], wall_s=1.8e9 + index / 25))
    just_begun = folder / "gate-9.mp4"
    just_begun.touch()
    verdict = verify_folder(folder)
    newest = parts(folder, "jsonl")[-1]
    assert verdict.disagreements == ()
    assert verdict.facts[-1] == f"gate: its record is being written: checked up to {newest} as it was"
    shutil.copytree(folder, tmp_path / "killed")
    lines = verify_folder(tmp_path / "killed").disagreements
    assert any("no footer: the run was cut short; its counts cannot be proven" in line for line in lines)
    assert any("gate-9.mp4: not a video that can be read" in line for line in lines)
    just_begun.unlink()
    for sink in sinks:
        sink.write(End("gate", Counts(decoded=150)))
        sink.close()
    verdict = verify_folder(folder)
    assert verdict.disagreements == ()
    assert len(verdict.facts) == 1


def test_nothing_to_verify_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no result here"):
        verify_folder(tmp_path)
    (tmp_path / "gate.jsonl").write_text("frame,id\n")
    with pytest.raises(DataError, match=r"gate\.jsonl: line 1: not JSON"):
        verify_folder(tmp_path)
    for name in ("x", "long" * 80):
        with pytest.raises(DataError, match="not a folder"):
            verify_folder(tmp_path / name)


def test_the_times_in_a_video_are_camera_times(recorded: Callable[..., Path]) -> None:
    folder = recorded()
    first, last = read_video(folder / "gate.mp4"), read_video(folder / "gate-2.mp4")
    assert first is not None
    assert last is not None
    assert (first.camera, first.mode) == ("gate", "annotated")
    assert first.times_s[0] == 0.0
    assert last.times_s[-1] == pytest.approx(7.36, abs=last.tolerance_s)


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
