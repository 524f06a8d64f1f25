"""Reading results: whole ones, cut ones, and what is said of those that are none."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_results import make_person, make_result

from streampose.errors import DataError
from streampose.export.coco import export_coco, numeric_names
from streampose.export.csv_table import export_csv
from streampose.export.mot import export_mot
from streampose.export.openpose import export_openpose
from streampose.export.parquet import export_parquet
from streampose.export.reader import ResultReader
from streampose.export.track_series import read_track
from streampose.export.watch import list_watches, read_watch
from streampose.messages import Counts, End
from streampose.sinks.jsonl import JsonlSink
from tests.export.conftest import HEADER


def test_a_whole_result(result: Path) -> None:
    reader = ResultReader(result)
    assert reader.camera == "gate"
    assert reader.keypoints[0] == "nose"
    assert reader.footer is None
    assert [frame["index"] for frame in reader.frames()] == list(range(20))
    assert reader.footer is not None
    assert reader.footer["written"] == 20
    assert reader.cut is None
    assert len(list(reader.records())) == 22, "it can be read again"


def test_a_result_without_its_end_is_read_and_said(result: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = result.read_text().splitlines(keepends=True)
    result.write_text("".join(lines[:12]))
    reader = ResultReader(result)
    with caplog.at_level(logging.WARNING):
        assert len(list(reader.frames())) == 10
    assert reader.cut == "no footer: the run was cut short"
    assert "no footer" in caplog.text
    result.write_text("".join(lines[:12]) + lines[12][:200])
    reader = ResultReader(result)
    assert len(list(reader.frames())) == 10
    assert reader.cut == "line 13 breaks off: the run was cut short"


@pytest.mark.parametrize("use", [export_coco, export_csv, export_mot, export_openpose, export_parquet, None])
def test_a_cut_result_is_said_once_whatever_reads_it(
    use: Callable[[ResultReader, Path], Path] | None,
    pictures: Callable[[list[str]], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """COCO reads twice where names are numbers; a plot asks for one person, `use` None."""
    path = pictures(["000001.jpg", "000002.jpg"])
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    reader = ResultReader(path)
    if use is not None:
        use(reader, tmp_path / "out")
    else:
        read_track(reader, 1, [reader.keypoints[0]])
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: no footer: the run was cut short; what is there was read"
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.data())
def test_a_result_cut_anywhere_behind_its_header_is_read(result: Path, data: st.DataObject) -> None:
    whole = result.read_bytes()
    header = whole.index(b"\n") + 1
    length = data.draw(st.integers(header, len(whole) - 1))
    cut = result.with_name("cut.jsonl")
    cut.write_bytes(whole[:length])
    reader = ResultReader(cut)
    frames = list(reader.frames())
    complete = [json.loads(line) for line in whole[:length].split(b"\n")[1:-1]]
    indices = [record["index"] for record in complete if record["type"] == "frame"]
    assert [frame["index"] for frame in frames][: len(indices)] == indices
    assert len(frames) <= len(indices) + 1, "only a line without its end may still be whole"
    assert reader.cut is not None or length == len(whole) - 1


def replaced(line: str, change: dict[str, object]) -> str:
    record = json.loads(line)
    for key, value in change.items():
        target = record
        *path, last = key.split(".")
        for part in path:
            target = target[int(part)] if part.isdigit() else target[part]
        if value is None:
            del target[last]
        else:
            target[last] = value
    return json.dumps(record) + "\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time": None}, 'line 4: frame has no "time"'),
        ({"time": "soon"}, "line 4: time: a number is wanted, not 'soon'"),
        ({"time": float("nan")}, "line 4: time: a number is wanted, not nan"),
        ({"index": -3}, "line 4: index: a count is wanted, not -3"),
        ({"index": 10**80}, "line 4: index: a count is wanted, not 1000"),
        ({"segment": "x"}, "line 4: segment: a count is wanted"),
        ({"pts": "x"}, "line 4: pts: a whole number is wanted"),
        ({"time_base": [1, 0]}, "line 4: time_base: two whole numbers are wanted, not list"),
        ({"wall": 5}, "line 4: wall: a text is wanted, not 5"),
        ({"file": 7}, "line 4: file: a text is wanted, not 7"),
        ({"people.0.keypoints": [[1, 2]] * 17}, r"line 4: people[0].keypoints: 17 points [x, y, score] are wanted"),
        ({"people.0.raw": [[1, 2, 3]] * 16}, "line 4: people[0].raw: 17 points"),
        ({"people.0.box": [1, 2, 3]}, "line 4: people[0].box: 4 numbers are wanted"),
        ({"people.0.box": [None] * 4}, "line 4: people[0].box: 4 numbers are wanted"),
        ({"people.0.joint_state": "measured"}, "line 4: people[0].joint_state: 17 words"),
        ({"people.0.joint_state": [1] * 17}, "line 4: people[0].joint_state: 17 words"),
        ({"people.0.id": "anna"}, "line 4: people[0].id: a count is wanted, not 'anna'"),
        ({"people.0.score": [1]}, "line 4: people[0].score: a number is wanted, not list"),
        ({"people.0.state": "gone"}, "line 4: people[0].state: one of coasting, confirmed, tentative is wanted"),
        ({"people.0.id": None}, 'line 4: people[0] has no "id"'),
        ({"people": [7]}, "line 4: people[0]: an object"),
        ({"type": "header"}, "line 4: a second header"),
    ],
)
def test_a_wrong_line_is_named(result: Path, change: dict[str, object], words: str) -> None:
    lines = result.read_text().splitlines(keepends=True)
    lines[3] = replaced(lines[3], change)
    result.write_text("".join(lines))
    with pytest.raises(DataError) as caught:
        list(ResultReader(result).frames())
    assert str(caught.value).startswith(f"{result}: {words}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"frame,id\n1,2\n", "line 1: not JSON"),
        (b"\xff\xfe\x00\n", "line 1: not JSON (not UTF-8 text)"),
        (b"[1, 2]\n", "line 1: not a record"),
        (b'{"type":"frame"}\n', 'line 1: a "frame" where the header should be'),
        (b'{"type":"header","schema":2}\n', "line 1: schema 2 is not known; this version reads schema 1"),
        (b'{"type":"header","schema":1}\n', 'line 1: header has no "camera"'),
        (b'{"type":"header","schema":1,"camera":"a","keypoints":[]}\n', "line 1: keypoints: a list of names"),
        (b'{"type":"header","schema":1,"camera":["a"],"keypoints":["nose"]}\n', "line 1: camera: a text is wanted"),
        (b'{"type":"header","schema":1,"camera":"a","keypoints":["nose"],"part":"x"}\n', "line 1: part: a count"),
        (b"[" * 100_000 + b"\n", "line 1: not JSON (maximum recursion depth"),
    ],
)
def test_what_is_no_result_is_said(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        ResultReader(path)
    assert str(caught.value).startswith(f"{path}: {words}")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"type": "gap", "cause": "dropped", "start": None, "end": 1}, "line 4: start: a number is wanted, not None"),
        ({"type": "footer", "dropped": {"newest wins": "8"}}, "line 4: dropped: an object of counts is wanted"),
        ({"type": "footer", "gap_s": None}, "line 4: gap_s: a number is wanted, not None"),
        ({"type": "footer", "coverage": "1.0"}, "line 4: coverage: a number is wanted, not '1.0'"),
        ({"type": "footer", "decoded": "x"}, "line 4: decoded: a count is wanted, not 'x'"),
    ],
)
def test_a_wrong_gap_or_footer_is_named(result: Path, record: dict[str, object], words: str) -> None:
    lines = result.read_text().splitlines(keepends=True)
    result.write_text("".join([*lines[:3], json.dumps(record) + "\n"]))
    with pytest.raises(DataError) as caught:
        list(ResultReader(result).records())
    assert str(caught.value).startswith(f"{result}: {words}")


def test_files_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl: no such file"):
        ResultReader(tmp_path / "x.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        ResultReader(tmp_path)


BAD_DISK = Path("/proc/self/mem")
"""Can be opened, and not read."""


@pytest.mark.skipif(not BAD_DISK.exists(), reason="has no file that cannot be read")
def test_a_disk_that_fails_while_a_result_is_read_is_said(result: Path, tmp_path: Path) -> None:
    said = r"gate\.jsonl: cannot be read \(Input/output error\)"
    reader, whole = ResultReader(result), result.read_bytes()
    result.unlink()
    result.symlink_to(BAD_DISK)
    with pytest.raises(DataError, match=said):
        ResultReader(result)
    for use in (export_coco, export_csv, export_mot, export_openpose):
        with pytest.raises(DataError, match=said):
            use(reader, tmp_path / "out")
    result.unlink()
    result.write_bytes(whole)
    (watch,) = list_watches([result], set())[0]["gate"]
    result.unlink()
    result.symlink_to(BAD_DISK)
    (line,) = read_watch(watch)
    assert re.search(said, line)


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_a_result_that_is_being_written_is_read_as_far_as_it_went_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """COCO reads twice; what is written in between has no id."""
    path = tmp_path / "pictures.jsonl"
    sink = JsonlSink(path, "pictures", HEADER)
    for index in range(2):
        sink.write(make_result(index, float(index), [make_person(index)], file=f"{index:06d}.jpg"))
    reader = ResultReader(path)
    assert numeric_names(reader) == {"000000.jpg": 0, "000001.jpg": 1}
    sink.write(make_result(2, 2.0, [make_person(2)], file="000002.jpg"))
    assert len(list(reader.frames())) == 2
    assert [record.getMessage() for record in caplog.records] == [f"{path}: is being written; what is there was read"]
    sink.write(End("pictures", Counts(decoded=3)))
    sink.close()
    assert len(json.loads(export_coco(ResultReader(path), tmp_path / "c.json").read_text())) == 3
    assert len(caplog.records) == 1


def test_a_broken_line_in_the_middle_is_not_a_cut(result: Path) -> None:
    lines = result.read_text().splitlines(keepends=True)
    lines[5] = lines[5][:100] + "\n"
    result.write_text("".join(lines))
    with pytest.raises(DataError, match="line 6: not JSON"):
        list(ResultReader(result).frames())


def test_unknown_fields_and_types_are_let_through(result: Path) -> None:
    lines = result.read_text().splitlines(keepends=True)
    lines.insert(4, '{"type":"weather","camera":"gate","rain":true}\n')
    lines[5] = replaced(lines[5], {"mood": "fine"})
    result.write_text("".join(lines))
    assert len(list(ResultReader(result).frames())) == 20


def test_what_can_be_read_only_once_is_read_as_often_as_asked(result: Path) -> None:
    read_end, write_end = os.pipe()

    def send() -> None:
        with os.fdopen(write_end, "wb") as out:
            out.write(result.read_bytes())

    with ThreadPoolExecutor(1) as threads, os.fdopen(read_end, "rb"):
        sent = threads.submit(send)
        reader = ResultReader(f"/dev/fd/{read_end}")
        for _ in range(2):
            assert [frame["index"] for frame in reader.frames()] == list(range(20))
            assert reader.cut is None
        sent.result(10)


def test_only_people_in_some_states(result: Path) -> None:
    seen = [
        person["id"] for frame in ResultReader(result, {"coasting", "tentative"}).frames() for person in frame["people"]
    ]
    assert sorted(seen) == [2, 2, 2, 2, 2, 3]


@contextmanager
def piped(content: bytes) -> Iterator[str]:
    """A path from which `content` can be read once."""
    end, other = os.pipe()
    with ThreadPoolExecutor(1) as threads, open(other, "wb") as file:
        sent = threads.submit(lambda: (file.write(content), file.close()))
        try:
            yield f"/dev/fd/{end}"
        finally:
            os.close(end)
            sent.exception(10)


def test_nothing_of_a_piped_result_is_left_however_the_reading_ends(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with piped(result.read_bytes()) as path:
        reader = ResultReader(path)
    assert list(folder.iterdir()) == [], "a signal would leave it"
    begun = reader.frames()
    assert next(begun)["index"] == 0
    assert [frame["index"] for frame in reader.frames()] == list(range(20)), "from its beginning, whoever else reads"


def test_a_piped_result_that_cannot_be_kept_is_said(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    told = rf"^/dev/fd/\d+: .* cannot be written to {tmp_path}/none \(No such file or directory\); name .* in TMPDIR$"
    with piped(result.read_bytes()) as path, pytest.raises(DataError, match=told):
        ResultReader(path)


def test_a_piped_result_larger_than_the_room_for_it_is_said(result: Path, tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from streampose.errors import DataError
from streampose.export.reader import ResultReader
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    ResultReader("/dev/stdin")
except DataError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=result.read_bytes(),
        capture_output=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert b"/dev/stdin: can be read only once, and its copy cannot be written to" in done.stdout
    assert b"(File too large)" in done.stdout
    assert done.stdout.endswith(b"TMPDIR\n")
