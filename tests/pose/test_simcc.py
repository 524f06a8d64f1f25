"""SimCC vectors against a decoding by hand."""

from __future__ import annotations

import numpy as np

from streampose.models.manifest import OutputSpec
from streampose.pose.simcc import decode_simcc, merge_flipped_simcc

SPEC = OutputSpec(kind="simcc", simcc_split=2.0)


def test_the_place_of_the_maximum_and_the_lower_of_both() -> None:
    x, y = np.full((1, 2, 384), -1.0, np.float32), np.full((1, 2, 512), -1.0, np.float32)
    x[0, 0, 100], y[0, 0, 301] = 0.9, 0.6
    x[0, 1, 383], y[0, 1, 0] = 1.4, 1.2
    points = decode_simcc(x, y, SPEC)
    np.testing.assert_allclose(points, [[[50.0, 150.5, 0.6], [191.5, 0.0, 1.0]]], rtol=1e-6)


def test_nothing_found_has_score_zero() -> None:
    points = decode_simcc(np.full((1, 1, 384), -0.5, np.float32), np.full((1, 1, 512), -0.5, np.float32), SPEC)
    assert points[0, 0, 2] == 0.0


def test_mirrored_vectors_come_back_to_the_same_pixel() -> None:
    """A point at pixel x of an 8 pixel wide crop is at pixel 7 - x of the mirrored one, and its pair at its own."""
    order = np.array([0, 2, 1])
    bins = np.arange(16) / 2
    places = np.array([3.0, 1.0, 5.0])
    x = np.exp(-((bins - places[:, None]) ** 2))[None].astype(np.float32)
    mirrored = np.exp(-((bins - (7 - places[order])[:, None]) ** 2))[None].astype(np.float32)
    merged = merge_flipped_simcc(x, mirrored, order, SPEC)
    np.testing.assert_array_equal(merged.argmax(2) / 2, places[None])
    np.testing.assert_allclose(merged[..., :-1], x[..., :-1], atol=1e-6)
