"""The whole-body skeleton that published 133-point networks need."""

from __future__ import annotations

import numpy as np

from streampose.pose.skeleton import load_skeleton


def test_the_parts_are_where_the_data_set_has_them() -> None:
    skeleton, body = load_skeleton("wholebody133"), load_skeleton("coco17")
    assert len(skeleton.keypoints) == 133
    assert skeleton.keypoints[:17] == body.keypoints
    np.testing.assert_array_equal(skeleton.sigmas[:17], body.sigmas)
    assert skeleton.keypoints[17] == "left_big_toe"
    assert skeleton.keypoints[23] == "face_0"
    assert (skeleton.keypoints[91], skeleton.keypoints[112]) == ("left_hand_root", "right_hand_root")


def test_mirroring_swaps_sides_and_nothing_else() -> None:
    skeleton = load_skeleton("wholebody133")
    order = skeleton.flip_order
    np.testing.assert_array_equal(order[order], np.arange(133))
    opposite = {"left": "right", "right": "left", "centre": "centre"}
    assert [skeleton.sides[i] for i in order] == [opposite[side] for side in skeleton.sides]
    np.testing.assert_array_equal(order[[23, 39, 54, 55]], [39, 23, 58, 57])  # jaw ends, nostrils


def test_paired_points_are_judged_alike_on_body_and_hands() -> None:
    skeleton = load_skeleton("wholebody133")
    same = skeleton.sigmas[skeleton.flip_order] == skeleton.sigmas
    assert same[:17].all()
    assert same[91:].all()
