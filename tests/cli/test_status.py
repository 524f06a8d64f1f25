"""The status line: of whom it speaks, and of whom no more; what was opened, once."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from streampose.build import first_reading
from streampose.cli import status
from streampose.config import validate
from streampose.messages import Break, CameraState, Counts, End, SourceInfo
from tests.test_build import NEVER_ASKED


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
    with status.Status(run.all_cameras) as line:
        line.tick()
    assert ", 0.0 fps in, 0.0 fps out" in capsys.readouterr().err


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
