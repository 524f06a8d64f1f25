"""Object key-point similarity, and non-maximum suppression by it, as COCO's key-point protocol uses them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streampose.evaluate.dataset import LabelledPerson

OKS_NMS = 0.9
"""As published with HRNet: of two answers more alike than this the one with the lower score goes."""
WINDOW = (0.75, 1.25)
"""As published with HRNet, the area of an answer is that of what its network saw: the box at this aspect, so much larger."""


def oks_to_label(person: LabelledPerson, keypoints: npt.NDArray[np.float32], sigmas: npt.NDArray[np.float32]) -> float:
    """COCO's OKS of `keypoints` (K, 3) with the labels of `person`, over the labelled joints; in 0..1."""
    seen = person.keypoints[:, 2] > 0
    apart = ((keypoints[:, :2] - person.keypoints[:, :2]) ** 2).sum(1).astype(np.float64)
    like = np.exp(-apart / (2.0 * (2.0 * sigmas) ** 2 * max(person.area, 1.0)))
    return float(like[seen].mean()) if seen.any() else 0.0


def suppress_by_oks(
    keypoints: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    boxes: npt.NDArray[np.float32],
    sigmas: npt.NDArray[np.float32],
    limit: float = OKS_NMS,
) -> npt.NDArray[np.intp]:
    """Indices of the answers of one picture that stay, best score first.

    `keypoints` (N, K, 3), `scores` (N,), `boxes` (N, 4) xyxy, from which the mean area of two people is taken.
    """
    order = np.argsort(-scores, kind="stable")
    width, height = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0).T
    aspect, scale = WINDOW
    areas = scale**2 * np.maximum(width, aspect * height) * np.maximum(height, width / aspect)
    kept: list[int] = []
    for index in order:
        if kept:
            apart = ((keypoints[kept, :, :2] - keypoints[index, :, :2]) ** 2).sum(2)
            area = (areas[kept] + areas[index])[:, None] / 2
            alike = np.exp(-apart / (2.0 * (2.0 * sigmas) ** 2 * area)).mean(1)
            if (alike > limit).any():
                continue
        kept.append(int(index))
    return np.array(kept, np.intp)
