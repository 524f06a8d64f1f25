"""Key point filters: equal to filterpy joint by joint, honest about what was measured, blind to nonsense."""

from __future__ import annotations

import filterpy.common
import filterpy.kalman
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streampose.pose.skeleton import load_skeleton
from streampose.track.options import SmoothOptions
from streampose.track.smoother import COASTED, MEASURED, REJECTED, VELOCITY_STD, Smoother, joint_spread, noise_var

SIGMAS = load_skeleton("coco17").sigmas
SIZE = np.array([200.0])
STILL = np.zeros((1, 2))
ROW = np.array([0])


def smoother(**options: object) -> Smoother:
    made = Smoother(SIGMAS, SmoothOptions(**options))  # type: ignore[arg-type]
    made.add()
    return made


def points(x: float, y: float, score: float = 0.9) -> np.ndarray:
    return np.tile(np.array([x, y, score]), (1, 17, 1))


def see(filters: Smoother, dt: float, seen: np.ndarray) -> None:
    filters.predict(dt, SIZE, STILL)
    filters.update(ROW, seen, SIZE, STILL)


def test_each_joint_is_a_filterpy_filter() -> None:
    """One person of 17 joints against 34 filters of filterpy, at irregular times and changing scores."""
    options = SmoothOptions()
    rng = np.random.default_rng(3)
    filters = smoother()
    base = rng.uniform(100, 400, (17, 2))
    theirs: list[list[filterpy.kalman.KalmanFilter]] = []
    for n in range(40):
        dt = float(rng.uniform(0.02, 0.2))
        noise = rng.normal(0, 0.3, base.shape)  # well inside the gates, so that no point counts less
        seen = np.concatenate((base + noise, rng.uniform(0.4, 0.9, (17, 1))), axis=1)[None]
        r = noise_var(seen[0, :, 2], SIZE, joint_spread(SIGMAS), options)
        see(filters, dt, seen)
        if n == 0:
            for joint in range(17):
                pair = []
                for axis in range(2):
                    one = filterpy.kalman.KalmanFilter(dim_x=2, dim_z=1)
                    one.x, one.H = np.array([[seen[0, joint, axis]], [0.0]]), np.array([[1.0, 0.0]])
                    one.P = np.diag([r[joint], (VELOCITY_STD * SIZE[0]) ** 2])
                    pair.append(one)
                theirs.append(pair)
            continue
        for joint in range(17):
            for axis in range(2):
                one = theirs[joint][axis]
                one.F = np.array([[1.0, dt], [0.0, 1.0]])
                one.Q = filterpy.common.Q_continuous_white_noise(2, dt, (options.acceleration * SIZE[0]) ** 2)
                one.predict()
                one.update(seen[0, joint, axis], R=r[joint])
    x = np.array([[one.x[:, 0] for one in pair] for pair in theirs])
    p = np.array([pair[0].P for pair in theirs])
    np.testing.assert_allclose(filters.mean[0], x.transpose(0, 2, 1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(filters.cov[0], p, rtol=1e-6)
    assert (filters.state == MEASURED).all()


def test_a_wild_point_is_rejected_and_a_lasting_one_believed() -> None:
    filters = smoother(reinitialise_after=3)
    for _ in range(10):
        see(filters, 0.1, points(100, 100))
    states = []
    for _ in range(3):
        see(filters, 0.1, points(300, 100))
        states.append(int(filters.state[0, 0]))
    assert states == [REJECTED, REJECTED, MEASURED]
    np.testing.assert_allclose(filters.mean[0, :, 0], np.tile([300.0, 100.0], (17, 1)))


def test_a_point_not_measured_coasts_and_its_doubt_grows() -> None:
    filters = smoother(coast_s=0.5)
    for n in range(10):
        see(filters, 0.1, points(100 + 5 * n, 100))
    std, trust = [filters.std()[0, 0]], [filters.trust()[0, 0]]
    for _ in range(6):
        filters.predict(0.1, SIZE, STILL)
        std.append(filters.std()[0, 0])
        trust.append(filters.trust()[0, 0])
        assert (filters.state == COASTED).all()
    assert std == sorted(std)
    assert std[-1] > 3 * std[0]
    assert trust == sorted(trust, reverse=True)
    assert trust[-1] == 0.0


def test_a_lower_score_means_more_doubt() -> None:
    sure, unsure = smoother(), smoother()
    for _ in range(5):
        see(sure, 0.1, points(100, 100, 0.9))
        see(unsure, 0.1, points(100, 100, 0.3))
    assert (unsure.std() > 1.5 * sure.std()).all()


@given(
    hnp.arrays(np.float64, (4, 17, 3), elements=st.one_of(st.floats(-1e4, 1e4), st.just(np.nan), st.just(np.inf))),
    st.floats(0, 100),
)
def test_nonsense_leaves_the_filters_whole(seen: np.ndarray, dt: float) -> None:
    filters = smoother()
    see(filters, 0.1, points(50, 50))
    for frame in seen:
        see(filters, dt, frame[None])
        assert np.isfinite(filters.mean).all()
        assert (filters.cov[..., 0, 0] > 0).all()
        assert ((filters.trust() >= 0) & (filters.trust() <= 1)).all()


@pytest.mark.parametrize("score", [0.0, 0.05, np.nan])
def test_points_without_score_are_not_measured(score: float) -> None:
    filters = smoother()
    see(filters, 0.1, points(50, 50, score))
    assert not filters.known.any()
    assert (filters.state == COASTED).all()


def test_rows_go_and_stay_with_their_people() -> None:
    filters = Smoother(SIGMAS, SmoothOptions())
    filters.add(3)
    filters.update(
        np.arange(3),
        np.concatenate([points(10, 10), points(20, 20), points(30, 30)]),
        np.full(3, 200.0),
        np.zeros((3, 2)),
    )
    filters.keep(np.array([True, False, True]))
    assert len(filters) == 2
    np.testing.assert_allclose(filters.mean[:, 0, 0, 0], [10, 30])


def test_trust_follows_every_change() -> None:
    filters = Smoother(SIGMAS, SmoothOptions(coast_s=0.5))
    rows, sizes, still = np.arange(2), np.full(2, 200.0), np.zeros((2, 2))

    def check(*expected: float) -> None:
        np.testing.assert_allclose(filters.trust(), np.tile(np.array(expected)[:, None], (1, 17)))

    filters.add(2)
    check(0, 0)
    filters.update(rows, np.concatenate([points(10, 10, 0.8), points(20, 20, 0.4)]), sizes, still)
    check(0.8, 0.4)
    filters.predict(0.25, sizes, still)
    check(0.4, 0.2)
    filters.add()
    check(0.4, 0.2, 0)
    filters.forget(np.array([0]))
    check(0, 0.2, 0)
    filters.keep(np.array([1]))
    check(0.2)
    filters.clear()
    assert filters.trust().shape == (0, 17)
