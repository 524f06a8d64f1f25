"""One box a person out of many candidates; arrays in, arrays out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
MAX_PEOPLE = 300
FADE_IOU = 0.4
SAME_IOU = 0.7
VOTE_IOU = 0.6


def merge(
    boxes: FloatArray, scores: FloatArray, threshold: float, limit: int = MAX_PEOPLE
) -> tuple[FloatArray, FloatArray]:
    """Candidates (N, 4), (N,) to one box a person: at most `limit` boxes and their scores, best first.

    The best candidate's box is the mean of all that overlap it by more than `VOTE_IOU`, weighed by score and overlap
    (box voting, Gidaris and Komodakis, ICCV 2015). The scores of the others fade linearly with their overlap, from
    `FADE_IOU` on, and are nothing from `SAME_IOU` on (after Soft-NMS, Bodla et al., ICCV 2017), so that somebody half
    behind somebody else stays, as a doubtful one. Who falls below `threshold` is out. Equal scores keep their order.
    """
    corners, areas = boxes.T, (boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0)
    left = scores.astype(np.float32)
    merged, sure = list[FloatArray](), list[np.float32]()
    while len(left) and len(merged) < limit:
        best = int(np.argmax(left))
        score = left[best]
        if score < threshold or score <= 0:
            break
        x1, y1, x2, y2 = boxes[best]
        width = (np.minimum(x2, corners[2]) - np.maximum(x1, corners[0])).clip(0)
        shared = width * (np.minimum(y2, corners[3]) - np.maximum(y1, corners[1])).clip(0)
        iou = shared / np.maximum(areas[best] + areas - shared, np.finfo(np.float32).tiny)
        votes = np.where(iou > VOTE_IOU, scores * iou, 0)
        votes[best] = scores[best]
        merged.append(votes @ boxes / votes.sum())
        sure.append(score)
        left = left * ((SAME_IOU - iou) / (SAME_IOU - FADE_IOU)).clip(0, 1)
        left[best] = 0
    return np.array(merged, np.float32).reshape(-1, 4), np.array(sure, np.float32)
