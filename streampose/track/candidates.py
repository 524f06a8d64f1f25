"""Which boxes want a pose: detections without duplicates, widened to whole bodies, and predictions nobody covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.messages import Array
from streampose.track import association

Floats = npt.NDArray[np.float64]
LEAST_SIDE_PX = 2.0
HULL_MARGIN = 0.05  # body heights: a box reaches past the outermost key points by about so much
WIDEN_LIMIT = 0.5  # body heights: a box grows by at most so much, each way


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """What the tracker wants to know of a frame.

    `boxes` (M, 4) float32 xyxy: where a pose is wanted. Behind them stand the candidates: first the D `detections`
    (D, 4) with `scores` (D,), then one predicted box for each track row in `carried`. `pose_of` (candidates,) is the
    index into `boxes` of each candidate's pose, -1 where none is wanted. `detected` says whether detection was due.
    `overlap` (N, D) is that of the tracks' boxes with the detections.
    """

    time_s: float
    boxes: Array
    detections: Floats
    scores: Floats
    carried: npt.NDArray[np.intp]
    pose_of: npt.NDArray[np.intp]
    detected: bool
    picture: tuple[int, int]
    overlap: Floats

    def poses(self, keypoints: npt.NDArray[Any], joints: int) -> Floats:
        """The pose of each candidate (C, joints, 3), NaN where none was wanted, from the `keypoints` (M, joints, 3) of
        the boxes. Raises ValueError where those are not as many."""
        found = np.asarray(keypoints, np.float64).reshape(-1, joints, 3)
        if len(found) != len(self.boxes):
            raise ValueError(f"{len(found)} poses for {len(self.boxes)} proposed boxes")
        poses = np.full((len(self.pose_of), joints, 3), np.nan)
        asked = self.pose_of >= 0
        poses[asked] = found[self.pose_of[asked]]
        return poses


def clean(boxes: npt.NDArray[Any] | None, scores: npt.NDArray[Any] | None, least: float) -> tuple[Floats, Floats]:
    """The usable detections, best first: finite, at least 2 px on each side, score of `least` or more.

    The order depends on the detections alone, never on how they were given.
    """
    if boxes is None or scores is None:
        return np.zeros((0, 4)), np.zeros(0)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    scores = np.asarray(scores, np.float64).reshape(-1)
    if len(boxes) != len(scores):
        raise ValueError(f"{len(boxes)} boxes and {len(scores)} scores")
    good = np.isfinite(boxes).all(axis=1) & (scores >= least) & (scores < np.inf)
    boxes, scores = boxes[good], scores[good]
    wide = (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE_PX).all(axis=1)
    boxes, scores = boxes[wide], scores[wide]
    order = np.lexsort((*boxes.T, -scores))
    return boxes[order], scores[order]


def widen(boxes: Floats, points: npt.NDArray[Any], sure: npt.NDArray[np.bool_], sizes: npt.NDArray[Any]) -> Floats:
    """`boxes` (N, 4), each grown to hold the `sure` ones (N, K) of the key points (N, K, 2), of people of `sizes` (N,) px.

    One with too few sure points, in a skeleton of 17 fewer than three, stays.
    """
    margin, limit = HULL_MARGIN * sizes[:, None], WIDEN_LIMIT * sizes[:, None]
    first = np.where(sure[..., None], points, np.inf).min(axis=1, initial=np.inf) - margin
    last = np.where(sure[..., None], points, -np.inf).max(axis=1, initial=-np.inf) + margin
    low = np.maximum(np.minimum(first, boxes[:, :2]), boxes[:, :2] - limit)
    high = np.minimum(np.maximum(last, boxes[:, 2:]), boxes[:, 2:] + limit)
    told = sure.sum(axis=1) >= association.least_joints(sure.shape[1])
    return np.where(told[:, None], np.concatenate((low, high), axis=1), boxes)


def inside(boxes: npt.NDArray[Any], width: int, height: int) -> Floats:
    """The part (N,) of each of `boxes` (N, 4) that lies in a picture of `width` x `height` pixels, 0..1."""
    frame = np.array([[-0.5, -0.5, width - 0.5, height - 0.5]])
    shared = association.overlaps(boxes, frame)[:, 0]
    whole = association.areas(boxes)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
