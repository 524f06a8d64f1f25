"""Hindsight: equal to filterpy's smoother, without lag, honest in gaps, kind to whoever was confirmed late."""

from __future__ import annotations

from dataclasses import replace

import filterpy.kalman
import numpy as np
import pytest

from streampose.messages import Person
from streampose.track.offline import UNKNOWN, Moment, smooth_recording, smooth_track
from streampose.track.options import SmoothOptions
from streampose.track.smoother import COAST_DECAY, VELOCITY_STD, joint_spread, noise_var, process_noise
from tests.track.figures import SIGMAS, box, make, nobody, pose, seeing, step
from tests.track.oracle import motion

OPTIONS = SmoothOptions()
SIZE = 200.0


STILL = box(100, 100, SIZE).astype(np.float64)


@pytest.mark.parametrize(("rate", "coast_s"), [(0.7, np.inf), (0.7, 0.5), (0.2, 0.5)])
def test_it_is_filterpys_smoother(rate: float, coast_s: float) -> None:
    """Every joint and axis of a track with uneven times and missing points, against filterpy's rts_smoother; what is
    hidden for more than `coast_s` slows down."""
    rng, options = np.random.default_rng(5), replace(OPTIONS, coast_s=coast_s)
    times_s = np.cumsum(rng.uniform(0.02, 0.3, 30))
    raw = np.concatenate((rng.normal(100, 15, (30, 17, 2)), rng.uniform(0.3, 0.9, (30, 17, 1))), axis=2)
    used = rng.random((30, 17)) < rate
    raw[~used & (rng.random((30, 17)) < 0.5)] = np.nan
    points, std = smooth_track(times_s, raw, used, np.tile(STILL, (30, 1)), options, SIGMAS)
    r = noise_var(np.nan_to_num(raw[..., 2]), np.full((30, 1), SIZE), joint_spread(SIGMAS), options)
    dts, q = np.diff(times_s), float(process_noise(SIZE, options))
    slowed = 0
    for joint in range(17):
        fs, qs = [np.eye(2)], [np.zeros((2, 2))]
        for t, dt in enumerate(dts):
            before, after = times_s[: t + 1][used[: t + 1, joint]], times_s[t + 1 :][used[t + 1 :, joint]]
            hidden_s = after[0] - before[-1] if len(before) and len(after) else np.inf
            slows = hidden_s > coast_s and not (used[t, joint] and used[t + 1, joint])
            f, noise = motion(float(dt), q, COAST_DECAY if slows else 0.0)
            fs.append(f)
            qs.append(noise)
            slowed += slows
        for axis in range(2):
            one = filterpy.kalman.KalmanFilter(dim_x=2, dim_z=1)
            one.H = np.array([[1.0, 0.0]])
            one.x = np.array([[raw[used[:, joint].argmax(), joint, axis]], [0.0]])
            velocity_var = (2 * VELOCITY_STD * SIZE) ** 2 if used[0, joint] else q / (2 * COAST_DECAY)
            one.P = np.diag([(UNKNOWN * SIZE) ** 2, velocity_var])
            xs, ps = [], []
            for t in range(30):
                if t:
                    one.F, one.Q = fs[t], qs[t]
                    one.predict()
                if used[t, joint]:
                    one.update(raw[t, joint, axis], R=r[t, joint])
                xs.append(one.x.copy())
                ps.append(one.P.copy())
            x, p, _, _ = one.rts_smoother(np.array(xs), np.array(ps), Fs=fs, Qs=qs)
            np.testing.assert_allclose(points[:, joint, axis], x[:, 0, 0], rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(std[:, joint] ** 2, p[:, 0, 0], rtol=1e-5)
    assert (slowed > 0) == np.isfinite(coast_s)


def test_a_body_that_walks_is_one_that_stands_seen_while_walking_along() -> None:
    rng, times_s = np.random.default_rng(6), np.arange(40) / 10
    raw = np.concatenate((rng.normal(100, 5, (40, 17, 2)), np.full((40, 17, 1), 0.9)), axis=2)
    used = np.ones((40, 17), bool)
    used[:12, :4] = used[20:30, 4:8] = used[25:, 8:] = False
    way = times_s[:, None] * np.array([150.0, -20.0])
    still, still_std = smooth_track(times_s, raw, used, np.tile(STILL, (40, 1)), OPTIONS, SIGMAS)
    moving = raw + np.pad(way, ((0, 0), (0, 1)))[:, None]
    walking, walking_std = smooth_track(times_s, moving, used, STILL + np.tile(way, 2), OPTIONS, SIGMAS)
    np.testing.assert_allclose(walking[..., :2] - way[:, None], still[..., :2], atol=0.2)
    np.testing.assert_allclose(walking_std, still_std)


def test_a_joint_never_measured_is_nowhere() -> None:
    raw = np.tile(pose(box(300, 300)), (10, 1, 1)).astype(np.float64)
    used = np.ones((10, 17), bool)
    used[:, 4] = False
    points, std = smooth_track(np.arange(10) / 10, raw, used, np.tile(STILL, (10, 1)), OPTIONS, SIGMAS)
    assert np.isnan(points[:, 4, :2]).all()
    assert np.isinf(std[:, 4]).all()
    assert (points[:, 4, 2] == 0).all()
    assert np.isfinite(points[:, :4]).all()


def test_where_a_joint_never_measured_lies_nobody_claims_to_know() -> None:
    tracker = make()
    legless = np.where(np.arange(17) >= 11, 0.03, 0.9)

    def look(of: np.ndarray) -> np.ndarray:
        return np.column_stack((pose(of)[:, :2], legless)).astype(np.float32)

    moments = [(n, n / 10, step(tracker, n / 10, [box(300, 300)], look=look)) for n in range(20)]
    for moment in (moments[-1], smooth_recording(moments, OPTIONS, SIGMAS)[-1]):
        assert np.isinf(only(moment).std[11:]).all()
        assert (only(moment).std[:11] < 10).all()
        assert np.isfinite(only(moment).keypoints).all()


@pytest.mark.parametrize("speed", [0.0, 6.0])
@pytest.mark.parametrize(("first", "last"), [(30, 200), (30, 120), (0, 40)])
def test_a_joint_hidden_for_long_stays_with_its_body(first: int, last: int, speed: float) -> None:
    """Legs out of sight of somebody who stands or walks, in frames `first` to `last` of 200 at 10 fps."""
    tracker, rng, moments = make(), np.random.default_rng(3), []
    boxes = [box(60 + speed * n, 360, 300) for n in range(200)]
    for n, there in enumerate(boxes):

        def look(of: np.ndarray, n: int = n, there: np.ndarray = there) -> np.ndarray:
            found = pose(there)
            found[:, :2] += rng.normal(0, 2.5, (17, 2)).astype(np.float32)
            found[11:, 2] = 0.03 if first <= n < last else 0.9
            return found

        moments.append((n, n / 10, step(tracker, n / 10, [there], look=look)))
    truth = np.array([pose(there)[11:, :2] for there in boxes])

    def error(of: list[Moment]) -> float:
        away = np.array([only(moment).keypoints[11:, :2] for moment in of]) - truth
        return float(np.linalg.norm(away[first:last], axis=2).mean())

    smooth = smooth_recording(moments, OPTIONS, SIGMAS)
    assert error(smooth) < 30
    if first:
        assert error(smooth) <= error(moments)


@pytest.mark.parametrize("hides", [False, True])
def test_a_pose_that_was_not_asked_for_hides_no_joint(hides: bool) -> None:
    """Detected at 10 fps, posed on every eighth frame, swaying: what is smoothed is what it is where nothing decays, unless
    the poses between lack the legs."""
    tracker, moments = make(pose_every=8), []
    for n in range(63):  # the last of them is posed

        def look(of: np.ndarray, n: int = n) -> np.ndarray:
            found = pose(box(300 + 30 * np.sin(0.25 * n), 300))
            found[11:, 2] = 0.03 if hides and 10 < n < 50 else 0.9
            return found

        moments.append((n, n / 10, step(tracker, n / 10, [box(300, 300)], look=look)))
    posed = [n for n, moment in enumerate(moments) if only(moment).raw is not None]
    assert np.diff(posed).max() == 8
    assert (posed[0], posed[-1]) == (0, 62)
    smooth, even = (
        [only(moment) for moment in smooth_recording(moments, options, SIGMAS)]
        for options in (OPTIONS, replace(OPTIONS, coast_s=np.inf))
    )
    away = np.array([a.keypoints[:, :2] - b.keypoints[:, :2] for a, b in zip(smooth, even, strict=True)])
    assert np.abs(away[:, :11]).max() < 1e-3
    assert (np.abs(away[:, 11:]).max() > 1) == hides


def record(frames: int, seen: list[tuple[int, int]], noise: float = 0.0) -> list[Moment]:
    """A walk at 10 fps, seen in the spans of frames `seen`, as the tracker tells it."""
    tracker, rng, moments = make(), np.random.default_rng(1), []
    for n in range(frames):
        there = box(200 + 12 * n, 300)
        here = any(start <= n < end for start, end in seen)

        def look(of: np.ndarray, there: np.ndarray = there, here: bool = here) -> np.ndarray:
            found = seeing([there])(of) if here else nobody(of)
            return found + np.concatenate((rng.normal(0, noise, (17, 2)), np.zeros((17, 1))), axis=1).astype(np.float32)

        moments.append((n, n / 10, step(tracker, n / 10, [there] if here else [], look=look)))
    return moments


def only(moment: Moment) -> Person:
    (person,) = moment[2]
    return person


def test_a_gap_is_bridged_and_said_to_be() -> None:
    moments = record(40, [(0, 15), (22, 40)])
    smooth = smooth_recording(moments, OPTIONS, SIGMAS)
    assert [moment[:2] for moment in smooth] == [moment[:2] for moment in moments]
    for n in range(15, 22):
        person = only(smooth[n])
        assert person.state == "coasting"
        assert "measured" not in person.joint_state
        np.testing.assert_allclose(person.box, box(200 + 12 * n, 300), atol=8)
        np.testing.assert_allclose(person.keypoints[:, :2], pose(box(200 + 12 * n, 300))[:, :2], atol=8)
    assert only(smooth[18]).std[0] > 2 * only(smooth[10]).std[0]
    assert len({only(moment).id for moment in smooth}) == 1


def test_a_long_absence_is_not_filled() -> None:
    smooth = smooth_recording(record(60, [(0, 15), (50, 60)]), SmoothOptions(bridge_s=1.0), SIGMAS)
    assert all(not people for _, _, people in smooth[15:50])
    assert all(people for _, _, people in smooth[50:])


def test_the_last_coasting_is_taken_back() -> None:
    moments = record(30, [(0, 15)])
    assert any(people for _, _, people in moments[15:])
    assert all(not people for _, _, people in smooth_recording(moments, OPTIONS, SIGMAS)[15:])


def test_who_is_confirmed_later_was_somebody_from_the_start() -> None:
    moments = record(12, [(0, 12)])
    assert only(moments[0]).state == "tentative"
    assert {only(moment).state for moment in smooth_recording(moments, OPTIONS, SIGMAS)} == {"confirmed"}


@pytest.mark.parametrize("drop", [True, False])
def test_whoever_was_never_confirmed_may_go(drop: bool) -> None:
    moments = record(10, [(0, 2)])
    smooth = smooth_recording(moments, SmoothOptions(drop_unconfirmed=drop), SIGMAS)
    assert [len(people) for _, _, people in smooth[:2]] == ([0, 0] if drop else [1, 1])


def test_hindsight_is_nearer_and_smoother_than_the_moment() -> None:
    moments = record(60, [(0, 60)], noise=4.0)
    smooth = smooth_recording(moments, OPTIONS, SIGMAS)
    truth = np.array([pose(box(200 + 12 * n, 300))[:, :2] for n in range(10, 60)])
    live = np.array([only(moment).keypoints[:, :2] for moment in moments[10:]])
    late = np.array([only(moment).keypoints[:, :2] for moment in smooth[10:]])
    raw = np.array([only(moment).raw[:, :2] for moment in moments[10:]])  # type: ignore[index]

    def error(of: np.ndarray, order: int = 0) -> float:
        return float(np.abs(np.diff(of - truth, n=order, axis=0)).mean())

    assert error(late) < error(live) < error(raw)
    assert error(late, 2) < error(live, 2) < error(raw, 2)


def test_raw_stays_and_nothing_is_done_without_smoothing() -> None:
    moments = record(20, [(0, 20)])
    assert smooth_recording(moments, SmoothOptions(enabled=False), SIGMAS) == moments
    for before, after in zip(moments, smooth_recording(moments, OPTIONS, SIGMAS), strict=True):
        np.testing.assert_array_equal(only(before).raw, only(after).raw)  # type: ignore[arg-type]


def test_an_empty_recording() -> None:
    assert smooth_recording([], OPTIONS, SIGMAS) == []
    assert smooth_recording([(0, 0.0, ())], OPTIONS, SIGMAS) == [(0, 0.0, ())]


def test_a_slow_recording_with_rare_detection_keeps_its_people() -> None:
    """One picture a second, every fourth looked at: who stands there is in all of them from the first sure sighting on."""
    tracker = make(pose_every=4)
    moments = [(n, float(n), step(tracker, float(n), [box(300, 300)] if n % 4 == 0 else None)) for n in range(41)]
    states = ["".join(person.state for person in people) for _, _, people in smooth_recording(moments, OPTIONS, SIGMAS)]
    assert states[::4] == ["confirmed"] * 11
    assert states[8:] == ["confirmed", "coasting", "coasting", "coasting"] * 8 + ["confirmed"]
