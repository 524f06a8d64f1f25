"""Overlap, pose similarity, duplicates and assignment, against independent oracles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from streampose.pose.skeleton import load_skeleton
from streampose.track import association

SIGMAS = load_skeleton("coco17").sigmas.astype(np.float64)
COORDINATES = st.floats(-500, 1500, width=32)
BOXES = hnp.arrays(np.float64, st.tuples(st.integers(0, 6), st.just(4)), elements=COORDINATES)
SIMILARITIES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(0, 7), st.integers(0, 7)),
    elements=st.sampled_from([0, 0.2, 0.5, 0.51, 0.7, 0.9, 1]),
)


@given(SIMILARITIES)
def test_the_assignment_is_scipys(similarity: np.ndarray) -> None:
    pairs = association.assign(similarity, 0.3)
    gain = np.maximum(similarity - 0.3, 0)
    rows, columns = linear_sum_assignment(-gain)
    assert sum(gain[pair] for pair in pairs) == pytest.approx(gain[rows, columns].sum())
    assert all(similarity[pair] > 0.3 for pair in pairs)
    assert len({row for row, _ in pairs}) == len(pairs) == len({column for _, column in pairs})


@given(BOXES, BOXES)
def test_overlap_is_symmetric_and_between_0_and_1(a: np.ndarray, b: np.ndarray) -> None:
    found = association.iou(a, b)
    assert found.shape == (len(a), len(b))
    assert ((found >= 0) & (found <= 1 + 1e-9)).all()
    np.testing.assert_allclose(found, association.iou(b, a).T)


def test_overlap_of_known_boxes() -> None:
    a = np.array([[0.0, 0, 10, 10]])
    b = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 9], [8, 8, 2, 2]])
    np.testing.assert_allclose(association.iou(a, b), [[1, 50 / 150, 0, 0, 0]])


def test_oks_is_cocos() -> None:
    """Against the formula of the COCO key point evaluation, point by point."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(100, 20, (2, 17, 2))
    b = a + rng.normal(0, 4, a.shape)
    area = 90.0 * 40
    expected = np.mean(
        [np.exp(-((a[k] - b[k]) ** 2).sum() / (2 * area * (2 * SIGMAS[k]) ** 2)) for k in range(len(SIGMAS))]
    )
    found = association.oks(a, b, np.ones(17), np.array(area), SIGMAS)
    assert float(found) == pytest.approx(float(expected))
    assert float(association.oks(a, a, np.ones(17), np.array(area), SIGMAS)) == pytest.approx(1.0)
    assert float(association.oks(a, b, np.zeros(17), np.array(area), SIGMAS)) == 0.0


def test_an_uncertain_pose_is_like_nothing_very_much() -> None:
    points = np.random.default_rng(1).normal(100, 20, (17, 2))
    sure = association.oks(points, points, np.ones(17), np.array(3600.0), SIGMAS, 0.0)
    doubtful = association.oks(points, points, np.ones(17), np.array(3600.0), SIGMAS, np.full(17, 1e4))
    assert float(doubtful) < 0.2 < float(sure)


def test_whoever_is_like_one_that_went_stays() -> None:
    same = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], bool)
    assert association.firsts(same) == [0, 2, 3]
    assert association.firsts(np.zeros((0, 0), bool)) == []


def test_suppression_goes_by_the_order_given() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]])
    assert association.suppress(boxes, np.arange(3), 0.3).tolist() == [True, False, True]
    assert association.suppress(boxes, np.array([1, 0, 2]), 0.3).tolist() == [False, True, False]


@given(BOXES)
def test_suppression_is_idempotent_and_spares_the_best(boxes: np.ndarray) -> None:
    order = np.arange(len(boxes))
    kept = association.suppress(boxes, order, 0.5)
    assert association.suppress(boxes[kept], np.arange(kept.sum()), 0.5).all()
    if len(boxes):
        assert kept[0]
