"""Skeletons as data, good and bad."""

import re
from pathlib import Path

import numpy as np
import pytest

from streampose.errors import ModelError
from streampose.pose.skeleton import list_skeletons, load_skeleton


@pytest.mark.parametrize("name", list_skeletons())
def test_what_ships_is_consistent(name: str) -> None:
    skeleton = load_skeleton(name)
    order = skeleton.flip_order
    assert (order[order] == np.arange(len(skeleton.keypoints))).all()
    assert len(skeleton.sigmas) == len(skeleton.sides) == len(skeleton.keypoints)
    for left, right in skeleton.flip_pairs:
        assert (skeleton.sides[left], skeleton.sides[right]) == ("left", "right")
    swapped = {tuple(sorted(order[list(edge)].tolist())) for edge in skeleton.edges}
    assert swapped == {tuple(sorted(edge)) for edge in skeleton.edges}
    assert {joint for joint, side in enumerate(skeleton.sides) if side == "left"} == {a for a, _ in skeleton.flip_pairs}


def test_coco_has_the_published_sigmas() -> None:
    published = [26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]
    assert np.allclose(load_skeleton("coco17").sigmas * 1000, published)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keypoints: {}", "needs `keypoints`"),
        ("keypoints: {a: [centre, 0.1]}\nedges: [[a, b]]", "no key point 'b'"),
        ("keypoints: {a: [up, 0.1]}", "left|right|centre"),
        ("keypoints: {a: [left, 0.1]}\nflip_pairs: [[a, a, a]]", "flip_pairs: a pair"),
        ("keypoints: {a: [centre, 0.1]}\nedges: {a: a}", "edges: a list is wanted"),
        ("keypoints: {a: [centre, 0.1]}\nedges: [[a, [a]]]", "no key point ['a']"),
        ("keypoints: {a: [centre, 0.1]}\nupper_body: 5", "upper_body: a list is wanted"),
        ("keypoints: {a: [left, 7]}", "sigma 7"),
        ("keypoints: {a: [left, 0.1]}", "keypoints.a: is left and in 0 of flip_pairs"),
        (
            "keypoints: {a: [left, 0.1], b: [right, 0.1], c: [right, 0.1]}\nflip_pairs: [[a, b], [a, c]]",
            "keypoints.a: is left and in 2 of flip_pairs",
        ),
        (
            "keypoints: {a: [centre, 0.1], b: [right, 0.1]}\nflip_pairs: [[a, b]]",
            "keypoints.a: is centre and in 1 of flip_pairs",
        ),
        ("a: [", "not a skeleton"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        load_skeleton(str(path))
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ModelError, match="coco17"):
        load_skeleton("coco71")


def test_joints_that_nobody_names_are_asked_for() -> None:
    with pytest.raises(ModelError, match=r"a checkpoint of 16 joints does not say which they are: write a manifest"):
        load_skeleton("16 joints")
