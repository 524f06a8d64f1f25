"""What a YOLO network says of every anchor, to boxes: threshold, corners, one box a person; arrays in, arrays out."""

from __future__ import annotations

import numpy as np

from streampose.detect.base import BoxOutput, FloatArray
from streampose.detect.nms import MAX_PEOPLE, merge

MAX_CANDIDATES = 3000


def decode_yolo(
    raw: FloatArray, threshold: float, *, limit: int = MAX_PEOPLE, person: int = 0
) -> tuple[FloatArray, FloatArray]:
    """One picture's raw output (4 + classes, anchors), rows cx, cy, w, h in input pixels and a score for each class, to
    boxes (N, 4) and scores (N,) of the class `person`.

    YOLO's pixel edges are whole numbers (a box around the one pixel (0, 0) is 0..1); ours are its centres, so half a
    pixel is taken off. Best first; no score is below `threshold`. A candidate that is not finite is none.
    """
    scores = raw[4 + person]
    kept = np.flatnonzero(scores >= threshold)
    kept = kept[np.isfinite(raw[:4, kept]).all(axis=0) & np.isfinite(scores[kept])]
    kept = kept[np.argsort(-scores[kept], kind="stable")[:MAX_CANDIDATES]]
    centre, half = raw[:2, kept].T, raw[2:4, kept].T / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1) - np.float32(0.5)
    return merge(boxes, scores[kept], threshold, limit)


def _fits(shape: tuple[int, ...]) -> bool:
    """There are more anchors than rows: YOLOv5's own (B, anchors, 5 + classes), or the same turned, would be taken for
    boxes."""
    return len(shape) == 3 and 5 <= shape[1] <= shape[2]


YOLO = BoxOutput(
    shape="(B, 4 + classes, anchors)",
    fits=_fits,
    class_count=lambda shape: shape[1] - 4,
    decode=decode_yolo,
    rows=lambda raw: raw.swapaxes(1, 2),
    ranked=False,
    any_size=True,
)
