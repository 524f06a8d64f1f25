"""The colours of clothes, on pictures painted for the purpose."""

from __future__ import annotations

import numpy as np

from streampose.track import appearance

CORNERS = np.array([5, 6, 11, 12, 13, 14])


def standing(x: float, score: float = 0.9) -> np.ndarray:
    pose = np.zeros((17, 3))
    for joint, (dx, y) in zip(CORNERS, [(-10, 20), (10, 20), (-8, 60), (8, 60), (-8, 90), (8, 90)], strict=True):
        pose[joint] = x + dx, y, score
    return pose


def picture(*people: tuple[int, tuple[int, int, int], tuple[int, int, int]]) -> np.ndarray:
    image = np.full((120, 300, 3), 128, np.uint8)
    for x, torso, legs in people:
        image[10:61, x - 20 : x + 20] = torso
        image[61:110, x - 20 : x + 20] = legs
    return image


def test_clothes_of_two_people_are_told_apart() -> None:
    red, blue, black = (20, 20, 200), (200, 60, 20), (5, 5, 5)
    image = picture((50, red, black), (150, black, blue))
    first = appearance.clothes(image, np.array([standing(50), standing(150)]), CORNERS)
    image = picture((80, red, black), (200, black, blue))
    second = appearance.clothes(image, np.array([standing(200), standing(80)]), CORNERS)
    alike = appearance.wardrobe_likeness(first, second)
    assert alike[0, 1] > 0.9
    assert alike[1, 0] > 0.9
    assert alike[0, 0] < 0.1
    assert alike[1, 1] < 0.1


def test_what_is_not_seen_is_not_known() -> None:
    image = picture((50, (0, 0, 255), (0, 0, 0)))
    poses = np.array([standing(50, score=0.1), standing(-400), np.full((17, 3), np.nan)])
    colours = appearance.clothes(image, poses, CORNERS)
    assert np.isnan(colours).all()
    assert np.isnan(appearance.wardrobe_likeness(colours, colours)).all()


def test_memory_takes_what_is_new_and_keeps_what_is_not_seen() -> None:
    worn = np.array([[0.5, 0, 0], [np.nan] * 3])
    seen = np.array([[np.nan] * 3, [0.2, 0.1, 0]])
    kept = appearance.remember(worn, seen, 0.1)
    np.testing.assert_allclose(kept, [[0.5, 0, 0], [0.2, 0.1, 0]])
