"""The boxes of people in arrays: what is worked out of them follows every change."""

from __future__ import annotations

import numpy as np
import pytest

from streampose.track.options import TrackOptions
from streampose.track.track import Bodies, Track

BOXES = np.array([[100.0, 100, 160, 300], [400, 120, 440, 240], [600, 50, 800, 110]])
SIZES = [200.0, 120.0, 200.0]


@pytest.fixture
def bodies() -> Bodies:
    made = Bodies(3)
    for box in BOXES:
        made.add(box)
    return made


def fresh(bodies: Bodies) -> np.ndarray:
    """The boxes as the state has them."""
    centres = bodies.mean[:, 0]
    return np.concatenate((centres - bodies.sides / 2, centres + bodies.sides / 2), axis=1)


def test_new_people_stand_where_they_were_seen(bodies: Bodies) -> None:
    np.testing.assert_allclose(bodies.boxes, BOXES)
    assert bodies.sizes.tolist() == SIZES  # the longer side, of somebody lying too
    assert np.isnan(bodies.colours).all()


def test_boxes_and_sizes_follow_every_change(bodies: Bodies) -> None:
    def check(count: int) -> None:
        np.testing.assert_array_equal(bodies.boxes, fresh(bodies))
        np.testing.assert_array_equal(bodies.sizes, np.maximum(bodies.sides.max(axis=1), 1.0))
        assert len(bodies.boxes) == len(bodies.sizes) == count

    check(3)
    bodies.see_boxes(np.array([2, 0]), BOXES[[2, 0]] + [5, 0, 15, 30], np.array([0.9, 0.5]))
    check(3)
    bodies.predict(0.1, [False, True, False])
    check(3)
    bodies.anchor(np.array([1]), np.array([[[400.0, 130], [420, 180], [430, 230]]]))
    bodies.see_joints(np.array([1]), np.array([[[407.0, 127], [427, 177], [437, 227]]]), np.ones((1, 3)))
    check(3)
    bodies.add(np.array([0.0, 0, 30, 80]))
    check(4)
    bodies.keep(np.array([True, False, False, True]))
    check(2)


def test_a_sighting_moves_only_the_people_seen(bodies: Bodies) -> None:
    before = bodies.boxes
    bodies.see_boxes(np.array([1]), BOXES[[1]] + 20, np.array([0.9]))
    assert (bodies.boxes[1] > before[1]).all()
    assert (bodies.boxes[1] < before[1] + 20).all()
    np.testing.assert_array_equal(bodies.boxes[[0, 2]], before[[0, 2]])
    np.testing.assert_allclose(bodies.seen_at, (bodies.boxes[:, :2] + bodies.boxes[:, 2:]) / 2)


def test_a_body_goes_with_most_of_its_joints(bodies: Bodies) -> None:
    """From where a detection was; one joint that flies off, and one that was not known then, move nobody."""
    joints = np.array([[400.0, 130], [420, 180], [np.nan, np.nan]])
    bodies.anchor(np.array([1]), joints[None])
    seen = np.array([[480.0, 140], [430, 180], [900, 900]])
    for _ in range(30):
        bodies.see_joints(np.array([1]), seen[None], np.array([[0.3, 0.9, 0.9]]))
    np.testing.assert_allclose(bodies.mean[1, 0], (BOXES[1, :2] + BOXES[1, 2:]) / 2 + [10, 0], atol=1.0)
    np.testing.assert_allclose(bodies.boxes[[0, 2]], BOXES[[0, 2]])
    bodies.see_joints(np.array([0]), seen[None], np.ones((1, 3)))
    np.testing.assert_allclose(bodies.boxes[0], BOXES[0], err_msg="nobody knows yet where its joints belong")


def test_people_not_seen_slow_down(bodies: Bodies) -> None:
    bodies.mean[:, 1] = 100.0, 0.0
    bodies.predict(0.5, [False, True, False])
    np.testing.assert_allclose(bodies.boxes[[0, 2], 0], BOXES[[0, 2], 0] + 50)
    assert BOXES[1, 0] + 30 < bodies.boxes[1, 0] < BOXES[1, 0] + 45
    np.testing.assert_array_less(bodies.drift[1], [100.0, 1e-9])


def test_a_pose_alone_is_a_sighting_only_where_detection_was_not_due() -> None:
    one = Track(1, 0.9, 0.0, 0.0, 0.0, 0.0)
    one.carry(0.2, detected=True)
    assert (one.hits, one.evidence_s, one.seen_s) == (1, 0.2, 0.0)
    one.carry(0.4, detected=False)
    assert (one.hits, one.evidence_s) == (2, 0.4)
    assert not one.may_confirm(TrackOptions())
    one.see(0.7, 0.6)
    assert one.may_confirm(TrackOptions())
    assert (one.score, one.seen_s) == (0.7, 0.6)
