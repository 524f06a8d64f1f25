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

from streampose.evaluate.counting import coco_counting

HEIGHTS_PX: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e5),
    "64": (64.0, 1e5),
    "40-100": (40.0, 100.0),
    "<40": (0.0, 40.0),
}
COCO_AREAS_PX2: dict[str, tuple[float, float]] = {
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}


@dataclass(frozen=True, slots=True, eq=False)
class BoxTruth:
    """The people of one picture: `boxes` (N, 4) xyxy pixels; `ignored` (N,) bool, who counts neither way; `areas` (N,)
    px², for COCO's sizes (None: those of the boxes)."""

    boxes: npt.NDArray[np.float32]
    ignored: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.float32] | None = None


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
    if len(truths) != len(found):
        raise ValueError(f"{len(truths)} pictures have truth, {len(found)} have detections")
    ranges = heights_px or HEIGHTS_PX
    truth_sizes = [truth.boxes[:, 3] - truth.boxes[:, 1] for truth in truths]
    found_sizes = [boxes[:, 3] - boxes[:, 1] for boxes, _ in found]
    return _average_precision(truths, found, truth_sizes, found_sizes, ranges)


def box_ap_by_area(
    truths: Sequence[BoxTruth], found: Sequence[tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]]
) -> dict[str, BoxScore]:
    """The same for COCO's small, medium and large people, by area in square pixels."""
    found_sizes = [_areas(boxes) for boxes, _ in found]
    truth_sizes = [_areas(truth.boxes) if truth.areas is None else truth.areas for truth in truths]
    return _average_precision(truths, found, truth_sizes, found_sizes, COCO_AREAS_PX2)


def _areas(boxes: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def _average_precision(
    truths: Sequence[BoxTruth],
    found: Sequence[tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]],
    truth_sizes: Sequence[npt.NDArray[np.floating]],
    found_sizes: Sequence[npt.NDArray[np.floating]],
    ranges: dict[str, tuple[float, float]],
) -> dict[str, BoxScore]:
    """COCO's counting with a size for every box, one array a picture, and a figure for each range of sizes."""
    COCO, COCOeval_faster = coco_counting()
    truth_rows = [
        _row(box, picture, size, iscrowd=int(ignored))
        for picture, (truth, sizes) in enumerate(zip(truths, truth_sizes, strict=True))
        for box, ignored, size in zip(truth.boxes, truth.ignored, sizes, strict=True)
    ]
    found_rows = [
        _row(box, picture, size, score=float(score))
        for picture, ((boxes, scores), sizes) in enumerate(zip(found, found_sizes, strict=True))
        for box, score, size in zip(boxes, scores, sizes, strict=True)
    ]
    counted = {name: _people_between(truths, truth_sizes, *limits) for name, limits in ranges.items()}
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


def _row(box: npt.NDArray[np.floating], picture: int, size: float, **more: Any) -> dict[str, Any]:
    """One COCO annotation; `size` stands in its "area", by which COCO's counting sorts into ranges."""
    x1, y1, x2, y2 = (float(v) for v in box)
    more.setdefault("iscrowd", 0)
    return {"image_id": picture, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": float(size), **more}


def _people_between(
    truths: Sequence[BoxTruth], sizes: Sequence[npt.NDArray[np.floating]], low: float, high: float
) -> int:
    counted = [size[~truth.ignored] for truth, size in zip(truths, sizes, strict=True)]
    return int(sum(((size >= low) & (size <= high)).sum() for size in counted))


def _mean(values: npt.NDArray[np.floating]) -> float:
    """COCO writes -1 where there is nothing to measure."""
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else float("nan")
