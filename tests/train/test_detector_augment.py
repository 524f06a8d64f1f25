"""Samples: people stay where their boxes say, nothing is random but the generator, unknown places carry no weight."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampose.evaluate.dataset import LabelledImage
from streampose.train.detector_augment import AugmentOptions, make_sample, spoil
from streampose.train.detector_data import BoxPicture
from streampose.train.detector_loss import anchor_weights

PLAIN = AugmentOptions(long_side=320, mosaic=0, colour=0, camera=0, grey=0)


def picture(rng: np.random.Generator, ignored: bool = False, background: float = 1.0) -> BoxPicture:
    """Dark, with one white person."""
    image = np.full((180, 240, 3), 20, np.uint8)
    x, y, w, h = (
        int(rng.integers(0, 180)),
        int(rng.integers(0, 100)),
        int(rng.integers(20, 60)),
        int(rng.integers(40, 80)),
    )
    image[y : y + h, x : x + w] = 255
    box = np.array([[x, y, min(x + w, 240), min(y + h, 180)]], np.float32) - 0.5
    doubt = np.array([[100, 50, 140, 120]], np.float32) if ignored else np.zeros((0, 4), np.float32)
    encoded = cv2.imencode(".png", image)[1].tobytes()
    return BoxPicture(Path("set"), LabelledImage(1, "p.png", 240, 180, "test"), encoded, box, doubt, background)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from([1, 4]))
def test_the_boxes_still_hold_the_people(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    sample = make_sample([picture(rng) for _ in range(count)], 320, 256, PLAIN, rng)
    assert sample.image.shape == (256, 320, 3)
    white = (sample.image > 135).all(axis=2)
    held = np.zeros_like(white)
    for x1, y1, x2, y2 in np.rint(sample.boxes).astype(int):
        assert white[max(y1 + 1, 0) : y2, max(x1 + 1, 0) : x2].mean() > 0.9
    remains = sample.regions[sample.regions[:, 4] == 0, :4]  # of people who are mostly cut off
    for x1, y1, x2, y2 in np.rint(np.concatenate([sample.boxes, remains])).astype(int):
        held[max(y1 - 1, 0) : y2 + 2, max(x1 - 1, 0) : x2 + 2] = True
    ys, xs = np.nonzero(white & ~held)
    assert len(ys) == 0 or min(np.ptp(xs), np.ptp(ys)) <= 2  # slivers of a pixel or two go unmentioned


def test_a_sample_is_a_function_of_its_generator() -> None:
    pictures = [picture(np.random.default_rng(n)) for n in range(4)]
    options = AugmentOptions(long_side=320, camera=1, colour=1, grey=0.5)
    one, same, other = (make_sample(pictures, 320, 320, options, np.random.default_rng(n)) for n in (7, 7, 8))
    assert np.array_equal(one.image, same.image)
    assert np.array_equal(one.boxes, same.boxes)
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("count", [1, 4])
def test_a_teacher_is_shown_the_same_view_at_twice_the_size(count: int) -> None:
    pictures = [picture(np.random.default_rng(n)) for n in range(count)]
    options = AugmentOptions(long_side=320, camera=1, colour=1)
    for seed in range(5):
        alone, taught, unspoiled = (
            make_sample(pictures, 320, 256, each, np.random.default_rng(seed), detailed)
            for each, detailed in ((options, False), (options, True), (options.model_copy(update={"camera": 0}), True))
        )
        assert alone.detail is None
        assert np.array_equal(alone.image, taught.image)  # the random draws are the same
        assert np.array_equal(alone.boxes, taught.boxes)
        assert taught.detail is not None
        assert unspoiled.detail is not None
        assert np.array_equal(taught.detail, unspoiled.detail)
        half = cv2.resize(taught.detail, (320, 256), interpolation=cv2.INTER_AREA).astype(int)
        assert np.abs(half - unspoiled.image).mean() < 2


@pytest.mark.parametrize("seed", range(8))
def test_spoiling_keeps_size_and_brightness(seed: int) -> None:
    image = cv2.GaussianBlur(np.random.default_rng(seed).integers(60, 200, (96, 128, 3)).astype(np.uint8), (0, 0), 4)
    spoilt = spoil(image.astype(np.uint8), np.random.default_rng(seed))
    assert spoilt.shape == image.shape
    assert spoilt.dtype == np.uint8
    assert abs(float(spoilt.mean()) - float(image.mean())) < 6


def test_anchors_in_unknown_places_count_nothing() -> None:
    options = PLAIN.model_copy(update={"scale": (0.75, 0.75), "flip": 0.0})
    sample = make_sample([picture(np.random.default_rng(3), True, 0.25)], 256, 192, options, np.random.default_rng(1))
    weights = anchor_weights(sample, [8, 16, 32])
    assert weights.shape == (32 * 24 + 16 * 12 + 8 * 6,)
    fine = weights[: 32 * 24].reshape(24, 32)
    _, _, _, _, background = sample.regions[0]
    assert background == 0.25
    x1, y1, x2, y2, doubt = sample.regions[1]
    assert doubt == 0
    for row in range(24):
        for column in range(32):
            x, y = column * 8 + 3.5, row * 8 + 3.5
            if x1 <= x < x2 and y1 <= y < y2:
                assert fine[row, column] == 0
            elif sample.regions[0, 0] <= x < sample.regions[0, 2] and sample.regions[0, 1] <= y < sample.regions[0, 3]:
                assert fine[row, column] == 0.25
            else:
                assert fine[row, column] == 1
