"""LoadGovernor: keeps the contract where rungs can, says each change once, gives the work back, and does not swing."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.messages import Degrade
from streampose.pipeline.governor import LADDER, Effort, LoadGovernor

MAX_AGE_S = 0.5


class Machine:
    """A machine that needs `detect_s` and `pose_s` for a frame of a camera of `fps`; the newest frame wins.

    Pure simulation of one camera: a frame is taken when the machine is free; its result's age is its wait and its work.
    """

    def __init__(self, detect_s: float, pose_s: float, fps: float = 15.0, seed: int = 1) -> None:
        self.detect_s, self.pose_s, self.fps = detect_s, pose_s, fps
        self.now_s = 0.0
        self.taken = 0
        self.kept_s = -1e9
        self.draw = random.Random(seed)

    def work_s(self, effort: Effort) -> float:
        """Detection and pose both run behind each other, in batches over `every` frames: the mean is what queues feel."""
        jitter = self.draw.uniform(0.9, 1.1)
        return jitter * (self.detect_s * effort.scale**2 / effort.detect_every + self.pose_s / effort.pose_every)

    def run(self, governor: LoadGovernor, seconds: float, slower: float = 1.0) -> tuple[list[Degrade], list[float]]:
        """The changes and the ages of the last half of `seconds`."""
        changes: list[Degrade] = []
        ages: list[float] = []
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            newest_s = int(self.now_s * self.fps) / self.fps
            effort = governor.settings
            if newest_s <= self.kept_s or (effort.fps and newest_s - self.kept_s < 0.9 / effort.fps):
                self.now_s += 0.005
                continue
            self.kept_s = newest_s
            self.now_s += self.work_s(effort) * slower
            age_s = 2.0 * (self.now_s - newest_s)  # one frame waits in front of each of the two stages
            change = governor.observe(age_s, newest_s)
            if change is not None:
                changes.append(change)
            if self.now_s > until_s - seconds / 2:
                ages.append(age_s)
        return changes, ages


def p95(ages: list[float]) -> float:
    return sorted(ages)[int(0.95 * len(ages))]


def test_nothing_changes_while_results_are_young() -> None:
    governor = LoadGovernor("gate", MAX_AGE_S)
    changes, ages = Machine(0.03, 0.03).run(governor, 60)
    assert changes == []
    assert p95(ages) < MAX_AGE_S
    assert governor.settings == Effort()


def test_networks_five_times_slower_stay_inside_the_contract_and_every_step_is_told() -> None:
    governor = LoadGovernor("gate", MAX_AGE_S)
    machine = Machine(0.06, 0.03)
    assert machine.run(governor, 20)[0] == []
    changes, ages = machine.run(governor, 60, slower=5.0)
    assert changes
    assert [change.step for change in changes] == list(range(1, len(changes) + 1)), "one rung at a time"
    assert changes[0].what == "detect on every 2nd frame"
    assert "max_age is 500 ms" in changes[0].reason
    assert p95(ages) < MAX_AGE_S
    back, ages = machine.run(governor, 200)
    assert back
    assert governor.settings == Effort()
    assert back[-1].step == 0
    assert back[-1].what == "full work"
    assert p95(ages) < MAX_AGE_S


def test_a_machine_that_is_nearly_good_enough_does_not_swing() -> None:
    """Full work is too much and half of it very little: each relapse doubles the wait before the next trial."""
    governor = LoadGovernor("gate", MAX_AGE_S, ["detect_every"])
    changes, _ = Machine(0.2, 0.0, fps=30).run(governor, 1200)
    climbs = [change.time_s for change in changes if change.step == 1 and "old, max_age" in change.reason]
    waits = [b - a for a, b in itertools.pairwise(climbs) if a is not None and b is not None]
    assert len(changes) <= 16
    assert all(later > earlier * 1.3 for earlier, later in itertools.pairwise(waits)), waits


def test_a_bad_day_is_forgotten_once_full_work_has_held() -> None:
    """Relapses make the way back slow; a short overload of a later day is no relapse."""

    def seconds_to_full_work(governor: LoadGovernor, machine: Machine) -> float:
        machine.run(governor, 30, slower=20.0)
        assert governor.step
        began_s = machine.now_s
        while governor.step:
            machine.run(governor, 1)
        return machine.now_s - began_s

    governor, machine = LoadGovernor("gate", MAX_AGE_S), Machine(0.03, 0.03)
    fresh_s = seconds_to_full_work(governor, machine)
    for _ in range(6):
        machine.run(governor, 12, slower=20.0)
        while governor.step:
            machine.run(governor, 1)
    relapsed_s = seconds_to_full_work(governor, machine)
    machine.run(governor, 600)
    assert seconds_to_full_work(governor, machine) == pytest.approx(fresh_s, rel=0.3)
    assert relapsed_s > 3 * fresh_s


def test_a_step_that_must_stay_slows_down_the_way_back_to_no_other() -> None:
    """Full work is too much for this machine, the first step is not: it is tried in vain every five minutes."""

    def run(since_s: int, until_s: int, needed: int) -> list[Degrade]:
        changes = (
            governor.observe(0.1 if governor.step >= needed else 0.6, n / 10) for n in range(10 * since_s, 10 * until_s)
        )
        return [change for change in changes if change]

    governor = LoadGovernor("gate", MAX_AGE_S)
    tries = run(0, 3600, 1)
    assert {change.step for change in tries} == {0, 1}
    waits = [there.time_s - back.time_s for back, there in itertools.pairwise(tries) if there.step == 0]
    assert waits[-1] == pytest.approx(300.0, rel=0.02)
    highest = max(change.step for change in run(3600, 3630, 99))
    assert highest > 5
    back = run(3630, 3800, 1)
    assert [change.step for change in back] == list(range(highest - 1, 0, -1))


def test_the_ladder_is_climbed_in_its_order_and_keeps_what_it_took() -> None:
    governor = LoadGovernor("gate", MAX_AGE_S, ["fps", "resolution"])
    told = [change for n in range(2000) if (change := governor.observe(2.0, n * 0.1))]
    assert [change.what for change in told] == [
        "8 frames a second",
        "4 frames a second",
        "1 frame a second",
        "detect at half resolution",
    ]
    assert governor.settings == Effort(fps=1.0, scale=0.5)


def test_one_late_result_is_no_reason() -> None:
    governor = LoadGovernor("gate", MAX_AGE_S)
    assert not [n for n in range(1000) if governor.observe(3.0 if n % 50 == 0 else 0.1, n * 0.1)]


@given(ages=st.lists(st.floats(0, 5), max_size=300), step_s=st.floats(0.01, 1.0))
def test_steps_go_one_at_a_time_and_stay_on_the_ladder(ages: list[float], step_s: float) -> None:
    governor = LoadGovernor("gate", MAX_AGE_S, LADDER)
    before = 0
    for number, age_s in enumerate(ages):
        change = governor.observe(age_s, number * step_s)
        if change is not None:
            assert abs(change.step - before) == 1
            assert change.step == governor.step
            before = change.step
        assert governor.step == before


def test_a_contract_of_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        LoadGovernor("gate", 0.0)
