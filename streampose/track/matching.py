"""How alike known people and detections are, in box, in pose and in motion; and the rounds of giving one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.track import association
from streampose.track.association import COCO_BOX_FILL
from streampose.track.track import CENTRE_NOISE, Track

Floats = npt.NDArray[np.float64]
POSE_SHARE = 0.35  # of the likeness, where both poses are known well enough
NEUTRAL_OKS = 0.35  # what the same person's poses in two frames often reach, seen small
LEAST_JOINTS = 3.0  # sum of joint scores from which a pose says something
NEUTRAL_COLOUR = 0.5
CONTEST_SHARE = 0.55  # of the likeness goes to whom the colours fit best
COLOUR_SHARE = 0.2
RECALL_GATE = 3.0  # standard deviations between where a lost person is expected and a detection
AHEAD_S = 2.0  # a walk can be foreseen for so long
STAY_STD = 0.2  # body heights: a person who stopped is found about there
STAY_SPEED = 0.1  # body heights per second: and strolls away
RECALL_SIDE_RATIO = 1.6  # a person found again is at most so much higher or lower


def pose_likeness(
    points: npt.NDArray[Any],
    trust: npt.NDArray[Any],
    var: npt.NDArray[Any],
    poses: npt.NDArray[Any],
    boxes: npt.NDArray[Any],
    sigmas: npt.NDArray[Any],
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """OKS (N, M) of the people's `points` (N, K, 2), with `trust` and `var` (N, K), and M `poses` (M, K, 3); and which
    pairs (N, M) have enough joints in common to be told by it. `boxes` (N, 4) give the scale."""
    seen = finite(poses)
    weights = np.minimum(trust[:, None], seen[None, :, :, 2])
    area = np.broadcast_to(COCO_BOX_FILL * association.areas(boxes)[:, None], weights.shape[:2])
    alike = association.oks(points[:, None], seen[None, :, :, :2], weights, area, sigmas, var[:, None])
    return alike, weights.sum(axis=2) >= LEAST_JOINTS


def finite(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`values`, 0 where they are no numbers: not measured."""
    return np.where(np.isfinite(values), values, 0.0)


def mix(overlap: Floats, alike: Floats, known: npt.NDArray[np.bool_]) -> Floats:
    """The likeness (N, M): overlap of the boxes, mixed with that of the poses where those are `known`."""
    return np.asarray((1 - POSE_SHARE) * overlap + POSE_SHARE * np.where(known, alike, NEUTRAL_OKS))


def dress(likeness: Floats, colours: Floats, least: float) -> Floats:
    """`likeness` (N, M) less what the `colours` (N, M) in 0..1, NaN where unknown, speak against it.

    Colours decide between people who claim the same detection (whoever fits it less than the best of those above `least`
    loses) and say little against a single claim: somebody half hidden wears what hides him.
    """
    known = np.where(np.isfinite(colours), colours, NEUTRAL_COLOUR)
    best = np.where(likeness > least, known, 0.0).max(axis=0, initial=0.0)
    lost = CONTEST_SHARE * np.maximum(best - known, 0.0) + COLOUR_SHARE * np.maximum(NEUTRAL_COLOUR - known, 0.0)
    return np.asarray(likeness - lost)


def match(similarity: Floats, rows: Sequence[int], columns: Sequence[int], least: float) -> list[tuple[int, int]]:
    """The best pairs (row, column) among the given `rows` and `columns` (indices) of `similarity`, none under `least`."""
    if not len(rows) or not len(columns):
        return []
    pairs = association.assign(similarity[np.array(rows)[:, None], np.array(columns)], least)
    return [(int(rows[i]), int(columns[j])) for i, j in pairs]


def recall_likeness(tracks: list[Track], boxes: npt.NDArray[Any], time_s: float) -> Floats:
    """How well each detection (M, 4) fits where each track out of sight may be by now: (N, M) in 0..1.

    A Gaussian in the distance of the centres, by the track's own uncertainty, either from where its motion leads or
    from where it was last seen (people stop behind things), and in the ratio of the heights; 0 beyond the gates, and
    for tracks that are in sight.
    """
    result = np.zeros((len(tracks), len(boxes)))
    if not len(boxes):
        return result
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
    for row, track in enumerate(tracks):
        if not track.unseen:
            continue
        var = track.cov[0, 0] + (2 * CENTRE_NOISE * track.size) ** 2
        ahead2 = ((centres - track.mean[0]) ** 2).sum(axis=1) / var
        if time_s - track.seen_s > AHEAD_S:
            ahead2 = np.full(len(boxes), np.inf)
        stayed = (STAY_STD + STAY_SPEED * (time_s - track.seen_s)) * track.size
        d2 = np.minimum(ahead2, ((centres - track.seen_at) ** 2).sum(axis=1) / stayed**2)
        ratio = np.log(sides[:, 1] / track.sides[1]) / np.log(RECALL_SIDE_RATIO)
        near = (d2 <= RECALL_GATE**2) & (np.abs(ratio) <= 1)
        result[row] = np.where(near, np.exp(-0.5 * (d2 / RECALL_GATE + ratio**2)), 0.0)
    return result


def same_pose(poses: npt.NDArray[Any], boxes: npt.NDArray[Any], sigmas: npt.NDArray[Any]) -> Floats:
    """How alike M `poses` (M, K, 3) in `boxes` (M, 4) are pairwise, (M, M): the OKS at the scale of the smaller box.

    0 on the diagonal and where too few joints are sure in both.
    """
    seen = finite(poses)
    points, scores = seen[..., :2], seen[..., 2]
    weights = np.minimum(scores[:, None], scores[None])
    area = COCO_BOX_FILL * association.areas(boxes)
    alike = association.oks(points[:, None], points[None], weights, np.minimum(area[:, None], area[None]), sigmas)
    alike = np.where(weights.sum(axis=2) >= LEAST_JOINTS, alike, 0.0)
    np.fill_diagonal(alike, 0.0)
    return np.asarray(alike)


def confidence(pose: Floats) -> float:
    """Mean score of the surer half of the joints of a pose (K, 3); one that was not asked for speaks against nobody."""
    scores = np.sort(pose[:, 2])[len(pose) // 2 :]
    return float(scores.mean()) if np.isfinite(scores).all() else 1.0


def weighted_median(values: Floats, weights: Floats) -> Floats:
    """The median (D,) of `values` (K, D) by `weights` (K,), axis by axis; 0 where all weights are 0."""
    if weights.sum() <= 0:
        return np.zeros(values.shape[1])
    order = np.argsort(values, axis=0)
    heap = np.cumsum(weights[order], axis=0)
    middle = (heap >= heap[-1] / 2).argmax(axis=0)
    return np.asarray(np.take_along_axis(values, np.take_along_axis(order, middle[None], 0), 0)[0])
