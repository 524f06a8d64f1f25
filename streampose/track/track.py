"""One person through time: a box filter, the times of the last sightings, and the stage of the track's life."""

from __future__ import annotations

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
        return float(max(self.sides[0], self.sides[1], 1.0))

    @property
    def box(self) -> Floats:
        """(4,) xyxy."""
        return np.concatenate((self.mean[0] - self.sides / 2, self.mean[0] + self.sides / 2))

    @property
    def velocity(self) -> Floats:
        """(2,) px/s."""
        return np.asarray(self.mean[1])

    def predict(self, dt: float) -> None:
        """Move the box `dt` seconds on; its sides stay (their rates are noise)."""
        q = (CENTRE_ACCELERATION * self.size) ** 2
        decay = COAST_DECAY if self.unseen else 0.0
        self.mean, self.cov = kalman.predict(self.mean, self.cov, dt, q, 0.0, decay)
        self.sides_var += SIDE_WALK**2 * dt

    def see_box(self, box: npt.NDArray[Any], score: float, time_s: float) -> None:
        """A detection at `time_s` is this person."""
        box = np.asarray(box, np.float64)
        sides = np.maximum(box[2:] - box[:2], 1.0)
        odd = np.log(sides / self.sides) / MISFIT
        r = (CENTRE_NOISE * self.size / max(score, 0.2)) ** 2 * (1 + float(odd @ odd))
        self.mean, self.cov = kalman.update(self.mean, self.cov, (box[:2] + box[2:]) / 2, r)
        side_r = (SIDE_NOISE / max(score, 0.2)) ** 2 * (1 + float(odd @ odd))
        gain = self.sides_var / (self.sides_var + side_r)
        self.sides = self.sides + gain * (sides - self.sides)
        self.sides_var *= 1 - gain
        self.score = score
        self.seen_s = self.evidence_s = time_s
        self.seen_at = self.mean[0].copy()
        self.missed_s = None
        self.lost = False
        self.hits += 1

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


def begin(track_id: int, box: npt.NDArray[Any], score: float, time_s: float) -> Track:
    """A track of somebody just seen in `box` (4,)."""
    box = np.asarray(box, np.float64)
    sides = np.maximum(box[2:] - box[:2], 1.0)
    size = float(sides.max())
    mean, cov = kalman.begin((box[:2] + box[2:]) / 2, 0.0, (CENTRE_NOISE * size) ** 2, (FIRST_SPEED * size) ** 2)
    return Track(track_id, mean, cov, sides, SIDE_NOISE**2, score, time_s, time_s, time_s, mean[0].copy())
