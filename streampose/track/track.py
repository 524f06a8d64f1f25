"""People through time: the boxes and clothes of all of them in arrays, and the stage of each one's life."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
WEAK_S = 0.5  # a weak detection is whom a detection showed not longer ago, or at the last look
EPSILON_S = 1e-6


@dataclass(slots=True, eq=False)
class Track:
    """A person's life. Times are camera seconds.

    `seen_s` is when a detection was last given to it, `evidence_s` when a detection or a confident pose was; `missed_s`
    when detection first missed it since. `present_s` is up to when nobody had looked for it in vain (`sought`): absence
    counts from there. `hits` counts sightings since `born_s`; it is `unseen` where the last frame showed nothing of it.
    A `lost` track is only remembered.
    """

    id: int
    score: float
    born_s: float
    seen_s: float
    evidence_s: float
    present_s: float
    hits: int = 1
    confirmed: bool = False
    missed_s: float | None = None
    sought: bool = False
    unseen: bool = False
    lost: bool = False

    def see(self, score: float, time_s: float) -> None:
        """A detection of `score` at `time_s` is this person."""
        self.score = score
        self.seen_s = self.evidence_s = self.present_s = time_s
        self.missed_s = None
        self.sought = self.lost = False
        self.hits += 1

    def carry(self, time_s: float, *, detected: bool) -> None:
        """A pose alone says that this person is there; a sighting only where detection was not due."""
        self.evidence_s = self.present_s = time_s
        self.sought = False
        self.hits += not detected

    def miss(self, time_s: float, *, looked: bool) -> None:
        """Nothing shows it at `time_s`; time in which nobody `looked` is no absence, until somebody does."""
        self.sought = self.sought or looked or self.missed_s is not None
        if not self.sought:
            self.present_s = time_s

    def may_be_carried(self, time_s: float, options: TrackOptions) -> bool:
        """Whether a pose alone may still stand for a sighting."""
        return not self.lost and (self.missed_s is None or time_s - self.missed_s <= options.carry_s)

    def may_be_weak(self, time_s: float) -> bool:
        """Whether a weak detection may show it: unless detection has missed it, and has shown it last long ago."""
        return self.missed_s is None or time_s - self.seen_s <= WEAK_S

    def state(self, time_s: float) -> TrackState:
        """The word for it in the frame at `time_s`."""
        if not self.confirmed:
            return "tentative"
        return "confirmed" if self.evidence_s >= time_s else "coasting"

    def may_confirm(self, options: TrackOptions) -> bool:
        """Whether it has been seen often and long enough."""
        return (
            self.hits >= options.confirm_after and self.evidence_s - self.born_s >= options.confirm_span_s - EPSILON_S
        )

    def is_awaited(self, now_s: float, options: TrackOptions) -> bool:
        """Whether, unseen, it has not been absent for too long."""
        patience_s = options.lost_after_s + options.recall_s if self.confirmed else options.tentative_lost_s
        return now_s - self.present_s <= patience_s + EPSILON_S


class Bodies:
    """The boxes and clothes of N people, in pixels; rows come by `add` and go by `keep`, in step with the tracks.

    `mean` (N, 2, 2) and `cov` (N, 2, 2) are the filters of the centres; `sides` (N, 2) are width and height with
    relative variance `sides_var` (N,); `seen_at` (N, 2) is the centre when a detection was last given to somebody;
    `anchors` (N, K, 2) are the places of the joints from that centre then, `colours` (N, 2, 3) those of torso and legs; NaN
    while unknown. `boxes` and `sizes` are worked out when first
    asked for after a change.
    """

    def __init__(self, joints: int) -> None:
        self.anchors = np.zeros((0, joints, 2))
        self.mean, self.cov = np.zeros((0, 2, 2)), np.zeros((0, 2, 2))
        self.sides, self.sides_var = np.zeros((0, 2)), np.zeros(0)
        self.seen_at, self.colours = np.zeros((0, 2)), np.zeros((0, PARTS, 3))
        self._boxes: Floats | None = None
        self._sizes: Floats | None = None

    @property
    def boxes(self) -> Floats:
        """(N, 4) xyxy, to be read."""
        if self._boxes is None:
            self._boxes = around(self.mean[:, 0], self.sides)
        return self._boxes

    @property
    def sizes(self) -> Floats:
        """The longer sides (N,), at least 1, to be read: the body heights, also of people lying down."""
        if self._sizes is None:
            self._sizes = np.maximum(np.maximum(self.sides[:, 0], self.sides[:, 1]), 1.0)
        return self._sizes

    @property
    def drift(self) -> Floats:
        """The velocities (N, 2), px/s."""
        return self.mean[:, 1]

    def keep(self, rows: npt.NDArray[Any]) -> None:
        """Keep these rows (a mask or indices), in this order."""
        self._boxes = self._sizes = None
        for name in ("mean", "cov", "sides", "sides_var", "seen_at", "anchors", "colours"):
            setattr(self, name, getattr(self, name)[rows])

    def add(self, box: npt.NDArray[Any]) -> None:
        """Add a row for somebody just seen in `box` (4,)."""
        self._boxes = self._sizes = None
        box = np.asarray(box, np.float64)
        centre, sides = (box[:2] + box[2:]) / 2, np.maximum(box[2:] - box[:2], 1.0)
        size = float(sides.max())
        mean, cov = kalman.begin(centre, 0.0, (CENTRE_NOISE * size) ** 2, (FIRST_SPEED * size) ** 2)
        self.mean, self.cov = np.concatenate((self.mean, mean[None])), np.concatenate((self.cov, cov[None]))
        self.sides, self.sides_var = np.concatenate((self.sides, sides[None])), np.append(self.sides_var, SIDE_NOISE**2)
        self.seen_at = np.concatenate((self.seen_at, centre[None]))
        self.anchors = np.concatenate((self.anchors, np.full((1, *self.anchors.shape[1:]), np.nan)))
        self.colours = np.concatenate((self.colours, np.full((1, PARTS, 3), np.nan)))

    def predict(self, dt: float, missed: Sequence[bool]) -> None:
        """Move the boxes `dt` seconds on; their sides stay (their rates are noise). `missed` (N,) people slow down."""
        if not len(self.mean):
            return
        q = (CENTRE_ACCELERATION * self.sizes) ** 2
        decay = np.where(missed, COAST_DECAY, 0.0) if any(missed) else 0.0
        self.mean, self.cov = kalman.predict(self.mean, self.cov, dt, q, 0.0, decay)
        self.sides_var += SIDE_WALK**2 * dt
        self._boxes = None

    def see_boxes(self, rows: npt.NDArray[np.intp], boxes: npt.NDArray[Any], scores: npt.NDArray[Any]) -> None:
        """Detections, `boxes` (M, 4) with `scores` (M,), are the people in these M `rows`."""
        if not len(rows):
            return
        sides, known, sides_var = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0), self.sides[rows], self.sides_var[rows]
        odd = np.log(sides / known) / MISFIT
        doubt = (1 + (odd * odd).sum(axis=1)) / np.maximum(scores, 0.2) ** 2
        r = (CENTRE_NOISE * self.sizes[rows]) ** 2 * doubt
        mean, cov = kalman.update(self.mean[rows], self.cov[rows], (boxes[:, :2] + boxes[:, 2:]) / 2, r)
        gain = sides_var / (sides_var + SIDE_NOISE**2 * doubt)
        self.mean[rows], self.cov[rows], self.seen_at[rows] = mean, cov, mean[:, 0]
        self.sides[rows] = known + gain[:, None] * (sides - known)
        self.sides_var[rows] = sides_var * (1 - gain)
        self._boxes = self._sizes = None

    def anchor(self, rows: npt.NDArray[np.intp], joints: Floats) -> None:
        """Detections were given to these M `rows`, whose joints lie at `joints` (M, K, 2) px, NaN where not known."""
        self.anchors[rows] = joints - self.mean[rows, :1]

    def see_joints(self, rows: npt.NDArray[np.intp], joints: Floats, weights: Floats) -> None:
        """Key points alone, `joints` (M, K, 2) px with `weights` (M, K), show the bodies in these M `rows`: as far from
        where a detection was as their joints are from there, in the median."""
        anchors = self.anchors[rows]
        known = np.isfinite(anchors[..., 0])
        moved = joints - np.where(known[..., None], anchors, 0.0) - self.mean[rows, :1]
        shifts = weighted_median(moved, np.where(known, weights, 0.0))
        r = (1.5 * CENTRE_NOISE * self.sizes[rows]) ** 2
        mean, cov = self.mean[rows], self.cov[rows]
        self.mean[rows], self.cov[rows] = kalman.update(mean, cov, mean[:, 0] + shifts, r)
        self._boxes = None


def weighted_median(values: Floats, weights: Floats) -> Floats:
    """The medians (N, D) of `values` (N, K, D) by `weights` (N, K), axis by axis; 0 where all weights are 0."""
    order = np.argsort(values, axis=1)
    heap = np.cumsum(np.take_along_axis(weights[..., None], order, 1), axis=1)
    middle = (heap >= heap[:, -1:] / 2).argmax(axis=1)
    found = np.take_along_axis(values, np.take_along_axis(order, middle[:, None], 1), 1)[:, 0]
    return np.where(weights.sum(axis=1)[:, None] > 0, found, 0.0)


def around(centres: npt.NDArray[Any], sides: npt.NDArray[Any]) -> Floats:
    """The boxes (N, 4) xyxy about `centres` (N, 2) with `sides` (N, 2)."""
    halves = sides / 2
    return np.concatenate((centres - halves, centres + halves), axis=1)
