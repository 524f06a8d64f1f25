"""A constant-velocity Kalman filter for many points at once, and its backward pass; arrays in, arrays out.

The state of a point is its position and velocity along each of D axes. The axes are independent and equally uncertain,
so that one 2x2 covariance serves them all: `mean` is (..., 2, D), rows position and velocity, in pixels and pixels per
second; `cov` is (..., 2, 2). The leading shape is free (tracks, joints, both), and every operation is element-wise.
The velocity is a Wiener process (Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to Tracking and Navigation",
2001, section 6.2.2), hence two steps of dt/2 equal one of dt, which a filter at irregular times needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
SLIGHT = 1e-3  # so much decay of a velocity within a step is little


def begin(
    position: npt.NDArray[Any], velocity: npt.NDArray[Any] | float, r: Any, velocity_var: Any
) -> tuple[Floats, Floats]:
    """State of points just seen at `position` (..., D) with variance `r` (...,), and a guessed `velocity` (..., D)."""
    position = np.asarray(position, np.float64)
    mean = np.stack((position, np.broadcast_to(velocity, position.shape)), axis=-2).astype(np.float64)
    cov = np.zeros((*position.shape[:-1], 2, 2))
    cov[..., 0, 0] = r
    cov[..., 1, 1] = velocity_var
    return mean, cov


def predict(mean: Floats, cov: Floats, dt: float, q: Any, drift: Any = 0.0, decay: Any = 0.0) -> tuple[Floats, Floats]:
    """The state `dt` seconds on, with spectral density `q` (...,) of the acceleration in px²/s³.

    `decay` (...,) in 1/s pulls a velocity exponentially towards `drift` (..., D), an Ornstein-Uhlenbeck process: a joint
    no longer seen goes on with its body. At zero this is the plain constant-velocity model. x = F x, P = F P F' + Q.
    """
    place, speed = mean[..., 0, :], mean[..., 1, :]
    pp, pv, vv = cov[..., 0, 0], cov[..., 0, 1], cov[..., 1, 1]
    ahead, moved = np.empty_like(mean), np.empty_like(cov)
    if np.any(decay):
        reach, keep = transition(dt, decay)
        ahead[..., 0, :] = place + reach[..., None] * speed + (dt - reach)[..., None] * drift
        ahead[..., 1, :] = keep[..., None] * speed + (1 - keep)[..., None] * drift
        moved[..., 0, 0] = pp + 2 * reach * pv + reach * reach * vv + q * _position_noise(dt, decay, reach, keep)
        moved[..., 0, 1] = moved[..., 1, 0] = keep * (pv + reach * vv) + q * reach * reach / 2
        moved[..., 1, 1] = keep * keep * vv + q * reach * (1 + keep) / 2
    else:
        ahead[..., 0, :] = place + dt * speed
        ahead[..., 1, :] = speed
        moved[..., 0, 0] = pp + 2 * dt * pv + dt * dt * vv + q * dt**3 / 3
        moved[..., 0, 1] = moved[..., 1, 0] = pv + dt * vv + q * dt**2 / 2
        moved[..., 1, 1] = vv + q * dt
    return ahead, moved


def transition(dt: float, decay: Any = 0.0) -> tuple[Floats, Floats]:
    """The free entries of F = [[1, reach], [0, keep]] over `dt` seconds: velocity to position, velocity to velocity."""
    decay = np.asarray(decay, np.float64)
    slowing = decay > 1e-9
    return np.where(slowing, -np.expm1(-decay * dt) / np.where(slowing, decay, 1.0), dt), np.exp(-decay * dt)


def _position_noise(dt: float, decay: Any, reach: Floats, keep: Floats) -> Floats:
    """What a density of 1 adds to the variance of the position in `dt` seconds: the integral of the squared reach; by its
    series where little decays, for there the closed form is a difference of equals."""
    decay = np.asarray(decay, np.float64)
    x = decay * dt
    exact = (dt - reach * (3 - keep) / 2) / np.where(x > SLIGHT, decay, 1.0) ** 2
    return np.asarray(np.where(x > SLIGHT, exact, dt**3 * (1 / 3 - x / 4 + 7 * x * x / 60)))


def distance2(mean: Floats, cov: Floats, z: npt.NDArray[Any], r: Any) -> Floats:
    """Squared Mahalanobis distance (...,) of measurements `z` (..., D) with variance `r` (...,): y' S^-1 y."""
    innovation = z - mean[..., 0, :]
    return np.asarray((innovation**2).sum(axis=-1) / (cov[..., 0, 0] + r))


def update(mean: Floats, cov: Floats, z: npt.NDArray[Any], r: Any) -> tuple[Floats, Floats]:
    """The state after seeing the positions `z` (..., D) with variance `r` (...,).

    The covariance is written in a form that cannot lose its sign: (1 - K H) P with S = P_pp + r divided out.
    """
    pp, pv, vv = cov[..., 0, 0], cov[..., 0, 1], cov[..., 1, 1]
    s = pp + r  # S = H P H' + R
    gain = cov[..., 0] / s[..., None]  # K = P H' S^-1
    seen = mean + gain[..., None] * (z - mean[..., 0, :])[..., None, :]  # x = x + K (z - H x)
    after = np.empty_like(cov)
    after[..., 0, 0] = pp * r / s
    after[..., 0, 1] = after[..., 1, 0] = pv * r / s
    after[..., 1, 1] = (vv * r + np.maximum(pp * vv - pv * pv, 0.0)) / s
    return seen, after


def smooth_step(
    mean: Floats,
    cov: Floats,
    predicted_mean: Floats,
    predicted_cov: Floats,
    next_mean: Floats,
    next_cov: Floats,
    dt: float,
    decay: Any = 0.0,
) -> tuple[Floats, Floats]:
    """One backward step (Rauch, Tung, Striebel, 1965): the filtered state at t, knowing the smoothed one at t + dt.

    `predicted_*` is what `predict` made of `mean` and `cov` over `dt` with this `decay` (...,): C = P F' P_pred^-1,
    x = x + C (x_next - x_pred), P = P + C (P_next - P_pred) C'.
    """
    a, b, d = predicted_cov[..., 0, 0], predicted_cov[..., 0, 1], predicted_cov[..., 1, 1]
    determinant = np.maximum(a * d - b * b, np.finfo(np.float64).tiny)
    inverse = np.empty_like(cov)
    inverse[..., 0, 0], inverse[..., 1, 1] = d / determinant, a / determinant
    inverse[..., 0, 1] = inverse[..., 1, 0] = -b / determinant
    reach, keep = transition(dt, decay)
    f = np.zeros((*reach.shape, 2, 2))
    f[..., 0, 0], f[..., 0, 1], f[..., 1, 1] = 1.0, reach, keep
    gain = cov @ np.swapaxes(f, -1, -2) @ inverse
    smoothed = mean + gain @ (next_mean - predicted_mean)
    spread = cov + gain @ (next_cov - predicted_cov) @ np.swapaxes(gain, -1, -2)
    return smoothed, (spread + np.swapaxes(spread, -1, -2)) / 2
