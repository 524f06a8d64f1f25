"""Decoding and non-maximum suppression, against a slow oracle that shares no code."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampose.detect import nms


def slow_iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / total if total > 0 else 0.0


def slow_suppress(boxes: list[list[float]], scores: list[float], iou: float) -> list[int]:
    left = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    kept: list[int] = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if slow_iou(boxes[best], boxes[i]) <= iou]
    return kept


def random_boxes(rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
    corner, side = rng.uniform(0, 60, (count, 2)), rng.uniform(4, 50, (count, 2))
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 60), st.sampled_from([0.3, 0.5, 0.65]))
def test_suppression_agrees_with_the_oracle(seed: int, count: int, iou: float) -> None:
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, count)
    scores = rng.integers(0, 20, count).astype(np.float32) / 20  # many ties
    assert nms.suppress(boxes, scores, iou).tolist() == slow_suppress(boxes.tolist(), scores.tolist(), iou)


@given(st.integers(0, 10_000))
def test_what_stays_is_a_fixed_point_and_best_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, 40), rng.random(40).astype(np.float32)
    kept = nms.suppress(boxes, scores)
    assert (np.diff(scores[kept]) <= 0).all()
    assert nms.suppress(boxes[kept], scores[kept]).tolist() == list(range(len(kept)))


def test_the_limit_cuts_the_worst() -> None:
    boxes = np.array([[i * 10, 0, i * 10 + 5, 5] for i in range(6)], np.float32)
    scores = np.array([0.1, 0.9, 0.5, 0.8, 0.2, 0.3], np.float32)
    assert nms.suppress(boxes, scores, limit=3).tolist() == [1, 3, 2]


def test_decode_gives_corners_in_pixel_centres() -> None:
    raw = np.zeros((5, 3), np.float32)
    raw[:, 0] = (10, 20, 4, 8, 0.9)  # covers the pixels 8..11 by 16..23, edges 8..12 and 16..24
    raw[:, 1] = (10.2, 20, 4, 8, 0.6)  # the same person again
    raw[:, 2] = (50, 50, 6, 6, 0.2)  # below the threshold
    boxes, scores = nms.decode_yolo(raw, 0.4)
    assert boxes.tolist() == [[7.5, 15.5, 11.5, 23.5]]
    assert scores == pytest.approx([0.9])
    assert boxes.dtype == scores.dtype == np.float32


def test_end_to_end_output_needs_no_suppression_but_knows_people_only() -> None:
    raw = np.array(
        [[0, 0, 4, 4, 0.5, 0], [1, 1, 5, 5, 0.9, 0], [0, 0, 9, 9, 0.95, 2], [0, 0, 9, 9, 0.1, 0]], np.float32
    )
    boxes, scores = nms.decode_end2end(raw, 0.4)
    assert boxes.tolist() == [[0.5, 0.5, 4.5, 4.5], [-0.5, -0.5, 3.5, 3.5]]
    assert scores == pytest.approx([0.9, 0.5])


def test_nothing_found_has_the_shape_of_nothing() -> None:
    for boxes, scores in (
        nms.decode_yolo(np.zeros((5, 40), np.float32), 0.4),
        nms.decode_end2end(np.zeros((0, 6), np.float32), 0.4),
    ):
        assert boxes.shape == (0, 4)
        assert scores.shape == (0,)
