"""Verify: agrees with what the sinks wrote, and sees every kind of tampering."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_results import make_info, make_person, make_result

from streampose.errors import DataError
from streampose.export.filmed import is_left_over
from streampose.export.verify import verify_folder
from streampose.export.video_times import read_video
from streampose.export.watch import list_watches
from streampose.messages import Break, Counts, End
from streampose.pose.skeleton import load_skeleton
from streampose.sinks.draw import DrawSkeleton
from streampose.sinks.jsonl import JsonlSink
from streampose.sinks.record import RecordSink
from streampose.sinks.reserve import Reserved
from tests.export.conftest import HEADER
from tests.export.tampering import edit, put, remove, without


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_what_the_sinks_wrote_agrees(ending: str, recorded: Callable[..., Path]) -> None:
    verdict = verify_folder(recorded(ending))
    assert verdict.disagreements == ()
    assert verdict.facts == (
        "gate: 100 frames in 1 record, 100 pictures in 2 videos; 7.360 s watched = 3.960 s seen + 3.400 s in 2 gaps",
    )


BURSTS = {
    "0.1 ms behind another": [index / 25 + 0.0001 * (index == 31) - 0.04 * (index == 31) for index in range(60)],
    "five within a millisecond": [index / 25 for index in range(30)] + [1.2 + i * 0.0003 for i in range(5)] + [1.24, 1.28],
    "1200 a second": [index / 1200 for index in range(100)],
}  # fmt: skip


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("times", BURSTS.values(), ids=BURSTS)
def test_pictures_closer_than_the_times_of_the_container_are_told_apart(
    times: list[float], ending: str, tmp_path: Path
) -> None:
    coco, folder = load_skeleton("coco17"), tmp_path / "out"
    sinks = (
        JsonlSink(folder / "gate.jsonl", "gate", HEADER),
        RecordSink(folder / f"gate.{ending}", "gate", DrawSkeleton(coco.sides, coco.edges)),
    )
    for sink in sinks:
        sink.write(Break("gate", 0, make_info()))
        for index, time_s in enumerate(times):
            sink.write(make_result(index, round(time_s, 6)))
        sink.write(End("gate", Counts(decoded=len(times))))
        sink.close()
    assert verify_folder(folder).disagreements == ()
    record = (folder / "gate.jsonl").read_text()
    edit(folder / "gate.jsonl", remove(33))
    lines = verify_folder(folder).disagreements
    assert any(re.search("1 pictures stand for|: 1 of .* have no frame at their time", line) for line in lines), lines
    (folder / "gate.jsonl").write_text(record)
    edit(folder / "gate.jsonl", lambda records: records.insert(33, records[33]))
    assert any(f"1 of {len(times) + 1} frames are in no video" in line for line in verify_folder(folder).disagreements)


def test_memory_is_that_of_one_camera_and_its_numbers(tmp_path: Path) -> None:
    def peak(folder: Path) -> int:
        tracemalloc.start()
        try:
            assert verify_folder(folder).disagreements == ()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    frames, peaks = 4000, {}
    for cameras in (1, 4):
        for number in range(cameras):
            name = f"gate{number}"
            sink = JsonlSink(tmp_path / str(cameras) / f"{name}.jsonl", name, HEADER)
            for index in range(frames):
                sink.write(make_result(index, camera=name, segment=index // 50, wall_s=1.8e9 + index / 25))
            sink.write(End(name, Counts(decoded=frames)))
            sink.close()
        verify_folder(tmp_path / str(cameras))
        peaks[cameras] = peak(tmp_path / str(cameras))
    assert peaks[1] < 144 * frames
    assert peaks[4] < 1.5 * peaks[1]


def test_files_that_roll_are_put_together(recorded: Callable[..., Path]) -> None:
    folder = recorded(segment_s=2)
    assert len(list(folder.rglob("*.mp4"))) == 3
    verdict = verify_folder(folder)
    assert verdict.disagreements == ()
    assert "100 frames in 3 records, 100 pictures in 3 videos" in verdict.facts[0]


def test_a_record_alone_can_be_proven_too(recorded: Callable[..., Path]) -> None:
    folder = recorded()
    for video in folder.glob("*.mp4"):
        video.unlink()
    verdict = verify_folder(folder)
    assert verdict.disagreements == ()
    assert "no video" in verdict.facts[0]


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
        (put(-1, coverage=1.0), "coverage is 1.0 in the footer and 0.538043 by its lines"),
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


def test_a_video_that_retention_takes_after_it_was_read_is_judged_as_it_was(recorded: Callable[..., Path]) -> None:
    folder = recorded()
    left = folder / "gate-9.mp4"
    left.write_bytes((folder / "gate.mp4").read_bytes())
    os.utime(left, (1e9, 1e9))
    video = read_video(left)
    assert video is not None
    left.unlink()
    watches, _ = list_watches(folder.glob("*.jsonl"), set())
    assert is_left_over(video, watches["gate"])


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
    assert any("gate-9.mp4: empty, as a run leaves it that is killed before it writes" in line for line in lines)
    just_begun.unlink()
    for sink in sinks:
        sink.write(End("gate", Counts(decoded=150)))
        sink.close()
    verdict = verify_folder(folder)
    assert verdict.disagreements == ()
    assert len(verdict.facts) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_what_a_run_is_going_to_write_is_no_disagreement_and_what_a_killed_one_left_is_said(
    recorded: Callable[..., Path],
) -> None:
    folder = recorded()
    path = (
        folder / "yard.MP4"
    )  # an ending that is not sought among the open files, as those of another user are not seen
    outputs = Reserved()
    outputs.take([path])
    assert verify_folder(folder).disagreements == ()
    outputs.keep(())
    for name in ("yard.MP4", "yard.jsonl"):
        (folder / name).touch()
    said = "empty, as a run leaves it that is killed before it writes; delete it"
    assert sorted(verify_folder(folder).disagreements) == [
        f"{folder / name}: {said}" for name in ("yard.MP4", "yard.jsonl")
    ]


def test_what_a_link_leads_to_is_checked_once(recorded: Callable[..., Path], tmp_path: Path) -> None:
    folder, disk = recorded(segment_s=2), tmp_path / "disk2"
    shutil.move(folder / "gate", disk)
    for name in ("gate", "again"):
        (folder / name).symlink_to(disk)
    (disk / "back").symlink_to(folder)
    verdict = verify_folder(folder)
    assert verdict.disagreements == ()
    assert "100 frames in 3 records, 100 pictures in 3 videos" in verdict.facts[0]
    edit(next(disk.rglob("*.jsonl")), remove(5))
    assert verify_folder(folder).disagreements


def test_what_may_not_be_entered_is_not_proven(recorded: Callable[..., Path]) -> None:
    """Root may enter everything, so it looks as somebody else; its folders for tests are closed to others."""
    with tempfile.TemporaryDirectory() as place:
        folder, mine = Path(shutil.copytree(recorded(), Path(place) / "out")), os.geteuid()
        shut, lost = folder / "shut", folder / "disk2"
        Path(place).chmod(0o755)
        shut.mkdir(mode=0)
        lost.symlink_to(Path(place) / "gone")
        if mine == 0:
            os.seteuid(65534)
        try:
            lines = verify_folder(folder).disagreements
        finally:
            os.seteuid(mine)
            shut.chmod(0o755)
    assert lines == (
        f"{lost}: a link that leads nowhere; what it led to is not proven",
        f"{shut}: cannot be entered (Permission denied); what lies in it is not proven",
    )


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


def test_a_video_whose_name_reads_as_a_protocol(
    recorded: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recorded())
    Path("gate.mp4").rename("10:30.mp4")
    verdict = verify_folder(Path())
    assert verdict.disagreements == ()
    assert "100 pictures in 2 videos" in verdict.facts[0]
