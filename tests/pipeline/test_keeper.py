"""Keeper: tries again for ever, waits as it should, abandons who is stuck, hears the stop in every state."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.errors import PermanentSourceError, TransientSourceError
from streampose.messages import SourceInfo
from streampose.pipeline import keeper
from streampose.pipeline.keeper import Event, Keeper, KeepOptions, Lost, Opened, Stalled
from streampose.pipeline.patience import Backoff, Pace
from streampose.pipeline.workers import WorkerGroup
from streampose.sources.base import PassedOver, Picture
from tests.clocks import AskedWaits, StillClock
from tests.pipeline.scripted import FAST, ScriptedSource, picture

REFUSED = TransientSourceError("rtsp://***@gate refuses the connection", "refused")


@given(first_s=st.floats(0.01, 5), cap_s=st.floats(5, 60), draws=st.lists(st.floats(0, 1), min_size=1, max_size=80))
def test_backoff_doubles_under_full_jitter_up_to_its_cap(first_s: float, cap_s: float, draws: list[float]) -> None:
    waiting: Iterator[float] = iter(draws)
    backoff = Backoff(first_s, cap_s, lambda: next(waiting))
    for tries, draw in enumerate(draws):
        step_s = min(cap_s, first_s * 2.0 ** min(tries, 32))
        assert backoff.next_s() == pytest.approx(step_s * draw)
        assert step_s <= cap_s
    backoff.reset()
    backoff._draw = lambda: 1.0
    assert backoff.next_s() == pytest.approx(first_s)
    assert backoff.next_s(at_least_s=100.0) == pytest.approx(100.0)


def test_a_wait_counts_from_the_begin_of_the_try_and_never_vanishes() -> None:
    """What fails after long is tried again at once, but for the jitter of the first step; what fails at once waits."""
    backoff = Backoff(0.5, 2.5, lambda: 0.8)
    waits = [backoff.next_s(took_s=took_s) for took_s in (0.0, 0.1, 0.7, 2.6, 3600.0, 0.0)]
    assert waits == pytest.approx([0.4, 0.7, 0.9, 0.4, 0.4, 2.0])
    assert backoff.next_s(at_least_s=30.0, took_s=2.5) == pytest.approx(24.5)  # 0.9 of it, less what the try took


@given(st.floats(0.0, 1.0), st.floats(0.5, 1e3))
def test_who_refuses_waits_half_of_the_long_step_at_least(draw: float, long_s: float) -> None:
    assert long_s / 2 <= Backoff(0.1, 0.2, lambda: draw).next_s(at_least_s=long_s) <= long_s


def test_a_pace_is_the_median_of_the_last_steps_once_there_are_some() -> None:
    pace = Pace()
    for step_s in (0.04, 0.04):
        pace.add(step_s)
        assert pace.step_s is None
    pace.add(9.0)  # one stall
    assert pace.step_s == 0.04
    for _ in range(9):
        pace.add(5.0)  # since night fell
    assert pace.step_s == 5.0


def test_a_backoff_without_a_wait_is_refused() -> None:
    with pytest.raises(ValueError, match="first_s"):
        Backoff(0.0, 1.0)


class Kept:
    """A keeper over scripted sources, its events and how long the stop took to be heard."""

    def __init__(self, *scripts: ScriptedSource, keep: KeepOptions = FAST) -> None:
        self.made: list[ScriptedSource] = []
        self.scripts = list(scripts)
        self.stop = threading.Event()
        self.group = WorkerGroup(deadline_s=0.5)
        self.keeper = Keeper("gate", self.make, self.group, self.stop.is_set, keep)

    def make(self) -> ScriptedSource:
        script = self.scripts[min(len(self.made), len(self.scripts) - 1)]
        self.made.append(script)
        return script

    def events(self, count: int) -> list[Event]:
        """The first `count` events that are no pictures, then the stop."""
        found: list[Event] = []
        for event in self.keeper.events():
            if not isinstance(event, Picture):
                found.append(event)
            if len(found) >= count:
                self.stop.set()
        return found


def test_a_camera_that_ends_is_opened_again_and_every_source_is_closed() -> None:
    kept = Kept(ScriptedSource([3]))
    events = kept.events(6)
    assert [type(event) for event in events] == [Opened, Lost] * 3
    assert {event.kind for event in events if isinstance(event, Lost)} == {"ended"}
    assert kept.keeper.runs == 3
    assert all(source.closed for source in kept.made)


def test_waits_grow_while_nothing_comes_and_begin_anew_after_a_steady_run() -> None:
    keep = KeepOptions(live=True, backoff_first_s=0.01, backoff_cap_s=0.08, steady_s=0.1, stall_s=5)
    kept = Kept(*[ScriptedSource([], opening=REFUSED)] * 4, ScriptedSource([1, 0.15, 1]), keep=keep)
    kept.keeper._backoff = Backoff(keep.backoff_first_s, keep.backoff_cap_s, lambda: 1.0)
    waits = [event.wait_s for event in kept.events(6) if isinstance(event, Lost)]
    assert all(0.01 <= wait_s <= step_s for wait_s, step_s in zip(waits, [0.01, 0.02, 0.04, 0.08, 0.01], strict=True))
    assert kept.keeper._backoff.tries == 1, "begun anew by the steady run"


def test_what_was_lost_after_long_is_tried_again_sooner_and_the_wait_told_is_the_one_waited() -> None:
    kept = Kept(ScriptedSource([2, 0.4]), ScriptedSource([1_000_000]), keep=KeepOptions(live=True, stall_s=5))
    kept.keeper._backoff = Backoff(0.1, 0.5, lambda: 1.0)
    kept.keeper._backoff.tries = 5
    began_s, told_s, again_s = time.monotonic(), 0.0, 0.0
    for event in kept.keeper.events():
        if isinstance(event, Lost):
            began_s, told_s = time.monotonic(), event.wait_s
        if isinstance(event, Opened) and told_s:
            again_s = time.monotonic() - began_s
            kept.stop.set()
    assert told_s == pytest.approx(0.1), "0.5 s from the begin of a run of 0.4 s, and at least the first step"
    assert again_s >= told_s


def test_who_refuses_is_asked_seldom_and_on_request_not_again() -> None:
    wrong = PermanentSourceError("rtsp://***@gate refuses the user or password", "auth")
    kept = Kept(ScriptedSource([], opening=wrong), keep=KeepOptions(live=True, refused_backoff_s=1000.0))
    kept.keeper._backoff = Backoff(0.1, 0.2, lambda: 1.0)
    (lost,) = kept.events(1)
    assert isinstance(lost, Lost)
    assert lost.kind == "auth"
    assert lost.wait_s == pytest.approx(1000.0, abs=1.0)
    kept = Kept(ScriptedSource([], opening=wrong), keep=KeepOptions(live=True, retry_refused=False))
    with pytest.raises(PermanentSourceError, match="user or password"):
        kept.events(1)


@pytest.mark.parametrize("kind", ["auth", "codec", "bug"])
def test_who_has_given_pictures_is_asked_again_soon_and_then_ever_less_often(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera that starts up refuses for moments what it knows; one whose password was changed does so for ever."""
    clock = StillClock()
    monkeypatch.setattr(keeper, "time", clock)
    refusal: Exception = ZeroDivisionError("by zero")
    if kind != "bug":
        refusal = PermanentSourceError("rtsp://***@gate refuses", kind="auth" if kind == "auth" else "codec")
    kept = Kept(ScriptedSource([3]), ScriptedSource([], opening=refusal), keep=KeepOptions(live=True))
    kept.keeper._backoff = Backoff(0.5, 2.5, lambda: 1.0)
    asked: list[tuple[float, float]] = []  # when it refused and how long it was left alone then
    ended: list[float] = []
    for event in kept.keeper.events():
        if isinstance(event, Lost) and event.kind == "ended":
            ended.append(event.wait_s)
        elif isinstance(event, Lost):
            asked.append((clock.now_s, event.wait_s))
        if len(ended) == 2:
            break
        if len(asked) == 40:
            kept.scripts = kept.scripts[:1]  # and now it accepts
    since_s = asked[0][0]
    assert [wait_s for at_s, wait_s in asked if at_s < since_s + 60.0] == pytest.approx([1.0, 2.0, *[2.5] * 23])
    for at_s, wait_s in asked[25:]:
        assert wait_s == pytest.approx(min(max(2.5, at_s - since_s - 60.0), 30.0))
    assert asked[-1][1] == 30.0, "as seldom as any that refuses"
    assert ended == [0.5, 2.5]


def test_a_wrong_way_of_asking_is_no_camera_that_may_come_back() -> None:
    wrong = PermanentSourceError("gopher://gate cannot be asked that way", "usage")
    with pytest.raises(PermanentSourceError, match="cannot be asked"):
        Kept(ScriptedSource([], opening=wrong)).events(1)


def test_a_bug_in_the_source_of_a_camera_does_not_end_the_watch() -> None:
    kept = Kept(ScriptedSource([1, ZeroDivisionError("by zero")]))
    lost = kept.events(2)[1]
    assert isinstance(lost, Lost)
    assert "ZeroDivisionError" in lost.reason


class Unclosable(ScriptedSource):
    def close(self) -> None:
        super().close()
        raise OSError("the socket is gone already")


def test_a_source_that_cannot_be_closed_costs_nothing_else() -> None:
    kept = Kept(Unclosable([1]))
    assert [type(event) for event in kept.events(4)] == [Opened, Lost] * 2
    assert kept.group.errors() == []
    assert not kept.group.stopping.is_set()


def test_silence_is_a_stall_then_a_loss() -> None:
    kept = Kept(ScriptedSource([2, 30.0]))
    opened, stalled, lost = kept.events(3)
    assert isinstance(opened, Opened)
    assert isinstance(stalled, Stalled)
    assert isinstance(lost, Lost)
    assert 0.15 <= stalled.silence_s < 2
    assert lost.kind == "timeout"
    assert kept.keeper.abandoned == 0, "a reader that listens is not abandoned"


PACED = [picture(number, time_s=number * 0.5) for number in range(5)]  # a camera of two pictures a second


@pytest.mark.parametrize(
    ("steps", "stalls", "gives_up"),
    [
        pytest.param([5, 0.7], True, True, id="fast, known"),
        pytest.param([*PACED, 0.7], False, False, id="slow by its stamps though they come in a burst"),
        pytest.param([1, 0.7], True, False, id="pace not known: the next key frame may be far away"),
        pytest.param([0.7], True, False, id="no picture of this connection yet"),
    ],
)
def test_a_camera_has_the_time_that_its_pictures_are_apart(steps: list[Any], stalls: bool, gives_up: bool) -> None:
    keep = KeepOptions(live=True, stall_s=0.2, give_up_s=0.4, unpaced_s=5.0, backoff_first_s=0.01, backoff_cap_s=0.01)
    kept = Kept(ScriptedSource(steps), keep=keep)
    found: list[Event] = []
    for event in kept.keeper.events():
        found.append(event)
        if isinstance(event, Lost):
            break
    lost = found[-1]
    assert isinstance(lost, Lost)
    assert (lost.kind == "timeout") is gives_up
    assert any(isinstance(event, Stalled) for event in found) is stalls


@pytest.mark.parametrize("at_once", [1, 2, 6])
def test_a_camera_that_became_slower_than_its_patience_is_not_opened_anew_for_each_picture(at_once: int) -> None:
    """Ten a second by day, at night one in longer than such a camera may be silent; connections begin with some at once."""
    keep = KeepOptions(live=True, stall_s=0.1, give_up_s=0.3, unpaced_s=5.0, backoff_first_s=0.01, backoff_cap_s=0.01)
    night = [at_once, 0.6, 1, 0.6, 1, 0.6, 1, 30.0]
    kept = Kept(ScriptedSource([20]), ScriptedSource(night), keep=keep)
    pictures = 0
    for event in kept.keeper.events():
        pictures += isinstance(event, Picture)
        if kept.keeper.runs > 10 or (kept.keeper.runs > 1 and pictures >= 20 + 3 * at_once + 3):
            kept.stop.set()
    assert kept.keeper.runs == 4, "two connections of nothing more, and then it is known"


def test_a_reader_that_waits_for_the_network_is_not_called_stuck(caplog: pytest.LogCaptureFixture) -> None:
    """It ends when its source is told that nothing comes, which takes as long as the source allows."""
    silent, stuck = threading.Event(), threading.Event()
    keep = replace(FAST, stop_grace_s=0.05, deaf_s=0.6)
    kept = Kept(ScriptedSource([1, silent]), ScriptedSource([1, stuck]), ScriptedSource([1_000_000]), keep=keep)
    threading.Timer(0.8, silent.set).start()
    try:
        began_s = time.monotonic()
        for _ in kept.keeper.events():
            if kept.keeper.runs == 3 and time.monotonic() - began_s > 2.5:
                kept.stop.set()
        said = [record.getMessage() for record in caplog.records if "stuck" in record.getMessage()]
        assert len(said) == 1
        assert said[0].startswith("read:gate: stuck in a native call for ")
    finally:
        silent.set(), stuck.set()


def test_a_pace_outlives_the_connection_and_overrules_what_was_announced() -> None:
    kept = Kept(ScriptedSource([5]), keep=KeepOptions(live=True, stall_s=0.2, give_up_s=0.4, unpaced_s=5.0))
    kept.events(2)
    announced = SourceInfo("test:script", "stream", True, 16, 12, nominal_fps=0.1, codec="none")
    assert kept.keeper.patience_s(announced) == 0.2
    assert kept.keeper._give_up_s(announced, True) == 0.4
    assert kept.keeper._give_up_s(announced, False) == 5.0, "its first picture may take longer"
    unknown = Kept(ScriptedSource([1]), keep=KeepOptions(live=True, stall_s=0.2, give_up_s=0.4, unpaced_s=5.0))
    assert unknown.keeper.patience_s(announced) == 40.0
    assert unknown.keeper._give_up_s(announced, True) == 80.0


@pytest.mark.parametrize(("segmented", "kind"), [(True, "ended"), (False, "timeout")])
def test_what_comes_in_segments_has_its_time_between_them(segmented: bool, kind: str) -> None:
    keep = KeepOptions(live=True, stall_s=0.1, give_up_s=0.3, quiet_s=5.0)
    kept = Kept(ScriptedSource([10, 0.8, 10, 0.8], segmented=segmented), keep=keep)
    lost = next(event for event in kept.events(3) if isinstance(event, Lost))
    assert lost.kind == kind


def test_what_comes_in_segments_is_said_to_stall_before_it_is_given_up() -> None:
    kept = Kept(
        ScriptedSource([10, 30.0], segmented=True), keep=KeepOptions(live=True, stall_s=0.1, give_up_s=0.2, quiet_s=1.0)
    )
    opened, stalled, lost = kept.events(3)
    assert isinstance(opened, Opened)
    assert isinstance(stalled, Stalled)
    assert isinstance(lost, Lost)
    assert stalled.silence_s >= 0.5
    assert "no picture for 1." in lost.reason


def test_a_camera_whose_key_frames_are_far_apart_is_not_silent_while_others_pass() -> None:
    passing = [item for _ in range(8) for item in (0.25, PassedOver())]
    keep = KeepOptions(live=True, stall_s=1.0, give_up_s=1.0, unpaced_s=1.5)
    for script in ([1, *passing], [*passing, 1]):
        opened, lost = Kept(ScriptedSource(script), keep=keep).events(2)
        assert isinstance(opened, Opened)
        assert isinstance(lost, Lost)
        assert lost.kind == "ended"


@pytest.mark.parametrize("where", ["open", "read"])
def test_stuck_readers_are_replaced_reported_and_bounded(where: str) -> None:
    stuck = threading.Event()
    source = ScriptedSource([1, stuck]) if where == "read" else ScriptedSource([], opening=stuck)
    kept = Kept(source)
    try:
        events = kept.events(12)
        assert len(kept.group.abandoned()) == FAST.max_stuck == kept.keeper.abandoned == kept.keeper.runs
        assert isinstance(events[-1], Lost)
        assert "3 readers are stuck" in events[-1].reason
    finally:
        stuck.set()
    assert kept.group.wait(5)


def test_a_recording_is_read_once_and_its_error_is_the_end() -> None:
    kept = Kept(ScriptedSource([5], live=False), keep=KeepOptions())
    assert [type(event) for event in kept.keeper.events()] == [Opened] + [Picture] * 5
    assert kept.keeper.runs == 1
    broken = Kept(
        ScriptedSource([2, PermanentSourceError("film.mp4 is damaged at 0.04 s")], live=False), keep=KeepOptions()
    )
    with pytest.raises(PermanentSourceError, match="damaged"):
        list(broken.keeper.events())


HANGING = threading.Event()
STATES: dict[str, tuple[ScriptedSource, type | None]] = {  # and the event that says that it is in it
    "connecting": (ScriptedSource([], opening=HANGING), None),
    "live": (ScriptedSource([1_000_000]), Picture),
    "stalled": (ScriptedSource([1, 60.0]), Stalled),
    "stuck": (ScriptedSource([1, HANGING]), Stalled),
    "backing off": (ScriptedSource([], opening=REFUSED), Lost),
}


@pytest.mark.parametrize("state", STATES)
def test_the_stop_is_heard_in_every_state_within_three_seconds(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the keeper asks to wait from then on, whatever a busy machine makes of them."""
    script, said = STATES[state]
    kept = Kept(script, keep=KeepOptions(live=True, stall_s=0.1, backoff_first_s=50.0, backoff_cap_s=60.0))
    kept.keeper._backoff = Backoff(50.0, 60.0, lambda: 1.0)
    waits = AskedWaits(monkeypatch, kept.stop.is_set)
    reached = threading.Event()

    def consume() -> None:
        for event in kept.keeper.events():
            if said is not None and isinstance(event, said):
                reached.set()

    consumer = threading.Thread(target=consume, daemon=True)
    consumer.start()
    assert reached.wait(0.3 if said is None else 20) == (said is not None)
    kept.stop.set()
    consumer.join(20)
    assert not consumer.is_alive()
    assert waits.by_thread[consumer.name] < 3.0
