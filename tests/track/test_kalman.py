"""The vectorised filter against filterpy, and what must hold of any covariance."""

from __future__ import annotations

import filterpy.common
import filterpy.kalman
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampose.track import kalman
from tests.track.oracle import motion

STEPS = st.lists(
    st.tuples(
        st.floats(1e-3, 3.0),  # dt
        st.one_of(st.none(), st.floats(-2000, 2000)),  # measurement, or none
        st.floats(1e-2, 1e4),  # r
    ),
    min_size=1,
    max_size=25,
)


def oracle(q_density: float, position: float, r: float, velocity_var: float) -> filterpy.kalman.KalmanFilter:
    filt = filterpy.kalman.KalmanFilter(dim_x=2, dim_z=1)
    filt.x = np.array([[position], [0.0]])
    filt.P = np.diag([r, velocity_var])
    filt.H = np.array([[1.0, 0.0]])
    return filt


@given(steps=STEPS, q=st.floats(1e-2, 1e6))
def test_it_is_filterpys_filter(steps: list[tuple[float, float | None, float]], q: float) -> None:
    theirs = oracle(q, 5.0, 4.0, 900.0)
    mean, cov = kalman.begin(np.array([5.0, 5.0]), 0.0, 4.0, 900.0)
    for dt, z, r in steps:
        theirs.F = np.array([[1.0, dt], [0.0, 1.0]])
        theirs.Q = filterpy.common.Q_continuous_white_noise(2, dt, q)
        theirs.predict()
        mean, cov = kalman.predict(mean, cov, dt, q)
        if z is not None:
            theirs.update(z, R=r)
            mean, cov = kalman.update(mean, cov, np.array([z, z]), r)
    np.testing.assert_allclose(mean[:, 0], theirs.x[:, 0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(mean[:, 0], mean[:, 1])
    np.testing.assert_allclose(cov, theirs.P, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(theirs.P).max()))


@given(steps=STEPS, q=st.floats(0, 1e6), decay=st.floats(0, 20))
def test_a_covariance_stays_symmetric_and_positive(
    steps: list[tuple[float, float | None, float]], q: float, decay: float
) -> None:
    mean, cov = kalman.begin(np.zeros((3, 2)), 0.0, 1.0, 100.0)
    for dt, z, r in steps:
        mean, cov = kalman.predict(mean, cov, dt, q, np.zeros(2), decay)
        if z is not None:
            mean, cov = kalman.update(mean, cov, np.full((3, 2), z), r)
        assert np.isfinite(mean).all()
        assert (cov == np.swapaxes(cov, -1, -2)).all()
        scale = cov[..., 0, 0] * cov[..., 1, 1]
        assert (cov[..., 0, 0] > 0).all()
        assert (cov[..., 1, 1] >= 0).all()
        assert (scale - cov[..., 0, 1] ** 2 >= -1e-9 * scale).all()


@given(
    dt=st.floats(0.01, 2.0),
    part=st.floats(0.1, 0.9),
    q=st.floats(0, 1e5),
    decay=st.one_of(st.sampled_from([0.0, 1e-12, 1e-6, 1e-3, 1.0, 6.0]), st.floats(0, 20)),
)
def test_two_short_steps_are_one_long_one(dt: float, part: float, q: float, decay: float) -> None:
    """What a filter at irregular times needs, with decay as without."""
    begin = kalman.begin(np.array([[3.0, -4.0]]), np.array([[20.0, 7.0]]), 2.0, 50.0)
    drift = np.array([5.0, -1.0])
    once = kalman.predict(*begin, dt, q, drift, decay)
    half = kalman.predict(*begin, dt * part, q, drift, decay)
    twice = kalman.predict(*half, dt * (1 - part), q, drift, decay)
    np.testing.assert_allclose(twice[0], once[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(twice[1], once[1], rtol=1e-8)


def test_decay_ends_in_the_drift() -> None:
    begin = kalman.begin(np.zeros((1, 2)), np.array([[100.0, 0.0]]), 1.0, 1.0)
    mean, _ = kalman.predict(*begin, 10.0, 0.0, np.array([0.0, 3.0]), 6.0)
    np.testing.assert_allclose(mean[0, 1], [0.0, 3.0], atol=1e-9)
    np.testing.assert_allclose(mean[0, 0], [100 / 6, 3 * (10 - 1 / 6)], rtol=1e-6)


def test_the_distance_is_mahalanobis() -> None:
    mean, cov = kalman.begin(np.array([[0.0, 0.0]]), 0.0, 9.0, 1.0)
    assert kalman.distance2(mean, cov, np.array([[3.0, 4.0]]), 16.0)[0] == pytest.approx(25 / 25)


@given(steps=STEPS, q=st.floats(1e-1, 1e4), decay=st.sampled_from([0.0, 1.0, 6.0]))
@settings(deadline=None)
def test_the_backward_pass_is_filterpys(steps: list[tuple[float, float | None, float]], q: float, decay: float) -> None:
    means, covs, their_x, their_p, fs, qs = [], [], [], [], [], []
    theirs = oracle(q, 0.0, 25.0, 400.0)
    mean, cov = kalman.begin(np.zeros(2), 0.0, 25.0, 400.0)
    for dt, z, r in steps:
        f, noise = motion(dt, q, decay)
        theirs.F, theirs.Q = f, noise
        theirs.predict()
        mean, cov = kalman.predict(mean, cov, dt, q, 0.0, decay)
        if z is not None:
            theirs.update(z, R=r)
            mean, cov = kalman.update(mean, cov, np.array([z, z]), r)
        means.append(mean)
        covs.append(cov)
        their_x.append(theirs.x.copy())
        their_p.append(theirs.P.copy())
        fs.append(f)
        qs.append(noise)
    # filterpy takes the step into t + 1 from Fs[t + 1]
    x, p, _, _ = theirs.rts_smoother(np.array(their_x), np.array(their_p), Fs=fs, Qs=qs)
    for t in range(len(steps) - 2, -1, -1):
        dt = steps[t + 1][0]
        ahead = kalman.predict(means[t], covs[t], dt, q, 0.0, decay)
        means[t], covs[t] = kalman.smooth_step(means[t], covs[t], *ahead, means[t + 1], covs[t + 1], dt, decay)
    for t in range(len(steps)):
        scale = max(1.0, float(np.abs(their_x[t]).max()))
        np.testing.assert_allclose(means[t][:, 0], x[t][:, 0], rtol=1e-6, atol=1e-6 * scale)
        np.testing.assert_allclose(covs[t], p[t], rtol=1e-5, atol=1e-6 * max(1.0, float(np.abs(their_p[t]).max())))
