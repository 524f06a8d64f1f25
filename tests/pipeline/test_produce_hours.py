"""Producer of a camera with hours: let go outside them, the pause told as a gap, and the account closed."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampose.errors import TransientSourceError
from streampose.hours import Hours
from streampose.messages import Break, CameraState
from tests.pipeline.scripted import FAST, STEP_S, ScriptedSource, frames, gaps, produce, states


class Dial:
    """A clock of the day that a test turns."""

    def __init__(self, hour: int) -> None:
        self.hour = hour

    def __call__(self) -> datetime:
        return datetime(2026, 11, 25, self.hour)


def test_outside_its_hours_a_camera_is_let_go_and_the_time_is_a_gap() -> None:
    dial = Dial(8)
    made: list[ScriptedSource] = []
    turned: list[float] = []

    def source() -> ScriptedSource:
        made.append(ScriptedSource([5, 60.0]))
        return made[-1]

    def until(said: list[Any]) -> bool:
        if len(frames(said)) == 5 and dial.hour == 8:
            dial.hour = 23
        if "paused" in states(said) and dial.hour == 23:
            turned.append(time.monotonic())
            assert made[0].closed or not turned[:-1]
            threading.Timer(0.3, lambda: setattr(dial, "hour", 7)).start()
            dial.hour = 22
        return len(frames(said)) >= 10

    keep = replace(FAST, hours=Hours.parse(["06:00-22:00"]), local_time=dial, stall_s=5.0, give_up_s=9.0)
    said, producer, ledger = produce(source, keep, until=until)
    assert producer.keeper.runs == 2
    assert made[0].closed
    assert states(said)[:5] == ["connecting", "live", "paused", "connecting", "live"]
    paused = next(m for m in said if isinstance(m, CameraState) and m.state == "paused")
    assert paused.reason == "outside its hours, until 06:00"
    seen = frames(said)
    first, second = gaps(said)[:2]
    assert (first.cause, second.cause) == ("paused", "disconnected")
    assert first.start_s == seen[4].time_s
    assert first.end_s == second.start_s
    assert second.end_s == seen[5].time_s
    assert first.end_s - first.start_s >= 0.3
    assert [m.reason for m in said if isinstance(m, Break)] == ["start", "watched again after a pause"]
    watched_s = seen[-1].time_s - seen[0].time_s
    missed_s = sum(gap.end_s - gap.start_s for gap in gaps(said))
    assert watched_s - missed_s == pytest.approx(8 * STEP_S, abs=1e-6), "frames seen + gaps = time watched"
    assert ledger.counts.decoded == len(seen)


def test_a_recording_that_waited_for_its_hours_begins_after_them() -> None:
    dial = Dial(8)
    timer = threading.Timer(0.2, lambda: setattr(dial, "hour", 12))
    keep = replace(FAST, hours=Hours.parse(["10:00-14:00"]), local_time=dial)
    timer.start()
    said, _, _ = produce(lambda: ScriptedSource([5], live=False), keep)
    seen = [frame.time_s for frame in frames(said)]
    paused, connecting = gaps(said)
    assert (paused.cause, paused.start_s, connecting.cause) == ("paused", 0.0, "disconnected")
    assert 0.0 < paused.end_s == connecting.start_s <= connecting.end_s == seen[0]
    np.testing.assert_allclose(np.diff(seen), STEP_S, atol=1e-9)


def test_a_camera_stopped_outside_its_hours_has_told_the_pause() -> None:
    keep = replace(FAST, hours=Hours.parse(["22:00-06:00"]), local_time=Dial(12))
    began_s = time.monotonic()
    said, producer, _ = produce(
        lambda: ScriptedSource([5]), keep, until=lambda s: time.monotonic() - began_s > 0.2 or "paused" in states(s)
    )
    assert producer.keeper.runs == 0, "it was never asked"
    assert states(said) == ["connecting", "paused", "ended"]
    (gap,) = gaps(said)
    assert (gap.cause, gap.start_s) == ("paused", 0.0)
    assert frames(said) == []


def test_hours_end_the_wait_between_tries_too() -> None:
    dial = Dial(8)
    away = TransientSourceError("rtsp://gate refuses the connection", "refused")

    def until(said: list[Any]) -> bool:
        if "reconnecting" in states(said):
            dial.hour = 23
        return "paused" in states(said)

    keep = replace(FAST, hours=Hours.parse(["06:00-22:00"]), local_time=dial, backoff_first_s=60.0, backoff_cap_s=60.0)
    said, _, _ = produce(lambda: ScriptedSource([], opening=away), keep, until=until)
    assert [gap.cause for gap in gaps(said)][:2] == ["disconnected", "paused"]


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from([8, 23]), min_size=1, max_size=6), st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_whatever_the_hours_the_account_closes(hours: list[int], scripts: list[int]) -> None:
    dial = Dial(hours[0])
    order = itertools.chain(iter(hours[1:]), itertools.repeat(8))
    left = itertools.chain((ScriptedSource([n, 0.02]) for n in scripts), iter(lambda: ScriptedSource([3, 0.02]), None))
    goal = sum(scripts) + 6
    turned = [time.monotonic()]

    def until(said: list[Any]) -> bool:
        return len(frames(said)) >= goal

    def local_time() -> datetime:
        if time.monotonic() - turned[0] > 0.03:
            turned[0] = time.monotonic()
            dial.hour = next(order)
        return dial()

    keep = replace(FAST, hours=Hours.parse(["06:00-22:00"]), local_time=local_time)
    said, _, ledger = produce(lambda: next(left), keep, until=until)
    spans = sorted((gap.start_s, gap.end_s) for gap in gaps(said))
    assert all(before[1] <= after[0] + 1e-9 for before, after in itertools.pairwise(spans))
    times = [frame.time_s for frame in frames(said)]
    assert not any(start + 1e-9 < t < stop - 1e-9 for t in times for start, stop in spans), "a frame in a gap"
    for before, after in itertools.pairwise(frames(said)):
        told_s = sum(max(0.0, min(b, after.time_s) - max(a, before.time_s)) for a, b in spans)
        step_s = after.time_s - before.time_s
        assert told_s == pytest.approx(step_s if after.segment != before.segment else 0.0, abs=1e-6)
    assert ledger.counts.decoded == len(times)
