"""How well people are found: average precision of boxes by the COCO protocol, whole and by the height of the person.

Counting is done by faster-coco-eval. For the figures by height, people outside the range are ignored: they are neither
missed nor, where something fires on them, false; nor are detections of such a height that match nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.errors import UsageError

HEIGHTS_PX: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e5),
    "64": (64.0, 1e5),
    "40-100": (40.0, 100.0),
    "<40": (0.0, 40.0),
}


@dataclass(frozen=True, slots=True, eq=False)
class BoxTruth:
    """The people of one picture: `boxes` (N, 4) xyxy pixels; `ignored` (N,) bool, who counts neither way."""

    boxes: npt.NDArray[np.float32]
    ignored: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BoxScore:
    """Average precision over IoU 0.5..0.95 and at 0.5, and average recall at up to 100 boxes a picture; fractions.

    NaN where nobody is in the range.
    """

    ap: float
    ap50: float
    ar: float
    people: int


def box_ap(
    truths: Sequence[BoxTruth],
    found: Sequence[tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]],
    heights_px: dict[str, tuple[float, float]] | None = None,
) -> dict[str, BoxScore]:
    """Score `found`, one (boxes (N, 4) xyxy, scores (N,)) a picture, against `truths`; a figure for each height range.

    Raises UsageError where faster-coco-eval is not installed, ValueError where the lengths differ.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise UsageError("evaluation needs faster-coco-eval: pip install 'streampose[eval]'") from None
    if len(truths) != len(found):
        raise ValueError(f"{len(truths)} pictures have truth, {len(found)} have detections")
    ranges = heights_px or HEIGHTS_PX
    truth_rows = [
        _row(box, picture, iscrowd=int(ignored))
        for picture, truth in enumerate(truths)
        for box, ignored in zip(truth.boxes, truth.ignored, strict=True)
    ]
    found_rows = [
        _row(box, picture, score=float(score))
        for picture, (boxes, scores) in enumerate(found)
        for box, score in zip(boxes, scores, strict=True)
    ]
    counted = {name: _people_between(truths, *limits) for name, limits in ranges.items()}
    if not truth_rows or not found_rows:
        return {name: BoxScore(*((0.0,) * 3 if n else (float("nan"),) * 3), n) for name, n in counted.items()}
    gold, results = COCO(), COCO()
    for dataset, rows in ((gold, truth_rows), (results, found_rows)):
        dataset.dataset = {
            "images": [{"id": i, "file_name": str(i), "width": 1, "height": 1} for i in range(len(truths))],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [{"id": i + 1, **row} for i, row in enumerate(rows)],
        }
        dataset.createIndex()
    evaluation = COCOeval_faster(gold, results, iouType="bbox", print_function=lambda *_: None)
    evaluation.params.areaRng = list(ranges.values())
    evaluation.params.areaRngLbl = list(ranges)
    evaluation.params.maxDets = [1, 10, 100]
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    return {
        name: BoxScore(
            _mean(precision[:, :, 0, k, -1]),
            _mean(precision[0, :, 0, k, -1]),
            _mean(recall[:, 0, k, -1]),
            counted[name],
        )
        for k, name in enumerate(ranges)
    }


def _row(box: npt.NDArray[np.floating], picture: int, **more: Any) -> dict[str, Any]:
    """One COCO annotation; its "area" is the height, so that COCO's size ranges are ranges of height here."""
    x1, y1, x2, y2 = (float(v) for v in box)
    more.setdefault("iscrowd", 0)
    return {"image_id": picture, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": y2 - y1, **more}


def _people_between(truths: Sequence[BoxTruth], low: float, high: float) -> int:
    heights = [t.boxes[~t.ignored, 3] - t.boxes[~t.ignored, 1] for t in truths]
    return int(sum(((h >= low) & (h <= high)).sum() for h in heights))


def _mean(values: npt.NDArray[np.floating]) -> float:
    """COCO writes -1 where there is nothing to measure."""
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else float("nan")
