"""Decoding and non-maximum suppression, against a slow oracle that shares no code."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampose.detect import nms
from streampose.detect.yolo import decode_yolo
from streampose.detect.yolo_end2end import decode_end2end


def slow_iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / total if total > 0 else 0.0


def slow_merge(boxes: list[list[float]], scores: list[float], threshold: float) -> list[tuple[list[float], float]]:
    """Written out from the definition, a candidate and a person at a time."""
    left = dict(enumerate(scores))
    people: list[tuple[list[float], float]] = []
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        score = left.pop(best)
        if score < threshold or score <= 0:
            break
        total, mean = 0.0, [0.0] * 4
        for i, box in enumerate(boxes):
            overlap = 1.0 if i == best else slow_iou(boxes[best], box)
            if overlap > 0.6:
                weight = scores[i] * overlap
                total += weight
                mean = [m + weight * edge for m, edge in zip(mean, box, strict=True)]
        people.append(([m / total for m in mean], score))
        for i in left:
            left[i] *= min(1.0, max(0.0, (0.7 - slow_iou(boxes[best], boxes[i])) / (0.7 - 0.4)))
    return people


def random_boxes(rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
    corner, side = rng.uniform(0, 60, (count, 2)), rng.uniform(4, 50, (count, 2))
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 40), st.sampled_from([0.05, 0.3]))
def test_merging_agrees_with_the_oracle(seed: int, count: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, count), rng.random(count).astype(np.float32)
    merged, sure = nms.merge(boxes, scores, threshold)
    expected = slow_merge(boxes.tolist(), scores.tolist(), threshold)
    assert sure == pytest.approx([score for _, score in expected], abs=1e-5)
    assert merged == pytest.approx(np.array([box for box, _ in expected]).reshape(-1, 4), abs=1e-3)


@given(st.integers(0, 10_000))
def test_scores_fall_and_no_two_boxes_began_as_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, 40), rng.random(40).astype(np.float32)
    merged, sure = nms.merge(boxes, scores, 0.1)
    assert (np.diff(sure) <= 0).all()
    assert (sure >= 0.1).all()
    assert len(merged) == len(sure) <= len(boxes)
    assert sure[0] == scores.max()


def test_somebody_half_hidden_stays_as_a_doubtful_one() -> None:
    boxes = np.array([[0, 0, 40, 100], [11, 0, 51, 100], [1, 1, 41, 101]], np.float32)  # IoU with the first 0.57, 0.93
    merged, sure = nms.merge(boxes, np.array([0.9, 0.8, 0.7], np.float32), 0.1)
    assert len(merged) == 2
    assert sure[0] == np.float32(0.9)
    assert 0.2 < sure[1] < 0.5
    assert merged[0] == pytest.approx([0.42, 0.42, 40.42, 100.42], abs=0.02)  # the third agrees, and pulls a little


def test_the_limit_cuts_the_worst() -> None:
    boxes = np.array([[i * 10, 0, i * 10 + 5, 5] for i in range(6)], np.float32)
    scores = np.array([0.1, 0.9, 0.5, 0.8, 0.2, 0.3], np.float32)
    merged, _ = nms.merge(boxes, scores, 0.0, limit=3)
    assert merged.tolist() == boxes[[1, 3, 2]].tolist()


def test_decode_gives_corners_in_pixel_centres() -> None:
    raw = np.zeros((5, 3), np.float32)
    raw[:, 0] = (10, 20, 4, 8, 0.9)  # covers the pixels 8..11 by 16..23, edges 8..12 and 16..24
    raw[:, 1] = (10.2, 20, 4, 8, 0.6)  # the same person again
    raw[:, 2] = (50, 50, 6, 6, 0.2)  # below the threshold
    boxes, scores = decode_yolo(raw, 0.4)
    assert boxes[0] == pytest.approx([7.58, 15.5, 11.58, 23.5], abs=0.02)  # both said where, the surer one more
    assert scores == pytest.approx([0.9])
    assert boxes.dtype == scores.dtype == np.float32


def test_end_to_end_output_needs_no_suppression_but_knows_people_only() -> None:
    raw = np.array(
        [[0, 0, 4, 4, 0.5, 0], [1, 1, 5, 5, 0.9, 0], [0, 0, 9, 9, 0.95, 2], [0, 0, 9, 9, 0.1, 0]], np.float32
    )
    boxes, scores = decode_end2end(raw, 0.4)
    assert boxes.tolist() == [[0.5, 0.5, 4.5, 4.5], [-0.5, -0.5, 3.5, 3.5]]
    assert scores == pytest.approx([0.9, 0.5])


def test_nothing_found_has_the_shape_of_nothing() -> None:
    for boxes, scores in (
        decode_yolo(np.zeros((5, 40), np.float32), 0.4),
        decode_end2end(np.zeros((0, 6), np.float32), 0.4),
    ):
        assert boxes.shape == (0, 4)
        assert scores.shape == (0,)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("row", range(5))
def test_a_candidate_that_is_no_number_costs_nobody_else(bad: float, row: int) -> None:
    """Half precision may overflow in one place; the people are elsewhere."""
    raw = np.zeros((5, 8), np.float32)
    raw[:, 2], raw[:, 6] = [40, 50, 20, 40, 0.9], [400, 50, 20, 40, 0.6]
    expected = decode_yolo(raw, 0.4)
    raw[:, 4] = raw[:, 2]
    raw[row, 4] = bad
    found = decode_yolo(raw, 0.4)
    assert [each.tolist() for each in found] == [each.tolist() for each in expected]
    people = np.array([[1, 2, 3, 4, 0.9, 0], [5, 6, 7, 8, 0.8, 0]], np.float32)
    people[1, row] = bad
    assert decode_end2end(people, 0.4)[0].tolist() == [[0.5, 1.5, 2.5, 3.5]]


def test_of_several_classes_that_of_people_is_taken() -> None:
    raw = np.array(
        [[50, 200, 90], [60, 60, 90], [20, 20, 10], [40, 40, 10], [0.9, 0.02, 0.0], [0.1, 0.8, np.nan]], np.float32
    )
    for person, centre_x, score in ((0, 50, 0.9), (1, 200, 0.8)):
        boxes, scores = decode_yolo(raw, 0.5, person=person)
        assert scores == pytest.approx([score])
        assert boxes[0, [0, 2]].mean() == pytest.approx(centre_x - 0.5)
    rows = np.array([[0, 0, 9, 9, 0.9, 0], [10, 10, 19, 19, 0.8, 1]], np.float32)
    np.testing.assert_allclose(decode_end2end(rows, 0.5, person=1)[0], [[9.5, 9.5, 18.5, 18.5]])
