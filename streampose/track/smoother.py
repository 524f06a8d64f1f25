"""Key points through time: one Kalman filter per joint, all people of a camera in one array; times in, points out.

Each row is a person. A joint's measurement noise comes from its score and the person's size, its process noise from the
size alone; a point too far from the prediction is rejected, a joint not measured coasts with its body and its standard
deviation grows. What a joint's state is said to be is what was done with it in this frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.messages import JointState
from streampose.track import kalman
from streampose.track.options import SmoothOptions

Floats = npt.NDArray[np.float64]
COASTED, MEASURED, REJECTED = 0, 1, 2
WORDS: tuple[JointState, ...] = ("coasted", "measured", "rejected")
VELOCITY_STD = 1.0  # body heights per second: how much a joint's first velocity may differ from its body's
COAST_DECAY = 5.0  # 1/s: how fast the velocity of a joint no longer seen becomes that of its body
SOFT_GATE = 1.5  # Mahalanobis distance from which a point counts less (Huber's estimator, as a larger noise)
LEAST_SCORE = 0.02  # the score that noise is computed from is never less


class Smoother:
    """The filters of N people with K joints each; rows come by `add` and go by `keep`, in step with the tracks.

    `mean` (N, K, 2, 2) px and px/s, `cov` (N, K, 2, 2), `score` (N, K), `unseen_s` (N, K) seconds since a measurement
    was used, `known` (N, K) whether the joint has been seen at all, `state` (N, K) what was done in the last frame.
    """

    def __init__(self, sigmas: npt.NDArray[Any], options: SmoothOptions) -> None:
        self.options = options
        self.spread = joint_spread(sigmas)
        self.clear()

    def clear(self) -> None:
        """Forget everybody."""
        joints = len(self.spread)
        self.mean = np.zeros((0, joints, 2, 2))
        self.cov = np.zeros((0, joints, 2, 2))
        self.score = np.zeros((0, joints))
        self.unseen_s = np.zeros((0, joints))
        self.known = np.zeros((0, joints), bool)
        self.state = np.zeros((0, joints), np.int8)
        self._rejections = np.zeros((0, joints), np.int64)
        self._trust: Floats | None = None

    def __len__(self) -> int:
        return len(self.mean)

    def keep(self, rows: npt.NDArray[Any]) -> None:
        """Keep these rows (a mask or indices), in this order."""
        self._trust = None
        for name in ("mean", "cov", "score", "unseen_s", "known", "state", "_rejections"):
            setattr(self, name, getattr(self, name)[rows])

    def add(self, count: int = 1) -> None:
        """Add `count` rows of people whose joints are all unknown yet."""
        self._trust = None
        for name in ("mean", "cov", "score", "unseen_s", "known", "state", "_rejections"):
            array = getattr(self, name)
            setattr(self, name, np.concatenate((array, np.zeros((count, *array.shape[1:]), array.dtype))))

    def predict(self, dt: float, sizes: npt.NDArray[Any], drift: npt.NDArray[Any]) -> None:
        """Move everybody `dt` seconds on; `sizes` (N,) px are body heights, `drift` (N, 2) px/s the bodies' velocities."""
        if dt <= 0 or not len(self):
            self.state.fill(COASTED)
            return
        self._trust = None
        q = process_noise(sizes, self.options)
        decay = np.where(self.state == MEASURED, 0.0, COAST_DECAY)
        self.mean, self.cov = kalman.predict(self.mean, self.cov, dt, q[:, None], drift[:, None, :], decay)
        self.unseen_s += dt
        self.state.fill(COASTED)

    def update(
        self, rows: npt.NDArray[np.intp], points: npt.NDArray[Any], sizes: npt.NDArray[Any], drift: npt.NDArray[Any]
    ) -> None:
        """Take what the network says in this frame: `points` (M, K, 3) x, y, score, NaN where nothing, for `rows` (M,)."""
        if not len(rows):
            return
        self._trust = None
        options = self.options
        usable = np.isfinite(points).all(axis=2) & (points[..., 2] >= options.min_score)
        z = np.where(usable[..., None], points[..., :2], 0.0).astype(np.float64)
        score = np.where(usable, np.minimum(np.maximum(points[..., 2], 0.0), 1.0), 0.0)
        size = np.maximum(sizes, 1.0)[:, None]
        r = noise_var(score, size, self.spread, options)
        mean, cov = self.mean[rows], self.cov[rows]
        known, rejections = self.known[rows], self._rejections[rows]
        d2 = kalman.distance2(mean, cov, z, r)
        expected = usable & known
        far = expected & (d2 > options.gate**2)
        used = expected & ~far
        rejections = np.where(usable & ~far, 0, rejections + far)
        fresh = usable & (~known | (rejections >= options.reinitialise_after))
        measured = fresh | used
        seen_mean, seen_cov = kalman.update(mean, cov, z, r * np.maximum(1.0, d2 / SOFT_GATE**2))
        np.copyto(mean, seen_mean, where=used[..., None, None])
        np.copyto(cov, seen_cov, where=used[..., None, None])
        if fresh.any():
            owner = fresh.nonzero()[0]
            speed_var = (VELOCITY_STD * size[owner, 0]) ** 2
            mean[fresh], cov[fresh] = kalman.begin(z[fresh], drift[owner], r[fresh], speed_var)
            rejections[fresh] = 0
            self.known[rows] = known | fresh
        self.mean[rows], self.cov[rows], self._rejections[rows] = mean, cov, rejections
        self.state[rows] = np.where(measured, MEASURED, np.where(far, REJECTED, COASTED))
        self.unseen_s[rows] = np.where(measured, 0.0, self.unseen_s[rows])
        self.score[rows] = np.where(measured, score, self.score[rows])

    def forget(self, rows: npt.NDArray[np.intp]) -> None:
        """These people were out of sight too long: their joints are unknown again."""
        if not len(rows):
            return
        self._trust = None
        self.known[rows] = False
        self._rejections[rows] = 0

    def trust(self) -> Floats:
        """Scores (N, K) as they stand now, to be read: those of joints not measured fall linearly to 0 in `coast_s`."""
        if self._trust is None:
            left = np.maximum(1.0 - self.unseen_s / self.options.coast_s, 0.0)
            self._trust = self.score * left * self.known
        return self._trust

    def std(self) -> Floats:
        """Standard deviations (N, K) of the positions, px, per axis."""
        return np.asarray(np.sqrt(self.cov[..., 0, 0]))


def joint_spread(sigmas: npt.NDArray[Any]) -> Floats:
    """How noisy each joint is beside the average one (K,), from the OKS's sigmas.

    Half of the variance follows the sigma (what annotators disagree by), half is alike for all (the network's grid).
    """
    relative = np.asarray(sigmas, np.float64) / float(np.mean(sigmas))
    return np.asarray(np.sqrt(0.5 + 0.5 * relative**2))


def process_noise(sizes: Any, options: SmoothOptions) -> Any:
    """Spectral density of the acceleration, px²/s³, of the joints of people of `sizes` px."""
    return (options.acceleration * np.maximum(sizes, 1.0)) ** 2


def noise_var(
    score: npt.NDArray[Any], size: npt.NDArray[Any], spread: npt.NDArray[Any], options: SmoothOptions
) -> Floats:
    """Variance (px², per axis) of a measured point: by the person's `size` px, the joint's `spread`, and its `score`."""
    return np.asarray((options.noise * size * spread / np.maximum(score, LEAST_SCORE)) ** 2)
