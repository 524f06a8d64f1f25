"""Retention: what is deleted, what never is, and that it is said first."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import make_result

from streampose.build_sinks import _retention
from streampose.config import validate
from streampose.errors import SinkError
from streampose.sinks.draw import DrawSkeleton
from streampose.sinks.jsonl import JsonlSink
from streampose.sinks.paths import Names, Rolled, create, fill, make_folder, numbered, source_template
from streampose.sinks.record import RecordConfig, RecordSink
from streampose.sinks.retention import Kept, Retention, Rules, Sweeper, decide

FILES = st.lists(
    st.builds(Kept, st.integers(0, 10**6).map(lambda n: Path(f"f{n}")), st.floats(0, 1000), st.integers(0, 1000)),
    max_size=30,
    unique_by=lambda kept: kept.path,
)


@given(
    FILES,
    st.none() | st.floats(0, 1200),
    st.none() | st.integers(0, 20_000),
    st.none() | st.integers(0, 20_000),
    st.integers(0, 10_000),
    st.data(),
)
def test_the_decision(
    files: list[Kept],
    keep_s: float | None,
    keep_bytes: int | None,
    min_free: int | None,
    free: int,
    data: st.DataObject,
) -> None:
    rules = Rules(keep_s, keep_bytes, min_free)
    writing = set(data.draw(st.lists(st.sampled_from([f.path for f in files]))) if files else [])
    doomed = decide(files, rules, 1000.0, free, writing)
    assert not writing & {kept.path for kept in doomed}
    left = [kept for kept in files if kept not in doomed and kept.path not in writing]
    # What is left obeys every rule, unless nothing is left that may be deleted.
    if left:
        assert keep_s is None or all(1000.0 - kept.modified_s <= keep_s for kept in left)
        assert keep_bytes is None or sum(k.size for k in files) - sum(k.size for k in doomed) <= keep_bytes
        assert min_free is None or free + sum(kept.size for kept in doomed) >= min_free
        # Oldest first: nothing younger went while something older stayed.
        assert not doomed or max(k.modified_s for k in doomed) <= min(k.modified_s for k in left)
    # Nothing went without need: the last one deleted was still required by a rule.
    if doomed:
        last = doomed[-1]
        before = doomed[:-1]
        assert (
            (keep_s is not None and 1000.0 - last.modified_s > keep_s)
            or (keep_bytes is not None and sum(k.size for k in files) - sum(k.size for k in before) > keep_bytes)
            or (min_free is not None and free + sum(k.size for k in before) < min_free)
        )


def test_no_rule_keeps_all() -> None:
    assert decide([Kept(Path("a"), 0, 10**12)], Rules(), 1e9, 0) == []


def make_file(path: Path, age_s: float, size: int = 1000, now_s: float = 1.8e9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (now_s - age_s, now_s - age_s))
    return path


def test_videos_and_their_records_go_together_and_others_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now_s = 1.8e9
    video, record = f"{tmp_path}/{{camera}}.mp4", f"{tmp_path}/{{camera}}.jsonl"
    old = [make_file(fill(template, "gate", now_s - 900_000), 900_000) for template in (video, record)]
    doubled = make_file(old[0].with_name(f"{old[0].stem}-2.mp4"), 899_999)
    young = [make_file(fill(template, "gate", now_s - 1000), 1000) for template in (video, record)]
    others = [
        make_file(fill(video, "yard", now_s - 900_000), 900_000),
        make_file(tmp_path / "gate" / "notes.mp4", 900_000),
        make_file(old[0].parent / "holiday.mp4", 900_000),
        make_file(tmp_path / "gate.mp4", 900_000),
    ]
    retention = Retention([Rolled(video, "gate"), Rolled(record, "gate")], Rules(keep_s=7 * 86400), Names())
    with caplog.at_level(logging.WARNING):
        gone = retention.sweep(now_s)
    assert sorted(gone) == sorted([*old, doubled])
    assert all(path.exists() for path in [*young, *others])
    assert "deleted older than 7 d" in caplog.messages[0]
    assert "deleting 3 recordings, 3.0 kB, oldest first" in caplog.messages[1]
    assert retention.sweep(now_s) == []


def test_an_empty_day_goes_too_but_never_the_camera(tmp_path: Path) -> None:
    template = f"{tmp_path}/{{camera}}/{{date}}/{{time}}.mp4"
    path = make_file(fill(template, "gate", 1.79e9), 1000)
    Retention([Rolled(template, "gate")], Rules(keep_bytes=0), Names()).sweep(1.8e9)
    assert not path.parent.exists()
    assert (tmp_path / "gate").exists()


def test_the_folder_of_a_day_goes_with_the_last_of_its_cameras(tmp_path: Path) -> None:
    template = f"{tmp_path}/{{date}}/{{camera}}/{{time}}.mp4"
    paths = {camera: make_file(fill(template, camera, 1.79e9), 1000) for camera in ("gate", "yard")}
    for camera, left in (("gate", ["yard"]), ("yard", [])):
        Retention([Rolled(template, camera)], Rules(keep_bytes=0), Names()).sweep(1.8e9)
        assert [path.name for path in paths["yard"].parent.parent.glob("*")] == left
    assert list(tmp_path.iterdir()) == []


def test_cameras_that_share_a_folder_sweep_at_once(tmp_path: Path) -> None:
    """They roll at the same multiples of wall time, so they do."""
    template = f"{tmp_path}/{{date}}/{{camera}}-{{time}}.mp4"
    cameras = [f"cam{number}" for number in range(6)]
    logging.getLogger("streampose.sinks.retention").setLevel(logging.CRITICAL)
    try:
        with ThreadPoolExecutor(len(cameras)) as pool:
            for _ in range(100):
                paths = [make_file(fill(template, camera, 1.79e9), 1000) for camera in cameras]
                swept = [Retention([Rolled(template, name)], Rules(keep_s=60), Names()) for name in cameras]
                together = threading.Barrier(len(cameras), timeout=30)

                def sweep(retention: Retention, together: threading.Barrier = together) -> list[Path]:
                    together.wait()
                    return retention.sweep(1.8e9)

                assert [path for gone in pool.map(sweep, swept) for path in gone] == paths
    finally:
        logging.getLogger("streampose.sinks.retention").setLevel(logging.NOTSET)


def test_a_folder_above_that_may_not_be_changed_stays(skeleton: DrawSkeleton) -> None:
    """Root may do everything, so it sweeps as somebody else; its folders for tests are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        template = f"{folder}/{{date}}/{{camera}}-{{time}}.mp4"
        path = make_file(fill(template, "gate", 1.79e9), 1000)
        path.parent.chmod(0o777)
        Path(folder).chmod(0o555)
        mine = os.geteuid()
        if mine == 0:
            os.seteuid(65534)
        try:
            retention = Retention([Rolled(template, "gate")], Rules(keep_bytes=0), Names())
            assert retention.sweep(1.8e9) == [path]
        finally:
            os.seteuid(mine)
            Path(folder).chmod(0o755)
        assert path.parent.exists()


def test_what_is_being_written_stays(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    template = str(tmp_path / "{camera}.mp4")
    names = Names()
    retention = Retention([Rolled(template, "gate")], Rules(keep_bytes=1), names)
    sink = RecordSink(template, "gate", skeleton, segment_s=10, names=names, retention=retention)
    for index in range(40):
        sink.write(make_result(index, float(index), wall_s=1.8e9 + index))
        open_file = Path(sink.outputs()[-1])
        assert open_file.exists()
    existing = sorted(tmp_path.rglob("*.mp4"))
    assert existing == [open_file], "the three finished ones went"
    sink.close()
    assert sink.outputs() == (str(open_file),), "nor are the others remembered"
    assert retention.sweep(1.8e9) == [open_file], "what is closed is protected no more"


def test_the_record_stays_while_it_is_written(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    names, path = Names(), str(tmp_path / "{camera}.jsonl")
    retention = Retention([Rolled(path, "gate")], Rules(min_free=10**18), names)
    sink = JsonlSink(path, "gate", {}, segment_s=10, names=names)
    for index in range(40):
        sink.write(make_result(index, float(index), wall_s=1.8e9 + index))
        retention.sweep(1.8e9 + index)
        assert [str(p) for p in tmp_path.rglob("*.jsonl")] == [sink.outputs()[-1]]
    assert len(sink.outputs()) == 2, "it is asked what is gone where it rolls"
    sink.close()
    assert json.loads(Path(sink.outputs()[-1]).read_text().splitlines()[-1])["part"] == 4, "those that are gone count"
    assert retention.sweep(1.8e9) == [Path(sink.outputs()[-1])]


def test_neither_source_nor_other_cameras_are_taken_for_a_camera_s_own(tmp_path: Path) -> None:
    names = Names()
    template = f"{tmp_path}/{{date}}/{{time}}-{{camera}}.mp4"
    cameras = ("gate", "back-gate", "gate-2", "gate-ward")
    for camera in cameras:
        names.roll(template, camera)
        names.roll(source_template(template), camera)
    made = {c: [make_file(names.claim(fill(template, c, 1.79e9)), 0) for _ in range(3)] for c in cameras}
    sources = [make_file(fill(source_template(template), c, 1.79e9), 0) for c in cameras]
    strange = make_file(fill(template, "gate", 1.79e9).with_suffix(".mp4.part"), 0)
    for path in (path for paths in made.values() for path in paths):
        names.release(path)
    assert [path.name[9:] for path in made["gate"]] == ["gate.mp4", "gate-3.mp4", "gate-4.mp4"]
    assert [path.name[9:] for path in made["gate-2"]] == ["gate-2.mp4", "gate-2-2.mp4", "gate-2-3.mp4"]
    for camera in cameras:
        gone = Retention([names.roll(template, camera)], Rules(keep_bytes=0), names).sweep(1.8e9)
        assert sorted(gone) == sorted(made[camera])
    assert sorted(tmp_path.rglob("*.mp4*")) == sorted([*sources, strange])


def test_all_that_a_run_writes_is_known_to_its_retention(tmp_path: Path) -> None:
    """As `build.py` makes them: what is written is one set, and the record goes with the annotated video."""
    made: list[str] = [f"{tmp_path}/{{camera}}/{{time}}.mp4", f"{tmp_path}/{{camera}}.jsonl"]
    record = {"path": made[0], "mode": "both", "segment": "10m", "keep_bytes": "1kB"}
    sinks = [{"record": record}, {"jsonl": {"path": made[1]}}]
    config = validate({"cameras": {"gate": {"url": "rtsp://10.0.0.2/"}}, "sinks": sinks})
    names, (_, options) = Names(), config.sinks[0]
    assert isinstance(options, RecordConfig)
    annotated = _retention(config, options, options.path, "gate", names, Sweeper())
    source = _retention(config, options, source_template(options.path), "gate", names, Sweeper())
    assert annotated is not None
    assert source is not None
    files = [
        [make_file(names.claim(fill(template, "gate", 1.79e9 + age)), age, 800) for age in (300, 200)]
        for template in (made[0], source_template(made[0]), made[1])
    ]
    assert annotated.sweep(1.8e9) == source.sweep(1.8e9) == []
    for path in (path for paths in files for path in paths):
        names.release(path)
    assert source.sweep(1.8e9) == files[1][:1], "800 bytes are left of the source alone"
    assert sorted(annotated.sweep(1.8e9)) == sorted([files[0][0], files[2][0], min(files[0][1], files[2][1])])


def test_who_finds_it_being_swept_leaves_it(tmp_path: Path) -> None:
    """A disk that hangs under one thread must not hold up another."""
    path = make_file(fill(f"{tmp_path}/{{camera}}.mp4", "gate", 1.79e9), 1000)
    asked, answer = threading.Event(), threading.Event()

    class Slow(Rolled):
        def find(self) -> list[Path]:
            asked.set()
            answer.wait(30)
            return super().find()

    retention = Retention([Slow(f"{tmp_path}/{{camera}}.mp4", "gate")], Rules(keep_bytes=0), Names())
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(retention.sweep, 1.8e9)
        assert asked.wait(30)
        assert retention.sweep(1.8e9) == []
        answer.set()
        assert first.result(30) == [path]


@pytest.mark.parametrize(
    "template",
    [
        "out/{camera}.mp4",
        "out/{camera}/{date}/{time}.mp4",
        "{date}/{camera} at {time}.mkv",
        "{camera}.mp4",
        "a[1]*/{camera}?{time}[x].mp4",
        "{date}/{camera}",
        "out/{camera}",
    ],
)
@pytest.mark.parametrize("camera", ["gate", "gate.v2"])
def test_a_template_finds_what_it_makes(
    template: str, camera: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = {make_file(fill(template, camera, 1.79e9 + hour * 3600), 0) for hour in range(30)}
    second = make_file(numbered(fill(template, camera, 1.79e9), 12), 0)
    make_file(numbered(fill(template, camera, 1.79e9), 2).with_name("x-1.mp4"), 0)
    make_file(fill(template, "yard", 1.79e9), 0)
    rolled = Rolled(template, camera)
    assert sorted(rolled.find()) == sorted([*made, second])
    assert [rolled.number(path) for path in (min(made), second)] == [1, 12]
    assert all(rolled.folder in path.parents for path in made)


@pytest.mark.parametrize("times", [1, 99])
def test_a_file_is_begun_in_a_folder_that_is_taken_away_meanwhile(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The retention of another camera removes the folder as it is empty, between its making and the file in it."""
    made: list[Path] = []

    def make_and_lose(path: Path) -> None:
        make_folder(path)
        made.append(path)
        if len(made) <= times:
            path.parent.rmdir()

    monkeypatch.setattr("streampose.sinks.paths.make_folder", make_and_lose)
    path = tmp_path / "2026-01-01" / "gate.mp4"
    if times > 1:
        with pytest.raises(SinkError, match=r"gate\.mp4: cannot be written"):
            create(path)
        assert 1 < len(made) < 50
    else:
        os.close(create(path))
        assert path.is_file()
        assert len(made) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_what_another_run_is_writing_stays_and_counts(tmp_path: Path) -> None:
    """`create` locks what it makes; the names of this run do not know of it."""
    files = [make_file(fill(f"{tmp_path}/{{camera}}.mp4", "gate", 1.79e9 + age), age) for age in (300, 200, 100)]
    oldest = create(files[0])
    os.write(oldest, b"x" * 1000)
    os.utime(files[0], (1.8e9 - 300, 1.8e9 - 300))
    names = Names()
    retention = Retention([names.roll(f"{tmp_path}/{{camera}}.mp4", "gate")], Rules(keep_bytes=2000), names)
    assert retention.sweep(1.8e9) == files[1:2]
    os.close(oldest)
    assert retention.sweep(1.8e9) == []
    assert Retention(retention.places, Rules(keep_s=0.0), names).sweep(1.8e9) == [files[0], files[2]]
