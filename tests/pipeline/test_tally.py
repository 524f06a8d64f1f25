"""What the status line says of a camera: its source's state, and beside it what is wrong with the picture."""

from __future__ import annotations

from streampose.cli.status import how
from streampose.messages import CameraState, Counts, End, SourceState
from streampose.pipeline.lane import Tally


def test_a_blind_camera_is_still_live_and_a_stall_does_not_make_it_see() -> None:
    tally = Tally()
    said: list[str] = []
    story: list[tuple[SourceState, str]] = [
        ("connecting", ""), ("live", ""), ("frozen", "the same picture for 20 s"), ("stalled", "no picture for 2.1 s"),
        ("live", ""), ("moved", "the view is another"), ("seeing", ""),
    ]  # fmt: skip
    for state, reason in story:
        tally.note(CameraState("gate", state, reason))
        said.append(how(tally))
    assert said == [
        "connecting",
        "live",
        "live, frozen (the same picture for 20 s)",
        "stalled (no picture for 2.1 s), frozen (the same picture for 20 s)",
        "live, frozen (the same picture for 20 s)",
        "live, moved (the view is another)",
        "live",
    ]


def test_an_ended_camera_is_nothing_else() -> None:
    tally = Tally()
    tally.note(CameraState("gate", "dark", "black throughout"))
    tally.note(End("gate", Counts()))
    assert how(tally) == "ended"
