"""The status line: of whom it speaks, and of whom no more; what was opened, once."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Literal

import pytest

from streampose.build import first_reading
from streampose.cli import status
from streampose.config import validate
from streampose.messages import Break, CameraState, Counts, End, PoseResult, SourceInfo
from tests.media import write_video
from tests.pipeline.test_stages import make_frame
from tests.test_build import NEVER_ASKED, nobody


def test_what_failed_or_ended_is_not_said_again_and_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "PLAIN_EVERY_S", 0.0)
    cameras = {"torn": {"url": "torn.mp4"}, "done": {"url": "rtsp://a/"}, "gate": {"url": "rtsp://b/"}}
    run = first_reading(validate({"cameras": cameras, "sinks": []}), NEVER_ASKED).run
    for name, error in (("torn", "torn.mp4 is empty"), ("done", None)):
        run.cameras[name].lane.tally.note(End(name, Counts(), error))
    run.cameras["gate"].lane.tally.note(CameraState("gate", "reconnecting", "rtsp://b/ refuses"))
    with status.Status(run.all_cameras) as line:
        line.tick()
        line.tick()
    said = capsys.readouterr().err.splitlines()
    assert [text.split(",")[0] for text in said] == ["gate: reconnecting (rtsp://b/ refuses)"] * 2


def test_a_camera_that_sent_nothing_has_no_frames_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "PLAIN_EVERY_S", 0.0)
    run = first_reading(validate({"cameras": {"gate": {"url": "rtsp://b/"}}, "sinks": []}), NEVER_ASKED).run
    run.cameras["gate"].lane.frames.put(CameraState("gate", "connecting"))
    with status.Status(run.all_cameras, "1/2 look: ") as line:
        line.tick()
    said = capsys.readouterr().err
    assert ", 0.0 fps in, 0.0 fps out" in said
    assert said.startswith("1/2 look: gate: "), "a log tells in which reading the run is"


@pytest.mark.parametrize("state", ["paused", "stalled", "reconnecting"])
def test_whom_a_camera_saw_before_it_was_away_is_not_said_of_it_now(
    state: Literal["paused", "stalled", "reconnecting"],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(status, "PLAIN_EVERY_S", 0.0)
    run = first_reading(validate({"cameras": {"gate": {"url": "rtsp://b/"}}, "sinks": []}), NEVER_ASKED).run
    lane = run.cameras["gate"].lane
    lane.tally.note(CameraState("gate", "live"))
    lane.tally.note(PoseResult(make_frame("gate", 0)))
    lane.age.add(0.1)
    with status.Status(run.all_cameras) as line:
        line.tick()
        lane.tally.note(CameraState("gate", state))
        line.tick()
    seen, away = capsys.readouterr().err.splitlines()
    assert seen.endswith("fps out, 0 people, age 100 ms, 0 dropped")
    assert away == f"gate: {state}, 0.0 fps in, 0.0 fps out, 0 dropped"


def test_a_sink_that_an_error_ended_is_named_while_its_camera_goes_on_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(status, "PLAIN_EVERY_S", 0.0)
    sinks = [{"jsonl": {"path": "/dev/full"}}, {"record": {"path": f"{tmp_path}/gate.mp4"}}]
    cameras = {"gate": {"url": "test:people?live=1&fps=10&people=0&size=160x120"}}
    run = first_reading(validate({"cameras": cameras, "sinks": sinks}), nobody()).run
    gate, said = run.cameras["gate"], ""
    with status.Status(run.all_cameras) as line:

        def tick() -> None:
            nonlocal said
            line.tick()
            said += capsys.readouterr().err
            if gate.lane.tally.frames >= 20:
                run.stop()

        run.execute(tick, 0.05)
    assert "dropped, jsonl ended\n" in said
    assert ", jsonl ended" in status.report(run.all_cameras()).splitlines()[0]


@pytest.mark.parametrize(("main", "state"), [("none.mp4", "failed"), ("rtsp://127.0.0.1:1/", "reconnecting")])
def test_a_main_stream_that_is_not_there_is_said_while_its_camera_goes_on_and_at_the_end(
    main: str, state: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(status, "PLAIN_EVERY_S", 0.0)
    url = main if "://" in main else f"{tmp_path}/{main}"
    sub = "test:people?live=1&fps=10&people=0&size=160x120"
    sinks = [{"record": {"path": f"{tmp_path}/gate.mp4", "mode": "source"}}]
    config = validate({"cameras": {"gate": {"url": url, "detect_url": sub}}, "sinks": sinks})
    run = first_reading(config, nobody()).run
    said, expected = "", f"dropped, source stream {state}\n"
    with status.Status(run.all_cameras) as line:

        def tick() -> None:
            nonlocal said
            line.tick()
            said += capsys.readouterr().err
            if expected in said or run.cameras["gate"].lane.tally.frames > 300:
                run.stop()

        run.execute(tick, 0.05)
    assert expected in said
    assert f", source stream {state}" in status.report(run.all_cameras()).splitlines()[0]
    failed = [f"gate.main: {url} does not exist; check the path"] if state == "failed" else []
    assert [str(failure) for failure in run.failures()] == failed


def test_on_a_terminal_a_recording_of_unknown_length_has_lines_instead_of_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Raw H.264 and pipes say nothing of it."""
    write_video(tmp_path / "raw.h264", frames=24)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run = first_reading(validate({"cameras": {"raw": {"url": f"{tmp_path}/raw.h264"}}, "sinks": []}), nobody()).run
    with status.Status(run.all_cameras) as line:

        def tick() -> None:
            line._last_s -= 1.0  # a line is due
            line.tick()

        run.execute(tick, 0.001)
    tally = run.cameras["raw"].lane.tally
    assert tally.info is not None
    assert (tally.info.duration_s, tally.frames) == (None, 24)
    said = capsys.readouterr().err.splitlines()
    assert [text for text in said if re.fullmatch(r"raw: \d s, \d+\.\d fps(, 0 people)?", text)], said


def test_the_report_of_a_live_camera_tells_for_how_long_it_was_watched_and_what_is_missing_as_its_record_does(
    tmp_path: Path,
) -> None:
    cameras = {
        "gate": {"url": "test:people?live=1&fps=10&people=0&size=160x120"},
        "gone": {"url": "rtsp://127.0.0.1:1/"},
    }
    sinks = [{"jsonl": {"path": f"{tmp_path}/{{camera}}.jsonl"}}]
    run = first_reading(validate({"cameras": cameras, "sinks": sinks}), nobody()).run
    gate = run.cameras["gate"].lane

    def tick() -> None:
        if gate.tally.frames >= 20:
            run.stop()

    run.execute(tick, 0.02)
    said = status.report(run.all_cameras()).splitlines()
    for name, line in zip(cameras, (said[0], said[-2]), strict=True):
        footer = json.loads((tmp_path / f"{name}.jsonl").read_text().splitlines()[-1])
        assert line.startswith(
            f"{name}: {status.count(footer['written'], 'frame')}, {footer['watched_s']:.1f} s watched, "
        )
        assert f" watched, {footer['text']}, 0 people" in line
        assert footer["watched_s"] > 0.5
    assert said[-2].startswith("gone: 0 frames, ")
    assert ", coverage 0.0 %, 1 gap, longest " in said[-2]


def test_the_report_names_of_many_files_those_that_are_there_and_not_each(tmp_path: Path) -> None:
    sinks = [{"jsonl": {"path": f"{tmp_path}/{{camera}}.jsonl", "segment": "1s"}}]
    cameras = {
        name: {"url": f"test:people?fps=5&people=0&seconds={s}&size=160x120"} for name, s in (("a", 3), ("b", 20))
    }
    run = first_reading(validate({"cameras": cameras, "sinks": sinks}), nobody()).run
    run.execute(lambda: None)
    few, many = (sorted((tmp_path / name).rglob("*.jsonl")) for name in cameras)
    few.pop(1).unlink()
    many.pop(0).unlink()
    assert len(few) >= 2
    lines = status.report(run.all_cameras()).splitlines()
    assert lines[1 : 1 + len(few)] == [f"  {path}" for path in few]
    assert lines[2 + len(few) :] == [f"  {many[0]}", f"  … {len(many) - 2} more", f"  {many[-1]}"]


def test_a_log_that_cannot_be_written_ends_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "PLAIN_EVERY_S", 0.0)
    run = first_reading(validate({"cameras": {"gate": {"url": "rtsp://b/"}}, "sinks": []}), NEVER_ASKED).run
    ticks = 0
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as full:  # what it kept fails at its end
        monkeypatch.setattr("sys.stderr", full)
        with status.Status(run.all_cameras) as line:
            for _ in range(2):
                line.tick()
                ticks += 1
    assert ticks == 2


def test_another_size_of_pictures_is_no_opening(capsys: pytest.CaptureFixture[str]) -> None:
    cameras = {"yard": {"url": "yard"}, "gate": {"url": "rtsp://b/"}}
    run = first_reading(validate({"cameras": cameras, "sinks": []}), NEVER_ASKED).run
    with status.Status(run.all_cameras) as line:
        for width in (
            640,
            800,
            800,
            640,
        ):  # the second 800 is another opening of the camera, a look missed of the folder
            for name, live in (("yard", False), ("gate", True)):
                info = SourceInfo(name, "images" if not live else "stream", live, width, 480)
                run.cameras[name].lane.tally.note(Break(name, 0, info))
            line.tick()
    said = [text.split(")")[0] for text in capsys.readouterr().err.splitlines()]
    assert said == ["yard: yard (640×480", "gate: gate (640×480", "gate: gate (800×480"]


@pytest.mark.parametrize(
    ("number", "what", "words"),
    [(1, "person", "1 person"), (0, "person", "0 people"), (1, "frame", "1 frame"), (2, "frame", "2 frames")],
)
def test_one_is_not_many(number: int, what: str, words: str) -> None:
    assert status.count(number, what) == words
