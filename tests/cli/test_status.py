"""The status line: of whom it speaks, and of whom no more."""

from __future__ import annotations

import pytest

from streampose.build import first_reading
from streampose.cli import status
from streampose.config import validate
from streampose.messages import CameraState, Counts, End
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
