"""From what a YOLO network says to boxes: threshold, corners, non-maximum suppression; arrays in, arrays out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
NMS_IOU = 0.65
MAX_PEOPLE = 300
MAX_CANDIDATES = 3000


def decode_yolo(
    raw: FloatArray, threshold: float, iou: float = NMS_IOU, limit: int = MAX_PEOPLE
) -> tuple[FloatArray, FloatArray]:
    """One picture's raw output (5, anchors), rows cx, cy, w, h, score in input pixels, to boxes (N, 4) and scores (N,).

    YOLO's pixel edges are whole numbers (a box around the one pixel (0, 0) is 0..1); ours are its centres, so half a
    pixel is taken off. Best first.
    """
    scores = raw[4]
    kept = np.flatnonzero(scores >= threshold)
    kept = kept[np.argsort(-scores[kept], kind="stable")[:MAX_CANDIDATES]]
    centre, half = raw[:2, kept].T, raw[2:4, kept].T / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1) - np.float32(0.5)
    best = suppress(boxes, scores[kept], iou, limit)
    return boxes[best].astype(np.float32), scores[kept][best].astype(np.float32)


def decode_end2end(raw: FloatArray, threshold: float, limit: int = MAX_PEOPLE) -> tuple[FloatArray, FloatArray]:
    """One picture's (N, 6) output, x1, y1, x2, y2, score, class (0 is person), to boxes and scores, best first."""
    people = raw[(raw[:, 4] >= threshold) & (raw[:, 5] == 0)]
    people = people[np.argsort(-people[:, 4], kind="stable")[:limit]]
    return (people[:, :4] - np.float32(0.5)).astype(np.float32), people[:, 4].astype(np.float32)


def suppress(
    boxes: FloatArray, scores: FloatArray, iou: float = NMS_IOU, limit: int = MAX_PEOPLE
) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression: indices of the boxes that stay, best first.

    A box goes where a better one that stays overlaps it by more than `iou`. Equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order].astype(np.float64)
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    alive = np.ones(len(boxes), bool)
    kept: list[int] = []
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        kept.append(i)
        if len(kept) == limit:
            break
        rest = np.flatnonzero(alive[i + 1 :]) + i + 1
        overlap = np.minimum(boxes[i, 2:], boxes[rest, 2:]) - np.maximum(boxes[i, :2], boxes[rest, :2])
        shared = np.prod(np.maximum(overlap, 0), axis=1)
        union = areas[i] + areas[rest] - shared
        alive[rest[shared > iou * union]] = False
    return order[kept]
