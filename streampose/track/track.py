"""One person through time: a box filter, the times of the last sightings, and the stage of the track's life."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.messages import TrackState
from streampose.track import kalman
from streampose.track.appearance import PARTS
from streampose.track.options import TrackOptions

Floats = npt.NDArray[np.float64]
CENTRE_NOISE = 0.06  # body heights: how far a detected box's centre lies from the person's
CENTRE_ACCELERATION = 0.7  # body heights/s: how far a person's velocity strays in a second
FIRST_SPEED = 0.8  # body heights/s: how fast an unknown person may be
COAST_DECAY = 1.0  # 1/s: people whom nobody sees slow down, for many have met somebody
MISFIT = np.array([0.4, 0.15])  # log of the sides' ratio at which a box counts half: it is cut, or holds two
SIDE_NOISE = 0.08  # relative standard deviation of a detected box's sides
SIDE_WALK = 0.25  # relative change of the sides of a box in a second (a turn, a stride, coming nearer)


@dataclass(slots=True, eq=False)
class Track:
    """A person's box and life. Times are camera seconds, lengths pixels.

    `mean` (2, 2) and `cov` (2, 2) are the centre's filter; `sides` (2,) width and height with relative variance
    `sides_var`. `seen_s` is when a detection was last given to it (its centre
    then `seen_at`), `evidence_s` when a detection or a confident pose
    was; `missed_s` when detection first missed it since. `hits` counts sightings since `born_s`;
    it is `unseen` where the last frame showed nothing of it. A `lost` track is
    only remembered. `colours` (2, 3) are those of torso and legs, NaN while unknown.
    """

    id: int
    mean: Floats
    cov: Floats
    sides: Floats
    sides_var: float
    score: float
    born_s: float
    seen_s: float
    evidence_s: float
    seen_at: Floats
    hits: int = 1
    confirmed: bool = False
    missed_s: float | None = None
    unseen: bool = False
    lost: bool = False
    colours: Floats = field(default_factory=lambda: np.full((PARTS, 3), np.nan))

    @property
    def size(self) -> float:
        """The longer side, px: the body height, also of somebody lying down."""
        return float(self.sides.max(initial=1.0))

    @property
    def velocity(self) -> Floats:
        """(2,) px/s."""
        return np.asarray(self.mean[1])

    def see_shift(self, shift: npt.NDArray[Any], time_s: float, *, detected: bool) -> None:
        """The key points alone say that the body is `shift` (2,) px from where it was predicted."""
        r = (1.5 * CENTRE_NOISE * self.size) ** 2
        self.mean, self.cov = kalman.update(self.mean, self.cov, self.mean[0] + shift, r)
        self.evidence_s = time_s
        self.hits += not detected

    def may_be_carried(self, time_s: float, options: TrackOptions) -> bool:
        """Whether a pose alone may still stand for a sighting."""
        return not self.lost and (self.missed_s is None or time_s - self.missed_s <= options.carry_s)

    def state(self, time_s: float) -> TrackState:
        """The word for it in the frame at `time_s`."""
        if not self.confirmed:
            return "tentative"
        return "confirmed" if self.evidence_s >= time_s else "coasting"

    def may_confirm(self, options: TrackOptions) -> bool:
        """Whether it has been seen often and long enough."""
        return self.hits >= options.confirm_after and self.evidence_s - self.born_s >= options.confirm_after_s - 1e-6


def sizes(tracks: Sequence[Track]) -> Floats:
    """The longer sides (N,), px."""
    return np.asarray(np.array([one.sides for one in tracks]).reshape(-1, 2).max(axis=1, initial=1.0))


def boxes(tracks: Sequence[Track]) -> Floats:
    """(N, 4) xyxy."""
    centres = np.array([one.mean[0] for one in tracks]).reshape(-1, 2)
    halves = np.array([one.sides for one in tracks]).reshape(-1, 2) / 2
    return np.concatenate((centres - halves, centres + halves), axis=1)


def predict(tracks: Sequence[Track], dt: float) -> None:
    """Move the boxes `dt` seconds on; their sides stay (their rates are noise)."""
    if not tracks:
        return
    q = (CENTRE_ACCELERATION * sizes(tracks)) ** 2
    decay = np.array([COAST_DECAY if one.unseen else 0.0 for one in tracks])
    means, covs = np.array([one.mean for one in tracks]), np.array([one.cov for one in tracks])
    for one, mean, cov in zip(tracks, *kalman.predict(means, covs, dt, q, 0.0, decay), strict=True):
        one.mean, one.cov = mean, cov
        one.sides_var += SIDE_WALK**2 * dt


def see_boxes(tracks: Sequence[Track], boxes: npt.NDArray[Any], scores: npt.NDArray[Any], time_s: float) -> None:
    """Each of the detections at `time_s`, `boxes` (N, 4) with `scores` (N,), is the one of the N `tracks` in its place."""
    if not tracks:
        return
    boxes = np.asarray(boxes, np.float64)
    sides, known = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0), np.array([one.sides for one in tracks])
    odd = np.log(sides / known) / MISFIT
    doubt = (1 + (odd * odd).sum(axis=1)) / np.maximum(scores, 0.2) ** 2
    r = (CENTRE_NOISE * sizes(tracks)) ** 2 * doubt
    means, covs = np.array([one.mean for one in tracks]), np.array([one.cov for one in tracks])
    means, covs = kalman.update(means, covs, (boxes[:, :2] + boxes[:, 2:]) / 2, r)
    sides_var = np.array([one.sides_var for one in tracks])
    gain = sides_var / (sides_var + SIDE_NOISE**2 * doubt)
    sides = known + gain[:, None] * (sides - known)
    sides_var *= 1 - gain
    for index, one in enumerate(tracks):
        one.mean, one.cov, one.sides = means[index], covs[index], sides[index]
        one.sides_var, one.score = float(sides_var[index]), float(scores[index])
        one.seen_s = one.evidence_s = time_s
        one.seen_at = one.mean[0].copy()
        one.missed_s = None
        one.lost = False
        one.hits += 1


def begin(track_id: int, box: npt.NDArray[Any], score: float, time_s: float) -> Track:
    """A track of somebody just seen in `box` (4,)."""
    box = np.asarray(box, np.float64)
    sides = np.maximum(box[2:] - box[:2], 1.0)
    size = float(sides.max())
    mean, cov = kalman.begin((box[:2] + box[2:]) / 2, 0.0, (CENTRE_NOISE * size) ** 2, (FIRST_SPEED * size) ** 2)
    return Track(track_id, mean, cov, sides, SIDE_NOISE**2, score, time_s, time_s, time_s, mean[0].copy())
