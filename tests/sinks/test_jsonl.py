"""The JSONL record: every kind of line against the published schema, counts that reconcile, lines that are whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import make_info, make_person, make_result

from streampose.errors import SinkError
from streampose.export.verify import verify_folder
from streampose.messages import Break, CameraState, Counts, Degrade, End, Gap, Missed
from streampose.sinks.jsonl import JsonlSink
from streampose.sinks.records import rfc3339

HEADER = {
    "version": "0.1.0",
    "source": "rtsp://***@camera/stream",
    "models": {"pose": {"name": "litehrnet18", "sha256": "ab" * 32}},
    "keypoints": [f"p{number}" for number in range(17)],
    "config": {"detect": {"threshold": 0.4}},
}
SCHEMA = json.loads((files("streampose") / "schema" / "result.schema.json").read_text())


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def full_run(path: Path) -> list[dict[str, Any]]:
    """A record with a line of every kind."""
    sink = JsonlSink(path, "gate", HEADER, extra=lambda: {"latency_ms": {"p50": 41.0}})
    sink.write(CameraState("gate", "connecting"))
    sink.write(Break("gate", 0, make_info()))
    sink.write(CameraState("gate", "live", "first picture", 0.0, 1.79e9))
    for index in range(5):
        sink.write(make_result(index, people=[make_person(3), make_person(4, raw=False)], wall_s=1.79e9 + index / 25))
    sink.write(Gap("gate", "disconnected", 0.2, 1.2, None, 1.79e9, 1.79e9 + 1, "connection refused"))
    sink.write(Break("gate", 1, make_info((320, 240)), "resolution changed"))
    sink.write(Degrade("gate", 1, "detect_every 2", "age 620 ms", 1.3))
    sink.write(Gap("gate", "dropped", 1.4, 1.6, 5))
    sink.write(Gap("gate", "unwritten", 1.6, 1.8, 3, None, None, "jsonl took nothing"))
    sink.write(Missed("record", Gap("gate", "unwritten", 0.12, 0.2, 2, 1.79e9 + 0.12, 1.79e9 + 0.2)))
    for index in range(10, 15):
        sink.write(make_result(index, 1.8 + index / 25, size=(320, 240), segment=1))
    sink.write(End("gate", Counts(decoded=19, corrupt=1, dropped={"latest": 5, "unwritten": 3})))
    sink.close()
    sink.close()
    assert sink.outputs() == (str(path),)
    return read(path)


def test_every_kind_of_line_is_valid(tmp_path: Path, validator: jsonschema.Draft202012Validator) -> None:
    lines = full_run(tmp_path / "gate.jsonl")
    for line in lines:
        validator.validate(line)
    assert [line["type"] for line in lines[:4]] == ["header", "camera", "segment", "camera"]
    kinds = {definition["properties"]["type"]["const"] for definition in SCHEMA["$defs"].values()
             if "const" in definition.get("properties", {}).get("type", {})}  # fmt: skip
    assert {line["type"] for line in lines} == kinds


def test_the_schema_refuses_what_is_wrong(tmp_path: Path, validator: jsonschema.Draft202012Validator) -> None:
    frame = next(line for line in full_run(tmp_path / "gate.jsonl") if line["type"] == "frame")
    for change in ({"time": "0"}, {"wall": "2026-01-01"}, {"people": [{}]}, {"type": "frames"}, {"index": -1}):
        assert not validator.is_valid({**frame, **change})
    frame["people"][0]["keypoints"][0] = [1, 2]
    assert not validator.is_valid(frame)


def test_header_first_footer_last_and_the_counts_reconcile(tmp_path: Path) -> None:
    lines = full_run(tmp_path / "gate.jsonl")
    header, footer = lines[0], lines[-1]
    assert header["type"] == "header"
    assert (header["width"], header["height"], header["nominal_fps"]) == (160, 120, 25.0)
    assert header["source"] == "rtsp://***@camera/stream"
    frames = [line for line in lines if line["type"] == "frame"]
    assert footer["written"] == len(frames) == 10
    assert footer["decoded"] == footer["written"] + sum(footer["dropped"].values()) + footer["corrupt"]
    assert footer["complete"] is True
    assert footer["gaps"] == 3
    assert footer["gap_s"] == pytest.approx(1.4)
    assert footer["longest_gap_s"] == pytest.approx(1.0)
    assert footer["watched_s"] == pytest.approx(frames[-1]["time"])
    assert footer["coverage"] == pytest.approx(1 - 1.4 / footer["watched_s"], abs=1e-6)
    assert footer["text"] == "coverage 40.6 %, 3 gaps, longest 1.0 s"
    assert footer["latency_ms"] == {"p50": 41.0}


def test_numbers_are_rounded_sensibly(tmp_path: Path) -> None:
    path = tmp_path / "gate.jsonl"
    sink = JsonlSink(path, "gate", HEADER)
    person = make_person(7, box=(1 / 3, 2 / 3, 40.123456, 90.987654), scores=0.123456)
    person.std[5] = np.inf
    sink.write(make_result(0, 1 / 3, [person], wall_s=1_800_000_000.123456))
    sink.close()
    frame = next(line for line in read(path) if line["type"] == "frame")
    found = frame["people"][0]
    assert frame["time"] == 0.333333
    assert frame["wall"] == "2027-01-15T08:00:00.123456Z"
    assert found["box"] == [0.33, 0.67, 40.12, 90.99]
    assert found["keypoints"][0][2] == 0.123
    assert found["score"] == 0.91
    assert found["std"][5] is None
    assert np.abs(np.array(found["keypoints"])[:, :2] - person.keypoints[:, :2]).max() <= 0.00501
    assert frame["pts"] * frame["time_base"][0] / frame["time_base"][1] == pytest.approx(1 / 3, abs=1e-5)


@given(st.integers(0, 4_000_000_000_000_000))
def test_wall_times_read_back_to_the_microsecond(microseconds: int) -> None:
    text = rfc3339(microseconds / 1e6)
    assert text is not None
    assert abs(datetime.fromisoformat(text).timestamp() - microseconds / 1e6) <= 1.1e-6


def test_pictures_carry_their_file(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "a.jsonl", "a", HEADER)
    sink.write(make_result(0, 0.0, file="b/c.jpg"))
    sink.close()
    assert read(tmp_path / "a.jsonl")[1]["file"] == "b/c.jpg"


def test_a_file_whose_name_is_not_utf_8_is_written_by_its_escape(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    sink = JsonlSink(path, "a", HEADER)
    sink.write(Break("a", 0, make_info()))
    name = os.fsdecode(b"b\xff.png")
    sink.write(make_result(0, file=name))
    sink.write(End("a", Counts(decoded=1)))
    assert [record["file"] for record in read(path) if record["type"] == "frame"] == [name]


def test_a_camera_that_never_answered_has_a_record(tmp_path: Path, validator: jsonschema.Draft202012Validator) -> None:
    sink = JsonlSink(tmp_path / "a.jsonl", "a", HEADER)
    for number in range(100):
        sink.write(CameraState("a", "reconnecting", f"refused {number}"))
    assert len(sink._waiting) == 32, "a long wait must not be kept in memory"
    sink.write(End("a", Counts(), "a: connection refused"))
    lines = read(tmp_path / "a.jsonl")
    for line in lines:
        validator.validate(line)
    assert [line["reason"] for line in lines[1:-1]] == [f"refused {n}" for n in (*range(16), *range(84, 100))]
    assert lines[-1]["error"] == "a: connection refused"
    assert lines[-1]["coverage"] == 0


@pytest.mark.parametrize("seen", [False, True])
def test_gaps_of_a_camera_that_shows_nothing_for_long_become_one_of_each_cause(
    tmp_path: Path, validator: jsonschema.Draft202012Validator, seen: bool
) -> None:
    sink = JsonlSink(tmp_path / "a.jsonl", "a", HEADER)
    for number in range(500):
        sink.write(Gap("a", "disconnected", number, number + 0.5, None, 1.79e9 + number, 1.79e9 + number + 0.5))
        sink.write(Gap("a", "corrupt", number + 0.5, number + 1.0, 3, None, None, "cannot be decoded"))
    assert len(sink._waiting) == 64, "a long wait must not be kept in memory"
    if seen:
        sink.write(Break("a", 0, make_info(live=True)))
        for index in range(1500, 1510):
            sink.write(make_result(index, 500.0 + index / 25 - 60))
    sink.write(End("a", Counts(decoded=1500 + 10 * seen, corrupt=1500)))
    lines = read(tmp_path / "a.jsonl")
    for line in lines:
        validator.validate(line)
    gaps = [line for line in lines if line["type"] == "gap"]
    told = {cause: [gap for gap in gaps if gap["cause"] == cause] for cause in ("disconnected", "corrupt")}
    assert [(gap["start"], gap["end"]) for gap in told["disconnected"]] == [
        *((number, number + 0.5) for number in range(15)), (15.0, 483.5), *((n, n + 0.5) for n in range(484, 500)),
    ]  # fmt: skip
    gathered = told["disconnected"][15]
    assert (gathered["wall_start"], gathered["wall_end"]) == (rfc3339(1.79e9 + 15), rfc3339(1.79e9 + 483.5))
    assert gathered["frames"] is None
    assert sum(gap["frames"] for gap in told["corrupt"]) == 1500
    footer = lines[-1]
    assert (footer["gaps"], footer["gaps_by_cause"]) == (64, {"corrupt": 32, "disconnected": 32})
    assert (footer["gap_s"], footer["longest_gap_s"]) == (500.0, 500.0)
    assert verify_folder(tmp_path).disagreements == ()


@pytest.mark.parametrize("words", [1, 100])
@pytest.mark.parametrize("segments", [0, 1])
def test_a_record_without_a_frame_never_replaces_an_earlier_one(tmp_path: Path, words: int, segments: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("an earlier record\n")
    sink = JsonlSink(path, "a", HEADER)
    for _ in range(words):
        sink.write(CameraState("a", "connecting", "refused"))
    for segment in range(segments):
        sink.write(Gap("a", "dropped", 0.0, 0.1, 1))
        sink.write(Break("a", segment, make_info()))
    sink.write(End("a", Counts(), "a: connection refused"))
    assert path.read_text() == "an earlier record\n"
    assert sink.outputs() == (str(tmp_path / "a-2.jsonl"),)
    lines = read(tmp_path / "a-2.jsonl")
    assert len(lines) == min(words, 32) + 2 * segments + 2
    assert lines[-1]["error"] == "a: connection refused"


@pytest.mark.parametrize("words", [1, 100])
def test_what_was_said_before_the_first_frame_comes_first_and_its_size_is_known(tmp_path: Path, words: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("an earlier record\n")
    sink = JsonlSink(path, "a", HEADER)
    for _ in range(words):
        sink.write(CameraState("a", "reconnecting", "refused"))
    sink.write(Gap("a", "disconnected", 0.0, 1.0, None))
    sink.write(Break("a", 0, make_info(live=True)))
    assert path.read_text() == "an earlier record\n"
    sink.write(make_result(0, 1.0))
    lines = read(path)
    assert sink.outputs() == (str(path),)
    assert [line["type"] for line in lines] == ["header", *["camera"] * min(words, 32), "gap", "segment", "frame"]
    assert (lines[0]["width"], lines[0]["height"], lines[0]["live"]) == (160, 120, True)
    sink.close()


def test_cut_short_is_said(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "a.jsonl", "a", HEADER)
    sink.write(make_result(0))
    sink.close()
    footer = read(tmp_path / "a.jsonl")[-1]
    assert footer["complete"] is False
    assert footer["decoded"] is None
    assert footer["error"]
    with pytest.raises(SinkError, match="ended"):
        sink.write(make_result(1))


def test_files_roll_with_the_wall_clock(tmp_path: Path, validator: jsonschema.Draft202012Validator) -> None:
    start_s = datetime.fromisoformat("2026-11-25T02:29:58Z").timestamp()
    sink = JsonlSink(str(tmp_path / "{camera}.jsonl"), "gate", HEADER, segment_s=600, clock=lambda: start_s)
    sink.write(Break("gate", 0, make_info()))
    for index in range(100):
        sink.write(make_result(index, wall_s=start_s + index / 25))
    sink.write(End("gate", Counts(decoded=100)))
    first, second = (tmp_path / "gate" / "2026-11-25" / name for name in ("02-20-00.jsonl", "02-30-00.jsonl"))
    assert sink.outputs() == (str(first), str(second))
    for path, count, part in ((first, 50, 1), (second, 50, 2)):
        lines = read(path)
        for line in lines:
            validator.validate(line)
        assert lines[0]["part"] == lines[-1]["part"] == part
        assert lines[-1]["written_here"] == count == sum(line["type"] == "frame" for line in lines)
    assert read(first)[-1]["last"] is False
    assert read(second)[-1]["written"] == 100


def test_a_rolled_file_never_replaces_an_older_one(tmp_path: Path) -> None:
    for _ in range(2):
        sink = JsonlSink(tmp_path / "g.jsonl", "g", HEADER, segment_s=600)
        sink.write(make_result(0, wall_s=1_800_000_000.0))
        sink.close()
    assert sorted(p.name for p in tmp_path.rglob("*.jsonl")) == ["08-00-00-2.jsonl", "08-00-00.jsonl"]


def test_a_full_disk_is_one_line_and_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "gate.jsonl"
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from made_results import make_person, make_result
from streampose.errors import SinkError
from streampose.sinks.jsonl import JsonlSink
sink = JsonlSink({str(path)!r}, "gate", {HEADER!r})
try:
    for index in range(1000):
        sink.write(make_result(index, people=[make_person(1)]))
except SinkError as error:
    sink.close()
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: cannot be written: the file reached the largest size")
    assert done.stdout.count("\n") == 1
    assert path.read_text().endswith("\n")
    assert [line["index"] for line in read(path)[1:]] == list(range(len(read(path)) - 1))
    assert path.stat().st_size > 15_000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_space_left_is_named() -> None:
    with pytest.raises(SinkError, match=r"/dev/full: cannot be written: the disk is full; free some space"):
        JsonlSink("/dev/full", "gate", HEADER).write(make_result(0))


@pytest.mark.parametrize(("made", "words"), [("file", "is a file, not a folder"), ("folder", "this is a folder")])
def test_an_unwritable_path_is_one_line(tmp_path: Path, made: str, words: str) -> None:
    if made == "file":
        (tmp_path / "x").write_text("")
        path = tmp_path / "x" / "gate.jsonl"
    else:
        path = tmp_path / "gate.jsonl"
        path.mkdir()
    with pytest.raises(SinkError) as caught:
        JsonlSink(path, "gate", HEADER).write(make_result(0))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_kill_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "gate.jsonl"
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from made_results import make_person, make_result
from streampose.sinks.jsonl import JsonlSink
sink = JsonlSink({str(path)!r}, "gate", {HEADER!r})
index = 0
while True:
    sink.write(make_result(index, people=[make_person(1)]))
    index += 1
    if index == 50:
        print("ready", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    whole = path.read_text().splitlines()
    assert len(whole) > 50
    assert all(json.loads(line) for line in whole[:-1])
