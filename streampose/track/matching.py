"""How alike known people and detections are, in box, in pose and in motion; and the rounds of giving one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.track import association
from streampose.track.association import COCO_BOX_FILL
from streampose.track.track import CENTRE_NOISE, Bodies, Track, around

Floats = npt.NDArray[np.float64]
POSE_SHARE = 0.35  # of the likeness, where both poses are known well enough
NEUTRAL_OKS = 0.35  # what the same person's poses in two frames often reach, seen small
NEUTRAL_COLOUR = 0.5
CONTEST_SHARE = 0.55  # of the likeness goes to whom the colours fit best
COLOUR_SHARE = 0.2
STAYED_SHARE = 0.8  # of the overlap with where somebody was seen last
DOUBLE_IOU = 0.4
DOUBLE_OKS = 0.6
NESTED = 0.8  # so much of a box in a larger one: it may hold a part of the same body
RECALL_GATE = 3.0  # standard deviations between where a person is expected and a detection
AHEAD_S = 2.0  # a walk can be foreseen for so long
STAY_STD = 0.2  # body heights: a person who stopped is found about there
STAY_SPEED = 0.1  # body heights per second: and strolls away
REACH, REACH_SPEED = 0.1, 1.5  # body heights (per second): who is in sight comes no further between two frames
RECALL_SIDE_RATIO = 1.6  # a person found again is at most so much larger or smaller


def pose_likeness(
    points: npt.NDArray[Any],
    trust: npt.NDArray[Any],
    var: npt.NDArray[Any],
    poses: npt.NDArray[Any],
    boxes: npt.NDArray[Any],
    sigmas: npt.NDArray[Any],
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """OKS (...) of people's `points` (..., K, 2), with `trust` and `var` (..., K), and `poses` (..., K, 3); and which
    pairs have enough joints in common to be told by it. The `boxes` (..., 4) of the people give the scale. All
    broadcast, so that everybody may be held against every pose."""
    weights = np.minimum(trust, poses[..., 2])
    alike = association.oks(points, poses[..., :2], weights, COCO_BOX_FILL * association.areas(boxes), sigmas, var)
    return alike, weights.sum(axis=-1) >= association.least_joints(len(sigmas))


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
    pairs = association.assign(similarity[np.array(rows)[:, None], columns], least)
    return [(int(rows[i]), int(columns[j])) for i, j in pairs]


def recall_likeness(tracks: list[Track], bodies: Bodies, boxes: npt.NDArray[Any], time_s: float) -> Floats:
    """How well each detection (M, 4) fits where each track may be by now: (N, M) in 0..1.

    A Gaussian in the distance of the centres, by the track's own uncertainty, either from where its motion leads or
    from where it was last seen (people stop behind things), and in the ratio of the heights or, where it is nearer 1, of
    the longer sides (who falls is as long as before); 0 beyond the gates, which for somebody seen in the last frame are
    no wider than a run.
    """
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
    since_s = time_s - np.array([track.seen_s for track in tracks])
    var = bodies.cov[:, 0, 0] + (2 * CENTRE_NOISE * bodies.sizes) ** 2
    stay_var = ((STAY_STD + STAY_SPEED * since_s) * bodies.sizes) ** 2
    ahead2 = ((centres - bodies.mean[:, None, 0]) ** 2).sum(axis=2)
    ahead2[since_s > AHEAD_S] = np.inf
    stay2 = ((centres - bodies.seen_at[:, None]) ** 2).sum(axis=2)
    in_sight = np.array([not track.unseen for track in tracks])
    reach = np.where(in_sight, (REACH + REACH_SPEED * since_s) * bodies.sizes, np.inf)
    far = np.minimum(ahead2, stay2) > reach[:, None] ** 2
    d2 = np.where(far, np.inf, np.minimum(ahead2 / var[:, None], stay2 / stay_var[:, None]))
    higher, longer = np.log(sides[:, 1] / bodies.sides[:, 1:]), np.log(sides.max(axis=1) / bodies.sizes[:, None])
    ratio = np.minimum(np.abs(higher), np.abs(longer)) / np.log(RECALL_SIDE_RATIO)
    near = (d2 <= RECALL_GATE**2) & (ratio <= 1)
    return np.where(near, np.exp(-0.5 * (d2 / RECALL_GATE + ratio**2)), 0.0)


def stayed(bodies: Bodies, boxes: Floats) -> Floats:
    """Overlap (N, M) of the detections (M, 4) with where people were seen last: many have stopped there."""
    return np.asarray(STAYED_SHARE * association.iou(around(bodies.seen_at, bodies.sides), boxes))


def doubles(boxes: Floats, alike: Floats) -> set[int]:
    """Which of the detections `boxes` (M, 4), best first, are a second box on somebody: they overlap a better one much,
    or one lies in the other, and the poses are the same (`alike` is (M, M))."""
    same = alike > DOUBLE_OKS
    if not same.any():
        return set()
    close = (association.iou(boxes, boxes) > DOUBLE_IOU) | _nested(boxes)
    return set(range(len(same))) - set(association.firsts(same & close))


def same_pose(poses: npt.NDArray[Any], boxes: npt.NDArray[Any], sigmas: npt.NDArray[Any]) -> Floats:
    """How alike M `poses` (M, K, 3) in `boxes` (M, 4) are pairwise, (M, M): the OKS at the scale of the smaller box, or,
    where one lies in the other and may be cut, of the larger.

    0 on the diagonal and where too few joints are sure in both.
    """
    if len(poses) < 2:
        return np.zeros((len(poses), len(poses)))
    areas = association.areas(boxes)
    smaller, larger = np.minimum(areas[:, None], areas), np.maximum(areas[:, None], areas)
    alike = common_likeness(poses, poses, np.where(_nested(boxes), larger, smaller), sigmas)
    np.fill_diagonal(alike, 0.0)
    return alike


def _nested(boxes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which pairs (M, M) of `boxes` (M, 4) are one in the other, for the most part."""
    areas = association.areas(boxes)
    return np.asarray(association.overlaps(boxes, boxes) >= NESTED * np.minimum(areas[:, None], areas))


def common_likeness(
    a: npt.NDArray[Any], b: npt.NDArray[Any], areas: npt.NDArray[Any], sigmas: npt.NDArray[Any]
) -> Floats:
    """OKS (N, M) of each of the poses `a` (N, K, 3) with each of `b` (M, K, 3) at the scale of boxes with these `areas`
    (N, M) or (N, 1); 0 where too few joints are sure in both."""
    weights = np.minimum(a[:, None, :, 2], b[:, :, 2])
    alike = association.oks(a[:, None, :, :2], b[:, :, :2], weights, COCO_BOX_FILL * areas, sigmas)
    return np.where(weights.sum(axis=2) >= association.least_joints(len(sigmas)), alike, 0.0)


def confidence(poses: Floats) -> Floats:
    """Mean score (N,) of the surer half of the joints of `poses` (N, K, 3); 1 for one that was not asked for: it speaks
    against nobody."""
    surer = np.sort(poses[:, :, 2], axis=1)[:, poses.shape[1] // 2 :].mean(axis=1)
    return np.where(np.isfinite(surer), surer, 1.0)
