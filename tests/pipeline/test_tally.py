"""What the status line says of a camera: its source's state, and beside it what is wrong with the picture."""

from __future__ import annotations

from streampose.cli.status import behind, how
from streampose.messages import CameraState, Counts, End, PoseResult, SourceState
from streampose.pipeline.channel import Channel
from streampose.pipeline.lane import Result, Tally
from streampose.pipeline.outlet import Outlet
from tests.pipeline.test_stages import make_frame


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


def test_the_sinks_that_are_passed_over_are_named_while_they_are() -> None:
    """Patience 0: each is passed over as soon as it has no room."""
    channels: list[Channel[Result]] = [Channel(f"{name}:a", 1, "lossless") for name in ("record", "jsonl", "other")]
    outlets = [Outlet("a", channel.name.split(":")[0], channel, 0.0) for channel in channels]
    for number, outlet in enumerate(outlets):
        for index in range(1 if number == 2 else 4):
            result = PoseResult(make_frame("a", index))
            outlet.admit(result)
            outlet.put(result)
    since_s = max(outlet.behind_since_s or 0.0 for outlet in outlets)
    assert behind(outlets, since_s + 12.2) == ", record behind for 12 s (3 missed), jsonl behind for 12 s (3 missed)"
    channels[0].get()
    outlets[0].admit(PoseResult(make_frame("a", 4)))
    assert behind(outlets, since_s + 12.2) == ", jsonl behind for 12 s (3 missed)"
