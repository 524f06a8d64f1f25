"""Retention: what is deleted, what never is, and that it is said first."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import make_result

from streampose.sinks.draw import DrawSkeleton
from streampose.sinks.paths import fill, rolled_pattern
from streampose.sinks.record import RecordSink
from streampose.sinks.retention import Kept, Retention, Rules, decide

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
    retention = Retention([rolled_pattern(video, "gate"), rolled_pattern(record, "gate")], Rules(keep_s=7 * 86400))
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
    Retention([rolled_pattern(template, "gate")], Rules(keep_bytes=0)).sweep(1.8e9)
    assert not path.parent.exists()
    assert (tmp_path / "gate").exists()


def test_what_is_being_written_stays(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    template = str(tmp_path / "{camera}.mp4")
    retention = Retention([rolled_pattern(template, "gate")], Rules(keep_bytes=1))
    sink = RecordSink(template, "gate", skeleton, segment_s=10, retention=retention)
    for index in range(40):
        sink.write(make_result(index, float(index), wall_s=1.8e9 + index))
        open_file = Path(sink.outputs()[-1])
        assert open_file.exists()
    existing = sorted(tmp_path.rglob("*.mp4"))
    assert existing == [open_file], "the three finished ones went"
    sink.close()
    assert len(sink.outputs()) == 4


@pytest.mark.parametrize(
    "template", ["out/{camera}.mp4", "out/{camera}/{date}/{time}.mp4", "{date}/{camera} at {time}.mkv", "{camera}.mp4"]
)
def test_the_pattern_finds_what_the_template_makes(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = [make_file(fill(template, "gate", 1.79e9 + hour * 3600), 0) for hour in range(30)]
    make_file(fill(template, "yard", 1.79e9), 0)
    folder, pattern = rolled_pattern(template, "gate")
    assert sorted(folder.glob(pattern)) == sorted(made)
