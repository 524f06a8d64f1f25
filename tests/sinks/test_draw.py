"""Drawing: what is on the picture where, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import FIGURE, make_person

from streampose.sinks.draw import ID_COLOURS, SIDE_COLOURS, DrawOptions, DrawSkeleton, draw_people

BARE = DrawOptions(boxes=False, labels=False)


def grey(height: int = 360, width: int = 480) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def is_near(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 40) -> bool:
    return bool((np.abs(pixel.astype(int) - colour) <= tolerance).all())


def test_the_input_is_left_alone_also_when_it_is_read_only(skeleton: DrawSkeleton) -> None:
    image = grey()
    image.flags.writeable = False
    before = image.copy()
    out = draw_people(image, [make_person(box=(40, 40, 160, 320))], skeleton)
    assert (image == before).all()
    assert out.shape == image.shape
    assert out.flags.writeable
    assert (out != image).any()


def test_joints_are_where_the_key_points_are_and_coloured_by_side(skeleton: DrawSkeleton) -> None:
    person = make_person(box=(100, 20, 240, 340))
    out = draw_people(grey(), [person], skeleton, BARE)
    for joint, (x, y, _) in enumerate(person.keypoints):
        if joint >= 5:  # the head's five overlap
            assert is_near(out[round(float(y)), round(float(x))], SIDE_COLOURS[skeleton.sides[joint]])
    assert skeleton.sides[9] == "left"
    assert skeleton.sides[10] == "right"


def test_a_limb_across_the_body_is_neither_left_nor_right(skeleton: DrawSkeleton) -> None:
    person = make_person(box=(100, 20, 240, 340))
    out = draw_people(grey(), [person], skeleton, BARE)
    middle = (person.keypoints[5, :2] + person.keypoints[6, :2]) / 2  # between the shoulders
    assert is_near(out[round(float(middle[1])), round(float(middle[0]))], SIDE_COLOURS["centre"])


def test_a_low_score_joint_is_hollow_and_one_without_score_is_absent(skeleton: DrawSkeleton) -> None:
    scores = np.full(17, 0.9)
    scores[[9, 10]] = 0.15, 0.01
    person = make_person(box=(100, 20, 240, 340), scores=scores)
    lone = DrawSkeleton(skeleton.sides, ())
    out = draw_people(grey(), [person], lone, BARE)
    x, y = np.rint(person.keypoints[9, :2]).astype(int)
    around = out[y - 10 : y + 11, x - 10 : x + 11]
    assert is_near(out[y, x], (90, 90, 90), 5)
    assert (around != 90).any()
    x, y = np.rint(person.keypoints[10, :2]).astype(int)
    assert (out[y - 8 : y + 9, x - 8 : x + 9] == 90).all()


def test_a_joint_nobody_can_place_is_absent(skeleton: DrawSkeleton) -> None:
    person = make_person(box=(100, 20, 240, 340))
    person.std[9] = 200.0
    out = draw_people(grey(), [person], skeleton, BARE)
    x, y = np.rint(person.keypoints[9, :2]).astype(int)
    assert (out[y - 5 : y + 6, x - 5 : x + 6] == 90).all()


def test_the_joints_of_somebody_lying_down_are_shown_as_those_of_somebody_upright(skeleton: DrawSkeleton) -> None:
    """Equally well known: a third of the lying body's box height, a tenth of its length."""
    person = make_person(box=(100, 20, 420, 110))
    person.std[:] = 32.0
    out = draw_people(grey(), [person], skeleton, BARE)
    for x, y, _ in person.keypoints:
        assert (out[round(float(y)), round(float(x))] != 90).any()


def test_coasting_people_are_dashed(skeleton: DrawSkeleton) -> None:
    def drawn(state: str) -> np.ndarray:
        person = make_person(id=0, box=(100, 20, 240, 340), state=state)  # type: ignore[arg-type]
        out = draw_people(grey(), [person], skeleton, DrawOptions(labels=False, skeletons=False))
        return (out[20:341, 100] != 90).any(axis=1)  # down the left edge of the box

    assert drawn("confirmed").all()
    coasting = drawn("coasting")
    assert 0.3 < coasting.mean() < 0.7
    assert np.count_nonzero(np.diff(coasting.astype(int))) >= 10


def test_thickness_grows_with_the_person(skeleton: DrawSkeleton) -> None:
    def ink(height: float) -> int:
        person = make_person(box=(100, 10, 100 + 0.44 * height, 10 + height))
        edges = DrawSkeleton(skeleton.sides, ((13, 15),))  # one shin, 0.21 of the height long
        out = draw_people(grey(1080, 800), [person], edges, DrawOptions(boxes=False, labels=False, solid_score=0.3))
        shin = round(10 + height * (FIGURE[13, 1] + FIGURE[15, 1]) / 2)
        return int((out[shin] != 90).any(axis=1).sum())

    assert ink(60) < ink(300) < ink(900)


def test_labels_say_the_id_of_everyone_but_the_tentative(skeleton: DrawSkeleton) -> None:
    options = DrawOptions(boxes=False, skeletons=False)
    shown = draw_people(grey(), [make_person(id=3, box=(100, 60, 240, 340))], skeleton, options)
    assert (shown[50:59, 101:104] == ID_COLOURS[3]).any()
    hidden = draw_people(grey(), [make_person(id=3, box=(100, 60, 240, 340), state="tentative")], skeleton, options)
    assert (hidden == 90).all()


def test_a_black_background_holds_nothing_of_the_picture(skeleton: DrawSkeleton) -> None:
    noise = np.random.default_rng(5).integers(1, 255, (240, 320, 3)).astype(np.uint8)
    assert not draw_people(noise, [], skeleton, DrawOptions(background="black")).any()


def test_on_black_there_are_skeletons_alone(skeleton: DrawSkeleton) -> None:
    people = [make_person(7, (20, 20, 60, 110)), make_person(8, (80, 20, 120, 110), "coasting")]
    black = DrawOptions(background="black")
    drawn = draw_people(grey(), people, skeleton, black)
    assert drawn.any()
    assert np.array_equal(drawn, draw_people(grey(), people, skeleton, replace(black, boxes=False, labels=False)))
    assert not draw_people(grey(), people, skeleton, replace(black, skeletons=False)).any()


def test_a_blurred_background_keeps_the_light_and_loses_the_detail(skeleton: DrawSkeleton) -> None:
    image = np.kron(np.indices((60, 80)).sum(axis=0) % 2, np.ones((6, 6))).astype(np.uint8)[..., None] * 255
    image = np.repeat(image, 3, axis=2)
    out = draw_people(image, [], skeleton, DrawOptions(background="blur"))
    assert abs(out.mean() - image.mean()) < 4
    assert out.std() < image.std() / 10


@settings(max_examples=60, deadline=None)
@given(
    corner=st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4),
    state=st.sampled_from(["tentative", "confirmed", "coasting"]),
    bad=st.sampled_from([0.0, np.nan, np.inf, -np.inf]),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_any_person_can_be_drawn(corner: list[float], state: str, bad: float, size: tuple[int, int]) -> None:
    person = make_person(box=corner, state=state)  # type: ignore[arg-type]
    person.keypoints[4, 0] = person.std[3] = bad
    coco = DrawSkeleton(("centre",) * 17, tuple((a, a + 1) for a in range(16)))
    out = draw_people(np.zeros((*size, 3), np.uint8), [person], coco)
    assert out.shape == (*size, 3)


@pytest.mark.parametrize("background", ["image", "blur", "black"])
def test_no_people_no_ink(background: str, skeleton: DrawSkeleton) -> None:
    out = draw_people(grey(), [], skeleton, DrawOptions(background=background))  # type: ignore[arg-type]
    assert len(np.unique(out)) == 1
