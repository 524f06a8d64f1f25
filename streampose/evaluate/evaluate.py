"""Measure a pose network, and a detector with it, on labelled pictures: the figures behind `streampose eval`.

Protocol: COCO's (OKS-AP and box AP over 0.50:0.05:0.95), counted by faster-coco-eval. A person's score is the box's
score times the mean of the joint scores above 0.2; a detector's answers go through OKS-NMS at 0.9; at most 20 people a
picture count for key points and 100 for boxes. Every figure says whose boxes were posed and whether flip test was on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from streampose.errors import UsageError
from streampose.evaluate.answers import (
    Answers,
    BoxesOf,
    EstimatesPose,
    FindsPeople,
    Progress,
    answer,
    answer_far,
    labelled_boxes,
)
from streampose.evaluate.boxes import BoxScore, BoxTruth, box_ap, box_ap_by_area
from streampose.evaluate.dataset import LabelledPerson
from streampose.evaluate.keypoints import KeypointFigures, score_keypoints
from streampose.evaluate.oks import oks_to_label
from streampose.evaluate.selection import Sample
from streampose.messages import Array
from streampose.pose.skeleton import Skeleton

TALL_PX = 64
NEAR_OKS = 0.01  # a detector's answer less alike than this is not shown as that person's
KEYPOINT_NAMES = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_medium": "AP_medium",
    "ap_large": "AP_large",
    "ar": "AR",
    "people": "people",
}


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """How well one labelled person was posed: `oks` of the best answer in the picture, `keypoints` (K, 3) and `box`
    (4,) that answer, None where there was none near."""

    sample: Sample
    person: LabelledPerson
    oks: float
    keypoints: Array | None
    box: Array | None


@dataclass(slots=True, eq=False)
class Evaluation:
    """All figures of one run. `people` are those with labelled key points, or all who are boxed where nobody has any;
    `keypoints` is None for a set without labelled key points, `boxes` where the labelled boxes were posed; `tall` counts
    people at least 64 px high alone; `far` is keyed by height in pixels."""

    pictures: int
    people: int
    keypoints: KeypointFigures | None = None
    tall: KeypointFigures | None = None
    boxes: dict[str, BoxScore] | None = None
    far: dict[int, KeypointFigures] = field(default_factory=dict)
    far_found: dict[int, float] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: fractions, null where something was not measured."""
        keypoints = keypoint_dict(self.keypoints)
        keypoints["AP_64px"] = None if self.tall is None else _rounded(self.tall.ap)
        overall = (self.boxes or {}).get("all")
        boxes: dict[str, Any] = {
            "AP": None if overall is None else _rounded(overall.ap),
            "AP50": None if overall is None else _rounded(overall.ap50),
            "AR": None if overall is None else _rounded(overall.ar),
        }
        for name, score in (self.boxes or {}).items():
            if name != "all":
                boxes[name] = {"AP": _rounded(score.ap), "AP50": _rounded(score.ap50), "people": score.people}
        heights = {
            str(height): keypoint_dict(figures) | {"found": _rounded(self.far_found[height])}
            for height, figures in self.far.items()
        }
        found = {"keypoints": keypoints, "boxes": boxes, "person_height": heights}
        return {**found, "pictures": self.pictures, "people": self.people}


def keypoint_dict(figures: KeypointFigures | None) -> dict[str, float | None]:
    """COCO's names for the figures, null where none were made or nobody is in the range."""
    if figures is None:
        return dict.fromkeys(KEYPOINT_NAMES.values())
    return {name: _rounded(getattr(figures, key)) for key, name in KEYPOINT_NAMES.items()}


def _rounded(value: float) -> float | None:
    return None if not math.isfinite(value) else round(value, 5)


def evaluate(
    samples: Sequence[Sample],
    pose: EstimatesPose,
    skeleton: Skeleton,
    *,
    boxes_of: BoxesOf = labelled_boxes,
    detector: FindsPeople | None = None,
    heights_px: Sequence[int] = (),
    progress: Callable[[str], Progress] | None = None,
) -> Evaluation:
    """All figures for `samples`. `boxes_of` says whose boxes are posed; `detector` also serves the far pictures.

    `progress` is asked once for each measurement, by its name, for what is told how many pictures (or people, for the
    far ones) are done. Raises UsageError where nothing can be measured, DataError for a picture that cannot be read.
    """
    posed = sum(len(sample.posed) for sample in samples)
    labelled = boxes_of is labelled_boxes
    if labelled and not posed:
        raise UsageError("nobody here has labelled key points; --boxes detector measures the boxes alone")
    found = answer(samples, pose, skeleton, boxes_of, progress("clean") if progress else None)
    result = Evaluation(len(samples), posed)
    if not labelled:
        result.boxes = score_boxes(samples, found)
        result.people = posed or result.boxes["all"].people
    if posed:
        result.keypoints = score(samples, found, skeleton)
        result.tall = score(samples, found, skeleton, least_height_px=TALL_PX)
        result.verdicts = verdicts(samples, found, skeleton)
    for height in heights_px if posed else ():
        told = progress(f"{height} px") if progress else None
        far = answer_far(samples, height, pose, skeleton, detector, told)
        result.far[height] = score(samples, far, skeleton)
        result.far_found[height] = len(far.image_ids) / posed
    return result


def score(
    samples: Sequence[Sample], found: Answers, skeleton: Skeleton, *, least_height_px: float = 0.0
) -> KeypointFigures:
    """COCO's key-point figures. People lower than `least_height_px` are ignored, and so are answers with such boxes."""
    people = [person for sample in samples for person in sample.people]
    counted = [person for sample in samples for person in sample.posed if _height(person.box) >= least_height_px]
    kept = found.boxes[:, 3] - found.boxes[:, 1] >= least_height_px
    wanted = {id(person) for person in counted}
    people = [person if id(person) in wanted else _unlabelled(person) for person in people]
    if not counted:
        nothing = float("nan")
        return KeypointFigures(nothing, nothing, nothing, nothing, nothing, nothing, 0)
    if not kept.any():
        return KeypointFigures(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, len(counted))
    figures = score_keypoints(
        people, found.image_ids[kept].tolist(), found.keypoints[kept], skeleton, found.box_scores[kept]
    )
    areas = np.array([person.area for person in counted])
    medium, large = (areas >= 32**2) & (areas <= 96**2), areas >= 96**2
    return replace(
        figures,
        people=len(counted),
        ap_medium=figures.ap_medium if medium.any() else float("nan"),
        ap_large=figures.ap_large if large.any() else float("nan"),
    )


def _height(box: Array) -> float:
    return float(box[3] - box[1])


def _unlabelled(person: LabelledPerson) -> LabelledPerson:
    """The same person without labels: COCO ignores whoever has none."""
    keypoints = person.keypoints.copy()
    keypoints[:, 2] = 0
    return replace(person, keypoints=keypoints)


def score_boxes(samples: Sequence[Sample], found: Answers) -> dict[str, BoxScore]:
    """Box AP over all people, by COCO's sizes ("small" …) and by height in pixels ("64" and up, "40-100", "<40")."""
    truths = [
        BoxTruth(
            boxes=np.array([person.box for person in sample.people], np.float32).reshape(-1, 4),
            ignored=np.array([person.crowd for person in sample.people], bool),
            areas=np.array([person.area for person in sample.people], np.float32),
        )
        for sample in samples
    ]
    return {**box_ap(truths, found.detections), **box_ap_by_area(truths, found.detections)}


def verdicts(samples: Sequence[Sample], found: Answers, skeleton: Skeleton) -> list[Verdict]:
    """The best answer for every person with labelled key points, worst first.

    The answer to a labelled box is that person's; a detector's answers are given to whom they fit best.
    """
    rows: dict[int, list[int]] = {}
    for row, image in enumerate(found.image_ids.tolist()):
        rows.setdefault(image, []).append(row)
    judged = []
    for sample in samples:
        for person in sample.posed:
            near = [row for row in rows.get(sample.image.id, []) if found.persons[row] in (person.id, -1)]
            values = [oks_to_label(person, found.keypoints[row], skeleton.sigmas) for row in near]
            asked = bool(near) and found.persons[near[0]] == person.id
            best = near[int(np.argmax(values))] if values and (asked or max(values) > NEAR_OKS) else None
            if best is None:
                judged.append(Verdict(sample, person, 0.0, None, None))
            else:
                judged.append(Verdict(sample, person, max(values), found.keypoints[best], found.boxes[best]))
    return sorted(judged, key=lambda verdict: verdict.oks)
