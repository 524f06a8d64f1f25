"""What an end-to-end detector (YOLOv10, YOLO26, RT-DETR) says of whole people, to boxes; arrays in, arrays out."""

from __future__ import annotations

import numpy as np

from streampose.detect.base import BoxOutput, FloatArray
from streampose.detect.nms import MAX_PEOPLE


def decode_end2end(
    raw: FloatArray, threshold: float, *, limit: int = MAX_PEOPLE, person: int = 0
) -> tuple[FloatArray, FloatArray]:
    """One picture's (N, 6) output, x1, y1, x2, y2, score, class, to boxes and scores of class `person`, best first."""
    people = raw[(raw[:, 4] >= threshold) & (raw[:, 5] == person)]
    people = people[np.isfinite(people).all(axis=1)]
    people = people[np.argsort(-people[:, 4], kind="stable")[:limit]]
    return (people[:, :4] - np.float32(0.5)).astype(np.float32), people[:, 4].astype(np.float32)


YOLO_END2END = BoxOutput(
    shape="(B, N, 6)",
    fits=lambda shape: len(shape) == 3 and shape[2] == 6,
    class_count=lambda shape: None,
    decode=decode_end2end,
    rows=lambda raw: raw,
    ranked=True,
    any_size=False,
)
