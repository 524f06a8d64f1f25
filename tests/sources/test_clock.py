"""The clock of a source: wraps, resets, jumps, missing and absurd stamps."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampose.sources.clock import RTCP_EARLY_S, SourceClock
from tests.sources.stamping import TB, WALL, run, steps


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(("bits", "tb"), [(33, TB), (32, TB), (32, Fraction(1, 1000))])
def test_a_counter_that_wraps_changes_nothing(live: bool, bits: int, tb: Fraction) -> None:
    tick = int(Fraction(1, 10) / tb)
    start = 2**bits - 5 * tick
    pts = [(start + n * tick) % 2**bits for n in range(40)]
    clock = SourceClock(live=live, nominal_step_s=0.1)
    stamps = run(clock, pts, tb=tb)
    assert clock.wraps == 1
    assert [stamp.jump for stamp in stamps] == [""] * 40
    np.testing.assert_allclose(steps(stamps), 0.1, atol=1e-9)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("to", [0, 90_000 * 7200, 2**32 - 17])
def test_a_reset_begins_one_new_segment_and_time_goes_on(live: bool, to: int) -> None:
    pts = [10_000_000_000 // 3 + 9000 * n for n in range(20)] + [to + 9000 * n for n in range(20)]
    stamps = run(SourceClock(live=live, nominal_step_s=0.1), pts)
    jumps = [n for n, stamp in enumerate(stamps) if stamp.jump]
    assert jumps == [21]  # the second picture of the new clock proves that it is one
    np.testing.assert_allclose(steps(stamps), 0.1, atol=1e-6)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("hours", [-30.0, -3.0, 3.0, 26.5])
def test_one_frame_that_jumps_hours_is_bridged(live: bool, hours: float) -> None:
    pts = [90_000 * 200_000 + 9000 * n for n in range(40)]
    pts[20] += int(hours * 3600 * 90_000)
    stamps = run(SourceClock(live=live, nominal_step_s=0.1), pts)
    assert not any(stamp.jump for stamp in stamps)
    np.testing.assert_allclose(steps(stamps), 0.1, atol=1e-6)


def test_a_recording_sees_a_single_absurd_stamp_by_the_next_one() -> None:
    pts = [9000 * n for n in range(40)]
    pts[20] += 90_000 * 47  # far too little to be suspicious by its size
    clock = SourceClock(live=False, nominal_step_s=0.1)
    following = [*pts[1:], None]
    stamps = [clock.stamp(p, TB, 0.0, WALL, after) for p, after in zip(pts, following, strict=True)]
    assert not any(stamp.jump for stamp in stamps)
    np.testing.assert_allclose(steps(stamps), 0.1, atol=1e-6)


def test_a_variable_rate_recording_keeps_every_stamp_exactly() -> None:
    pts = [0, 3000, 3001, 90_000, 90_000 * 600, 90_000 * 600 + 1, 90_000 * 3000]
    stamps = run(SourceClock(live=False), pts)
    np.testing.assert_allclose([stamp.time_s for stamp in stamps[:2]], [0, 3000 / 90_000], atol=1e-12)
    np.testing.assert_allclose([stamp.time_s for stamp in stamps], np.array(pts) / 90_000, atol=2e-4)


def test_time_lapse_with_steps_of_hours_is_no_break() -> None:
    pts = [90_000 * 3600 * 2 * n for n in range(10)]
    stamps = run(SourceClock(live=False), pts)
    assert not any(stamp.jump for stamp in stamps)
    np.testing.assert_allclose(steps(stamps), 7200.0)


def test_first_pictures_without_stamps_are_neither_lost_nor_doubled() -> None:
    pts: list[int | None] = [None, None, None, *[777_000 + 9000 * n for n in range(10)]]
    stamps = run(SourceClock(live=True), pts)
    assert not any(stamp.jump for stamp in stamps)
    np.testing.assert_allclose(steps(stamps), 0.1, atol=1e-6)


def test_an_absurd_first_stamp_is_forgotten_without_a_break() -> None:
    pts: list[int | None] = [27_000_000_000, *[9000 * n for n in range(10)]]
    stamps = run(SourceClock(live=True), pts)
    assert not any(stamp.jump for stamp in stamps)
    np.testing.assert_allclose(steps(stamps), 0.1, atol=1e-6)


def test_stamps_that_stand_still_leave_time_to_arrival() -> None:
    pts: list[int | None] = [0] * 50 + [9000 * n for n in range(1, 20)]
    stamps = run(SourceClock(live=True), pts)
    np.testing.assert_allclose(steps(stamps), 0.1, atol=1e-6)
    assert not any(stamp.jump for stamp in stamps)


def test_a_repeated_stamp_moves_no_later_one() -> None:
    pts: list[int | None] = [0, 9000, 9000, 27_000, 36_000]
    stamps = run(SourceClock(live=False, nominal_step_s=0.1), pts)
    np.testing.assert_allclose([stamp.time_s for stamp in stamps], [0, 0.1, 0.2, 0.3, 0.4], atol=1e-3)


def test_repeated_stamps_of_a_variable_rate_do_not_add_up() -> None:
    """A shorter step than usual behind a repeated stamp: the bridged picture is past it, the next ones are not."""
    pts: list[int | None] = []
    for n in range(200):
        pts += [n * 6000, n * 6000, n * 6000 + 1500, n * 6000 + 3000]
    stamps = run(SourceClock(live=False, nominal_step_s=1 / 30), pts)
    assert steps(stamps).min() > 0
    away_s = np.array([stamp.time_s for stamp in stamps]) - np.array(pts, float) / 90_000
    assert np.abs(away_s).max() < 0.05


@pytest.mark.parametrize("delay_s", [0.01, 0.1])
def test_stamps_that_a_camera_repeats_now_and_then_leave_its_time_alone(delay_s: float) -> None:
    """Ten minutes of 25 fps over a network that delays each picture by `delay_s` on average, a stamp repeated every 2 s;
    one picture whose stamp is repeated comes 0.9 s late, and those after it at once."""
    rng = np.random.default_rng(1)
    pts: list[int | None] = [3600 * (n - (n % 50 == 49)) for n in range(15_000)]
    late_s = rng.exponential(delay_s, 15_000)
    late_s[7549] = 0.9
    arrivals = np.maximum.accumulate(0.04 * np.arange(15_000) + late_s)
    stamps = run(SourceClock(live=True, nominal_step_s=0.04), pts, [float(arrival_s) for arrival_s in arrivals])
    taken = steps(stamps)
    repeated = np.arange(1, 15_000) % 50 == 49
    np.testing.assert_allclose(taken[~repeated & ~np.roll(repeated, 1)], 0.04, atol=1e-3)
    assert taken[repeated].min() > 0
    assert taken[repeated].max() < 0.0601
    assert taken[np.roll(repeated, 1)].min() > 0.0199
    assert not any(stamp.jump for stamp in stamps)
    away_s = np.array([stamp.time_s for stamp in stamps]) - 0.04 * np.arange(15_000)
    np.testing.assert_allclose(away_s[np.arange(15_000) % 50 == 48], 0.0, atol=1e-3)


@pytest.mark.parametrize("still", [4, 20])
def test_stamps_that_stood_still_and_go_on_from_there_shorten_no_later_step(still: int) -> None:
    pts: list[int | None] = [9000 * min(n, max(20, n - still)) for n in range(60)]
    stamps = run(SourceClock(live=True, nominal_step_s=0.1), pts)
    np.testing.assert_allclose(steps(stamps), 0.1, atol=1e-6)


def test_a_camera_clock_set_back_half_a_second_is_absorbed() -> None:
    pts: list[int | None] = [90_000 + 9000 * n for n in range(20)] + [45_000 + 9000 * n for n in range(20, 40)]
    stamps = run(SourceClock(live=True), pts)
    assert not any(stamp.jump for stamp in stamps)
    assert steps(stamps).min() > 0
    assert abs(stamps[-1].time_s - 3.9) < 0.11


@pytest.mark.parametrize("by_s", [1.6, 4.0, 5.0, 9.0, 9.9, 3600.0])
@pytest.mark.parametrize("fps", [2, 5, 25])
def test_a_camera_clock_set_forward_is_no_hole(by_s: float, fps: int) -> None:
    """Again and again: pictures come on as ever, and so does their time; each setting is told once."""
    each, count = 10 * fps, 40 * fps
    pts: list[int | None] = [90_000 * n // fps + int(90_000 * by_s) * (n // each) for n in range(count)]
    stamps = run(SourceClock(live=True, nominal_step_s=1 / fps), pts, [n / fps for n in range(count)])
    np.testing.assert_allclose(steps(stamps), 1 / fps, atol=1e-3)
    assert [n for n, stamp in enumerate(stamps) if stamp.jump] == [each * k + 1 for k in (1, 2, 3)]
    assert f"jumped by {by_s + 2 / fps:+.3f} s" in stamps[each + 1].jump


def test_a_single_stamp_seconds_ahead_is_bridged() -> None:
    pts: list[int | None] = [18_000 * n + (450_000 if n == 30 else 0) for n in range(60)]
    stamps = run(SourceClock(live=True, nominal_step_s=0.2), pts, [0.2 * n for n in range(60)])
    assert not any(stamp.jump for stamp in stamps)
    np.testing.assert_allclose(steps(stamps), 0.2, atol=1e-3)


def test_a_camera_clock_set_forward_is_told_from_what_the_network_holds_up() -> None:
    """Five pictures a second, late by up to 0.4 s each, and by up to 6 s every twenty seconds, when some are lost, too."""
    rng = np.random.default_rng(1)
    lost = [n for n in range(1000) if n % 100 in (51, 52, 53, 54, 55, 56)]
    late_s = rng.uniform(0.0, 0.4, 1000) + 6.0 * (np.arange(1000) % 100 == 50)
    arrivals = np.maximum.accumulate(0.2 * np.arange(1000) + late_s)
    seen = [n for n in range(1000) if n not in lost]
    pts: list[int | None] = [18_000 * n + 405_000 * ((n + 30) // 250) for n in seen]
    stamps = run(SourceClock(live=True, nominal_step_s=0.2), pts, [float(arrivals[n]) for n in seen])
    assert [n for n, stamp in zip(seen, stamps, strict=True) if stamp.jump] == [221, 471, 721, 971]
    away_s = np.array([stamp.time_s for stamp in stamps]) - 0.2 * np.array(seen)
    assert np.abs(away_s).max() < 1.0, "each setting costs no more than how late its pictures came"


@settings(max_examples=200, deadline=None)
@given(
    skipped=st.lists(st.floats(0, 9), max_size=3),
    fps=st.sampled_from([0.25, 1, 5, 25]),
    seen=st.lists(st.tuples(st.integers(0, 60), st.floats(0, 8)), min_size=1, max_size=25),
    segmented=st.booleans(),
)
def test_holes_of_an_honest_camera_stay_holes(
    skipped: list[float], fps: float, seen: list[tuple[int, float]], segmented: bool
) -> None:
    """A connection begins with pictures that waited, some seconds apart, and goes on as it should for some time; then
    pictures are lost before each that comes, and the network holds it up."""
    clock = SourceClock(live=True, nominal_step_s=1 / fps, segmented=segmented)
    times = [float(s) for s in np.cumsum([0.0, *skipped])]
    opened_s = times[-1]
    pictures = [(time_s, opened_s) for time_s in times]
    pictures += [(opened_s + n / fps, opened_s + n / fps) for n in range(1, 3 + int(3 * fps))]
    for lost, late_s in seen:
        time_s = pictures[-1][0] + (1 + lost) / fps
        pictures.append((time_s, max(pictures[-1][1], time_s + late_s)))
    for time_s, arrival_s in pictures:
        stamp = clock.stamp(round(time_s * 90_000), TB, arrival_s, WALL + arrival_s)
        assert not stamp.jump
        assert stamp.time_s == pytest.approx(time_s, abs=1e-3)


stamp_values = st.one_of(
    st.none(),
    st.integers(-(2**40), 2**40),
    st.integers(0, 1000).map(lambda n: n * 9000),
    st.integers(-5, 5).map(lambda n: (2**33 + n * 9000) % 2**33),
)


@settings(max_examples=200, deadline=None)
@given(
    live=st.booleans(),
    seen=st.lists(st.tuples(stamp_values, st.floats(0, 60)), min_size=1, max_size=60),
    nominal=st.one_of(st.none(), st.floats(0.001, 10)),
)
def test_whatever_comes_time_only_goes_forward(
    live: bool, seen: list[tuple[int | None, float]], nominal: float | None
) -> None:
    clock = SourceClock(live=live, nominal_step_s=nominal)
    arrival_s, last_s = 0.0, -1.0
    for pts, wait_s in seen:
        arrival_s += wait_s
        if pts is not None:
            clock.report(pts, TB, WALL + arrival_s - 1.0, WALL + arrival_s)
        stamp = clock.stamp(pts, TB, arrival_s, WALL + arrival_s)
        assert stamp.time_s > last_s
        assert np.isfinite(stamp.time_s)
        if live:
            assert stamp.captured_s is not None
            assert stamp.captured_s <= arrival_s + 1e-6
            assert stamp.wall_s is not None
            assert stamp.wall_s <= WALL + arrival_s + RTCP_EARLY_S + 1e-6
        last_s = stamp.time_s
    assert clock.time_s == last_s


@settings(max_examples=100, deadline=None)
@given(
    start=st.integers(0, 2**33 - 1),
    ticks=st.lists(st.integers(90, 90_000), min_size=5, max_size=80),
    jitter=st.lists(st.floats(0, 0.5), min_size=80, max_size=80),
    live=st.booleans(),
)
def test_honest_stamps_are_kept_to_the_tick_whatever_the_network_does(
    start: int, ticks: list[int], jitter: list[float], live: bool
) -> None:
    """Any start of a 33-bit counter, any steps from 1 ms to 1 s, any delay: time equals the sum of the steps."""
    sums = np.concatenate([[0], np.cumsum(ticks)])
    clock = SourceClock(live=live)
    arrival_s = 0.0
    for total, late_s in zip(sums, jitter, strict=False):
        arrival_s = max(arrival_s, float(total) / 90_000 + late_s)
        stamp = clock.stamp(int(start + total) % 2**33, TB, arrival_s, WALL + arrival_s)
        assert not stamp.jump
        assert stamp.time_s == pytest.approx(float(total) / 90_000, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    glitches=st.dictionaries(st.integers(3, 90), st.integers(-(2**34), 2**34), max_size=12),
    live=st.booleans(),
)
def test_single_absurd_stamps_never_shift_their_neighbours(glitches: dict[int, int], live: bool) -> None:
    """Absurd: an hour and more off, two or more good stamps between any two."""
    lonely = {
        place: by for place, by in glitches.items() if not {place - 1, place - 2, place + 1, place + 2} & set(glitches)
    }
    clock = SourceClock(live=live, nominal_step_s=0.1)
    for n in range(100):
        off = lonely.get(n, 0)
        if abs(off) < 90_000 * 3700 or abs(abs(off) - 2**33) < 90_000 * 3700 or abs(abs(off) - 2**32) < 90_000 * 3700:
            off = 0
        stamp = clock.stamp(2**35 + 9000 * n + off, TB, 0.1 * n, WALL + 0.1 * n)
        assert not stamp.jump
        assert stamp.time_s == pytest.approx(0.1 * n, abs=1e-6)
