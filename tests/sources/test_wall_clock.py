"""When a picture was captured, on the host's and the wall clock: by its arrival, sender reports or the container."""

from __future__ import annotations

import numpy as np
import pytest

from streampose.sources.clock import RTCP_KEPT_S, RTCP_VOTES, SourceClock
from tests.sources.stamping import TB, WALL, run


@pytest.mark.parametrize("ppm", [-300, 300])
def test_a_week_of_drift_is_no_break_and_the_wall_clock_follows(ppm: int) -> None:
    clock = SourceClock(live=True)
    arrivals = [20.0 * n for n in range(30_240)]
    for arrival_s in arrivals:
        stamp = clock.stamp(round(arrival_s * (1 + ppm * 1e-6) * 90_000), TB, arrival_s, WALL + arrival_s)
        assert not stamp.jump
        assert stamp.wall_s is not None
        assert abs(stamp.wall_s - (WALL + arrival_s)) < 0.02
    assert stamp.time_s == pytest.approx(arrivals[-1] * (1 + ppm * 1e-6), abs=1e-3)


def test_a_burst_after_a_stall_keeps_capture_times() -> None:
    """Five seconds of silence, then everything at once: the pictures say when they were taken, not when they came."""
    arrivals = [0.1 * n if n < 50 or n >= 100 else 10.0 for n in range(150)]
    pts: list[int | None] = [9000 * n for n in range(150)]
    stamps = run(SourceClock(live=True), pts, arrivals)
    walls = np.array([stamp.wall_s for stamp in stamps], np.float64) - WALL
    np.testing.assert_allclose(walls, 0.1 * np.arange(150), atol=1e-3)
    assert stamps[50].captured_s == pytest.approx(5.0, abs=1e-3)


def test_the_host_clock_being_set_shows_at_once_in_the_wall_clock() -> None:
    clock = SourceClock(live=True)
    run(clock, [9000 * n for n in range(20)])
    stamp = clock.stamp(9000 * 20, TB, 2.0, WALL + 2.0 + 3600.0)
    assert stamp.wall_s == pytest.approx(WALL + 3602.0)


@pytest.mark.parametrize("true_fps", [24.9, 24.0, 20.0, 12.5])
def test_stamps_that_run_slow_are_no_age(true_fps: float) -> None:
    """A camera that counts 25 pictures a second and sends fewer: none of them is old, however long it does so."""
    clock = SourceClock(live=True, nominal_step_s=0.04)
    rng = np.random.default_rng(1)
    for n in range(int(90 * true_fps)):
        arrival_s = n / true_fps + float(rng.uniform(0.0, 0.02))
        stamp = clock.stamp(3600 * n, TB, arrival_s, WALL + arrival_s)
        if arrival_s > 17.0:
            assert stamp.captured_s == pytest.approx(n / true_fps, abs=0.1)
            assert stamp.wall_s == pytest.approx(WALL + n / true_fps, abs=0.1)


def test_a_picture_that_waited_is_old_also_where_the_stamps_run_slow() -> None:
    """25 pictures a second by their stamps, 24 in truth, and every 15 s the network holds them back for two seconds."""
    clock = SourceClock(live=True, nominal_step_s=0.04)
    for n in range(24 * 90):
        sent_s = n / 24
        held_s = sent_s % 15
        arrival_s = sent_s if held_s >= 2.0 or sent_s < 30 else sent_s - held_s + 2.0 + 0.001 * held_s
        stamp = clock.stamp(3600 * n, TB, arrival_s, WALL + arrival_s)
        if arrival_s > 17.0:
            assert stamp.captured_s == pytest.approx(sent_s, abs=0.15)


def test_a_backlog_that_builds_up_is_age() -> None:
    """A decoder that needs 50 ms for pictures that come every 40: what waits in the socket gets older and older."""
    clock = SourceClock(live=True, nominal_step_s=0.04)
    for n in range(1000):
        sent_s = 0.04 * n
        arrival_s = sent_s if n < 750 else 0.04 * 750 + 0.05 * (n - 750)
        stamp = clock.stamp(3600 * n, TB, arrival_s, WALL + arrival_s)
        assert stamp.captured_s == pytest.approx(sent_s, abs=0.01)
    assert arrival_s - sent_s > 2.0


@pytest.mark.parametrize("behind_s", [0.6, 1.5, 5.0, 30.0])
def test_a_camera_whose_clock_is_late_is_not_old(behind_s: float) -> None:
    """Its reports tell the wall time and no more: how old a picture is, is known here."""
    clock = SourceClock(live=True, nominal_step_s=0.04)
    for n in range(500):
        arrival_s = 0.04 * n + 0.08
        if n and n % 25 == 0:
            clock.report(3600 * n, TB, WALL + 0.04 * n - behind_s, WALL + arrival_s)
        stamp = clock.stamp(3600 * n, TB, arrival_s, WALL + arrival_s)
        assert stamp.captured_s == pytest.approx(arrival_s, abs=1e-3)
    assert (stamp.wall_source, stamp.wall_s) == ("rtcp", pytest.approx(WALL + 0.04 * n - behind_s, abs=1e-3))


@pytest.mark.parametrize("burst", [0, 40])
def test_pictures_that_nobody_took_in_time_keep_their_time_of_capture(burst: int) -> None:
    """10 fps, each taken 0.3 s after the one before from the eighth second on, for ten minutes; then as they come."""
    clock = SourceClock(live=True, opening_s=4.0)
    now_s = 0.0
    for n in range(12_000):
        sent_s = 0.1 * n
        busy = 80 <= n < 2_000
        came_s = max(sent_s, 4.0 if n < burst else 0.0, now_s + 0.001)
        blocked_s = max(now_s + 0.3 - came_s, 0.0) if busy else 0.0
        now_s = came_s + blocked_s
        stamp = clock.stamp(9000 * n, TB, now_s, WALL + now_s, blocked_s=blocked_s)
        assert stamp.wall_s is not None
        assert stamp.wall_uncertainty_s is not None
        error_s = abs(stamp.wall_s - WALL - sent_s)
        assert error_s <= stamp.wall_uncertainty_s
        if n > burst:
            assert error_s < 0.05
        if n in (1_999, 11_999):
            assert stamp.wall_uncertainty_s < 0.2
    assert now_s - sent_s < 0.01, "it has caught up"


def test_a_network_that_is_slower_after_a_while_of_blocking_is_followed() -> None:
    clock = SourceClock(live=True)
    for n in range(3_000):
        blocked_s = 0.06 if n < 600 else 0.0
        arrival_s = 0.1 * n + blocked_s + (0.5 if n >= 300 else 0.0)
        stamp = clock.stamp(9000 * n, TB, arrival_s, WALL + arrival_s, blocked_s=blocked_s)
    assert stamp.captured_s == pytest.approx(0.1 * n + 0.5, abs=0.01)


@pytest.mark.parametrize(("opening_s", "late_s", "segmented"), [(3.0, 2.5, False), (0.1, 8.6, True), (0.2, 6.0, False)])
def test_while_the_beginning_still_catches_up_its_wall_time_is_uncertain(
    opening_s: float, late_s: float, segmented: bool
) -> None:
    """What waited while the connection was opened comes at 100 fps, then 10 fps as they are taken. Where nobody can know
    beforehand how old the first one is, the later ones tell."""
    clock = SourceClock(live=True, opening_s=opening_s, segmented=segmented)
    for n in range(400):
        arrival_s = max(0.1 * n, late_s + 0.01 * n)
        stamp = clock.stamp(9000 * n, TB, arrival_s, WALL + arrival_s)
        assert stamp.wall_s is not None
        assert stamp.wall_uncertainty_s is not None
        error_s = stamp.wall_s - WALL - 0.1 * n
        if late_s <= max(opening_s, 10.0 * segmented) or error_s <= late_s / 2:
            assert error_s <= stamp.wall_uncertainty_s + 1e-6
    assert stamp.wall_uncertainty_s == (2.0 if segmented else 0.1)


def test_sender_reports_are_preferred_to_arrival_and_carried_between_reports() -> None:
    clock = SourceClock(live=True)
    late_s = 0.4  # the network's part, which arrival cannot see
    first = clock.stamp(0, TB, late_s, WALL + late_s)
    assert first.wall_source == "arrival"
    clock.report(9000, TB, WALL + 0.1, WALL + 0.1 + late_s)
    for n in range(1, 300):
        stamp = clock.stamp(9000 * n, TB, 0.1 * n + late_s, WALL + 0.1 * n + late_s)
        assert stamp.wall_source == "rtcp"
        assert stamp.wall_s == pytest.approx(WALL + 0.1 * n, abs=1e-3)
        assert stamp.captured_s == pytest.approx(0.1 * n + late_s, abs=1e-3)
        assert stamp.wall_uncertainty_s is not None
        assert stamp.wall_uncertainty_s < 0.1


@pytest.mark.parametrize("wrong_s", [-86_400 * 365 * 30, -3600.0, 3600.0, -20.0])
def test_one_absurd_report_changes_nothing(wrong_s: float) -> None:
    clock = SourceClock(live=True)
    clock.stamp(0, TB, 0.0, WALL)
    for n in range(1, 20):
        clock.report(9000 * n, TB, WALL + 0.1 * n + (wrong_s if n == 10 else 0.0), WALL + 0.1 * n)
        stamp = clock.stamp(9000 * n, TB, 0.1 * n, WALL + 0.1 * n)
        assert stamp.wall_s == pytest.approx(WALL + 0.1 * n, abs=1e-3)


def test_reports_that_agree_with_each_other_win() -> None:
    clock = SourceClock(live=True)
    clock.stamp(0, TB, 10.0, WALL + 10.0)
    for n in range(1, 20):
        shift_s = 0.0 if n < 10 else -2.0
        clock.report(9000 * n, TB, WALL + 0.1 * n + 9.9 + shift_s, WALL + 0.1 * n + 10.0)
        stamp = clock.stamp(9000 * n, TB, 0.1 * n + 10.0, WALL + 0.1 * n + 10.0)
        expected_s = WALL + 0.1 * n + 9.9 + (0.0 if n < 9 + RTCP_VOTES else -2.0)
        assert stamp.wall_s == pytest.approx(expected_s, abs=1e-3)


def test_a_camera_whose_clock_was_never_set_is_no_witness() -> None:
    clock = SourceClock(live=True)
    clock.stamp(0, TB, 0.0, WALL)
    for n in range(1, 20):
        clock.report(9000 * n, TB, 0.1 * n, WALL + 0.1 * n)  # 1970
        assert clock.stamp(9000 * n, TB, 0.1 * n, WALL + 0.1 * n).wall_source == "arrival"


def test_reports_that_are_no_longer_believed_give_way_to_arrival_until_they_are() -> None:
    """A camera that is set to summer time for some hours; its stamps are 100 ppm slow against its NTP clock."""
    clock = SourceClock(live=True)
    late_s, kept_s, worst_s = 0.1, 0.0, 0.0
    for n in range(8 * 3600):
        true_s = float(n)
        pts, here_s = int(true_s * (1 - 1e-4) * 90_000), true_s + late_s
        wrong = 3600 <= n < 7 * 3600
        clock.report(pts, TB, WALL + true_s + 3600.0 * wrong, WALL + here_s)
        stamp = clock.stamp(pts, TB, here_s, WALL + here_s)
        worst_s = max(worst_s, abs((stamp.wall_s or 0.0) - WALL - true_s))
        kept_s += wrong and stamp.wall_source == "rtcp"
        assert clock.refuses_reports == (wrong and stamp.wall_source == "arrival")
    assert worst_s < late_s + 0.01
    assert kept_s <= RTCP_KEPT_S + 1
    assert stamp.wall_source == "rtcp"


def test_a_report_stands_for_those_that_stay_away_only_for_a_while() -> None:
    clock = SourceClock(live=True)
    clock.stamp(0, TB, 0.0, WALL)
    clock.report(90_000, TB, WALL + 1.0, WALL + 1.0)
    sources = [clock.stamp(90_000 * n, TB, float(n), WALL + n).wall_source for n in range(1, 120)]
    assert sources == ["rtcp"] * 61 + ["arrival"] * 58


def test_reports_survive_a_wrap() -> None:
    clock = SourceClock(live=True)
    start = 2**33 - 45_000
    for n in range(20):
        pts = (start + 9000 * n) % 2**33
        clock.report(pts, TB, WALL + 0.1 * n, WALL + 0.1 * n + 0.3)
        stamp = clock.stamp(pts, TB, 0.1 * n + 0.3, WALL + 0.1 * n + 0.3)
        if n:
            assert (stamp.wall_source, stamp.jump) == ("rtcp", "")
            assert stamp.wall_s == pytest.approx(WALL + 0.1 * n, abs=1e-3)


def test_a_recording_has_the_containers_wall_clock_or_none() -> None:
    dated = run(SourceClock(live=False, start_wall_s=WALL), [0, 9000, 18_000])
    assert [(s.wall_source, s.wall_s) for s in dated] == [("container", WALL + 0.1 * n) for n in range(3)]
    assert dated[0].wall_uncertainty_s == 1.0
    undated = run(SourceClock(live=False), [0, 9000])
    assert [(s.wall_source, s.wall_s, s.captured_s) for s in undated] == [("none", None, None)] * 2


def test_a_packet_after_a_jump_of_a_recording_goes_on_from_the_last_picture() -> None:
    """It has no time yet; that of the recording's beginning is not it."""
    clock = SourceClock(live=False, start_wall_s=WALL)
    assert clock.wall_of(0, TB, 0.0, 0.0) == WALL
    run(clock, [9000 * n for n in range(10)])
    assert clock.wall_of(9000 * 10, TB, 1.0, 1.0) == pytest.approx(WALL + 1.0)
    assert clock.wall_of(9000 * 10 + 90_000 * 7200, TB, 1.0, 1.0) == pytest.approx(WALL + 1.0)
