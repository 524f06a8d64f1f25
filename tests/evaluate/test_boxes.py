"""Box AP against COCO's own evaluation, and its figures by height."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from streampose.evaluate.boxes import BoxTruth, box_ap


def scene(rng: np.random.Generator) -> tuple[BoxTruth, tuple[np.ndarray, np.ndarray]]:
    """People, some of whom are found (inexactly), some missed, and some detections of nobody."""
    count = int(rng.integers(1, 6))
    corner, side = rng.uniform(0, 300, (count, 2)), rng.uniform(20, 150, (count, 2))
    boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    hit = boxes[rng.random(count) < 0.8]
    hit = hit + rng.normal(0, 6, hit.shape).astype(np.float32)
    false = rng.uniform(0, 300, (int(rng.integers(0, 3)), 2))
    false = np.concatenate([false, false + rng.uniform(20, 150, false.shape)], axis=1)
    found = np.concatenate([hit, false]).astype(np.float32)
    return BoxTruth(boxes, np.zeros(count, bool)), (found, rng.random(len(found)).astype(np.float32))


def reference(truths: list[BoxTruth], found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    gold = COCO()
    people = [
        {
            "id": i * 100 + k + 1,
            "image_id": i,
            "category_id": 1,
            "iscrowd": 0,
            "area": 1e3,
            "bbox": [*b[:2], *(b[2:] - b[:2])],
        }
        for i, truth in enumerate(truths)
        for k, b in enumerate(truth.boxes.astype(float))
    ]
    gold.dataset = {"images": [{"id": i} for i in range(len(truths))], "annotations": people, "categories": [{"id": 1}]}
    rows = [
        {"image_id": i, "category_id": 1, "bbox": [*b[:2], *(b[2:] - b[:2])], "score": float(s)}
        for i, (boxes, scores) in enumerate(found)
        for b, s in zip(boxes.astype(float), scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        gold.createIndex()
        evaluation = COCOeval(gold, gold.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [scene(rng) for _ in range(12)]
    truths, found = [s[0] for s in scenes], [s[1] for s in scenes]
    score = box_ap(truths, found)["all"]
    assert (score.ap, score.ap50) == pytest.approx(reference(truths, found), abs=1e-6)
    assert score.people == sum(len(t.boxes) for t in truths)


def test_small_people_count_neither_way_among_the_large() -> None:
    boxes = np.array([[0, 0, 40, 100], [100, 0, 110, 30]], np.float32)
    truth = [BoxTruth(boxes, np.zeros(2, bool))]
    scores = np.array([0.9, 0.95], np.float32)
    assert box_ap(truth, [(boxes, scores)])["64"].ap50 == pytest.approx(1)
    only_large = box_ap(truth, [(boxes[:1], scores[:1])])
    assert only_large["64"].ap50 == pytest.approx(1)
    assert only_large["all"].ap50 == pytest.approx(0.5, abs=0.01)
    assert only_large["<40"].ap50 == 0
    assert only_large["64"].people == only_large["<40"].people == 1


def test_ignored_regions_forgive_what_is_found_in_them() -> None:
    boxes = np.array([[0, 0, 40, 100], [100, 0, 300, 200]], np.float32)
    found = (np.array([[0, 0, 40, 100], [120, 20, 160, 120]], np.float32), np.array([0.5, 0.9], np.float32))
    ignored = BoxTruth(boxes, np.array([False, True]))
    assert box_ap([ignored], [found])["all"].ap50 == pytest.approx(1)
    assert box_ap([BoxTruth(boxes, np.zeros(2, bool))], [found])["all"].ap50 < 0.6


def test_nothing_found_and_nobody_there() -> None:
    nothing = (np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    person = BoxTruth(np.array([[0, 0, 40, 100]], np.float32), np.zeros(1, bool))
    assert box_ap([person], [nothing])["all"].ap50 == 0
    empty = BoxTruth(np.zeros((0, 4), np.float32), np.zeros(0, bool))
    assert np.isnan(box_ap([empty], [nothing])["all"].ap50)
    with pytest.raises(ValueError, match="1 pictures have truth, 2 have detections"):
        box_ap([empty], [nothing, nothing])
