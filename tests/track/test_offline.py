"""Hindsight: equal to filterpy's smoother, without lag, honest in gaps, kind to whoever was confirmed late."""

from __future__ import annotations

import filterpy.common
import filterpy.kalman
import numpy as np
import pytest

from streampose.messages import Person
from streampose.track.offline import UNKNOWN, Moment, smooth_recording, smooth_track
from streampose.track.options import SmoothOptions
from streampose.track.smoother import VELOCITY_STD, joint_spread, noise_var, process_noise
from tests.track.figures import SIGMAS, box, make, nobody, pose, seeing, step

OPTIONS = SmoothOptions()
SIZE = 200.0


def test_it_is_filterpys_smoother() -> None:
    """Every joint and axis of a track with uneven times and missing points, against filterpy's rts_smoother."""
    rng = np.random.default_rng(5)
    times_s = np.cumsum(rng.uniform(0.02, 0.3, 30))
    raw = np.concatenate((rng.normal(100, 15, (30, 17, 2)), rng.uniform(0.3, 0.9, (30, 17, 1))), axis=2)
    used = rng.random((30, 17)) < 0.7
    raw[~used & (rng.random((30, 17)) < 0.5)] = np.nan
    points, std = smooth_track(times_s, raw, used, np.full(30, SIZE), OPTIONS, SIGMAS)
    r = noise_var(np.nan_to_num(raw[..., 2]), np.full((30, 1), SIZE), joint_spread(SIGMAS), OPTIONS)
    dts = np.diff(times_s)
    fs = [np.eye(2), *(np.array([[1.0, dt], [0.0, 1.0]]) for dt in dts)]
    qs = [np.zeros((2, 2))] + [
        filterpy.common.Q_continuous_white_noise(2, dt, float(process_noise(SIZE, OPTIONS))) for dt in dts
    ]
    for joint in range(17):
        for axis in range(2):
            one = filterpy.kalman.KalmanFilter(dim_x=2, dim_z=1)
            one.H = np.array([[1.0, 0.0]])
            one.x = np.array([[raw[used[:, joint].argmax(), joint, axis]], [0.0]])
            one.P = np.diag([(UNKNOWN * SIZE) ** 2, (2 * VELOCITY_STD * SIZE) ** 2])
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


def test_a_joint_never_measured_is_nowhere() -> None:
    raw = np.tile(pose(box(300, 300)), (10, 1, 1)).astype(np.float64)
    used = np.ones((10, 17), bool)
    used[:, 4] = False
    points, std = smooth_track(np.arange(10) / 10, raw, used, np.full(10, SIZE), OPTIONS, SIGMAS)
    assert np.isnan(points[:, 4, :2]).all()
    assert np.isinf(std[:, 4]).all()
    assert (points[:, 4, 2] == 0).all()
    assert np.isfinite(points[:, :4]).all()


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
    assert smooth_recording([], OPTIONS) == []
    assert smooth_recording([(0, 0.0, ())], OPTIONS) == [(0, 0.0, ())]


def test_a_slow_recording_with_rare_detection_keeps_its_people() -> None:
    """One picture a second, every fourth looked at: who stands there is in all of them from the first sure sighting on."""
    tracker = make(pose_every=4)
    moments = [(n, float(n), step(tracker, float(n), [box(300, 300)] if n % 4 == 0 else None)) for n in range(41)]
    states = ["".join(person.state for person in people) for _, _, people in smooth_recording(moments, OPTIONS, SIGMAS)]
    assert states[::4] == ["confirmed"] * 11
    assert states[8:] == ["confirmed", "coasting", "coasting", "coasting"] * 8 + ["confirmed"]
