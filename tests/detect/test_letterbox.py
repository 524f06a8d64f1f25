"""Letterbox: shapes, padding, and the way there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.detect import letterbox

SIDES = st.integers(1, 3000)


@given(SIDES, SIDES, st.integers(64, 1280), st.lists(st.floats(-500, 3500, width=32), min_size=4, max_size=4))
def test_boxes_come_back(width: int, height: int, size: int, values: list[float]) -> None:
    plan = letterbox.plan(width, height, size)
    boxes = np.array([values], np.float32)
    back = plan.to_picture(plan.to_input(boxes))
    pixel = max(1.0, 1 / plan.scale_x, 1 / plan.scale_y)
    assert np.abs(back - boxes).max() < 2e-3 * pixel


@given(SIDES, SIDES, st.integers(64, 1280))
def test_the_input_is_the_smallest_multiple_of_32_and_keeps_the_aspect(width: int, height: int, size: int) -> None:
    plan = letterbox.plan(width, height, size)
    assert max(plan.resized) == size
    for resized, whole, source in zip(plan.resized, plan.size, (width, height), strict=True):
        assert whole % 32 == 0
        assert 0 <= whole - resized < 32
        assert abs(resized - source * size / max(width, height)) <= 0.5 or resized == 1


@given(SIDES, SIDES, st.integers(2, 40), st.integers(2, 40))
def test_a_network_of_one_size_gets_that_size(width: int, height: int, columns: int, rows: int) -> None:
    canvas = (32 * columns, 32 * rows)
    plan = letterbox.plan(width, height, max(canvas), canvas)
    assert plan.size == canvas
    assert plan.resized[0] == canvas[0] or plan.resized[1] == canvas[1]
    assert 0 <= plan.left <= canvas[0] - plan.resized[0]
    assert 0 <= plan.top <= canvas[1] - plan.resized[1]
    box = np.array([[0, 0, width - 1, height - 1]], np.float32)
    pixel = max(1.0, 1 / plan.scale_x, 1 / plan.scale_y)
    assert np.abs(plan.to_picture(plan.to_input(box)) - box).max() < 2e-3 * pixel


@pytest.mark.parametrize(
    ("picture", "size"), [((1920, 1080), (640, 384)), ((768, 576), (640, 480)), ((480, 640), (480, 640))]
)
def test_common_cameras(picture: tuple[int, int], size: tuple[int, int]) -> None:
    assert letterbox.plan(*picture, 640).size == size


@pytest.mark.parametrize(("width", "height", "size"), [(320, 180, 640), (1280, 720, 320), (333, 517, 640)])
def test_a_dot_lands_where_the_plan_says(width: int, height: int, size: int) -> None:
    plan = letterbox.plan(width, height, size)
    image = np.zeros((height, width, 3), np.uint8)
    x, y = width // 3, height // 4
    image[y - 3 : y + 4, x - 3 : x + 4] = 255
    shown = letterbox.apply(image, plan)[..., 0].astype(np.float64)
    shown[: plan.top] = shown[plan.top + plan.resized[1] :] = 0
    shown[:, : plan.left] = shown[:, plan.left + plan.resized[0] :] = 0
    centre = [(shown.sum(axis) * np.arange(shown.shape[1 - axis])).sum() / shown.sum() for axis in (0, 1)]
    expected = plan.to_input(np.array([[x, y, x, y]], np.float32))[0, :2]
    assert np.abs(centre - expected).max() < 0.1


def test_padding_is_grey_and_the_rest_is_the_picture() -> None:
    image = np.full((100, 200, 3), 7, np.uint8)
    plan = letterbox.plan(200, 100, 200)
    out = letterbox.apply(image, plan)
    assert out.shape == (128, 224, 3)
    assert (out[plan.top : plan.top + 100, plan.left : plan.left + 200] == 7).all()
    assert (out == letterbox.PAD_VALUE).sum() == out.size - image.size


def test_a_plan_for_another_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="the plan is for 200x100"):
        letterbox.apply(np.zeros((101, 200, 3), np.uint8), letterbox.plan(200, 100, 64))
    with pytest.raises(ValueError, match="positive"):
        letterbox.plan(0, 100, 64)
