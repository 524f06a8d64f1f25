"""Paints the people of the test pattern and the place they are in: shaded limbs, heads with hair, a grainy background."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from streampose.messages import Image
from streampose.sources import figures
from streampose.sources.figures import Figure, Points

Colour = tuple[int, int, int]

SHIFT = 4  # OpenCV draws with 4 fractional bits: joints move by less than a pixel a frame
SKIN = ((170, 200, 235), (120, 160, 205), (80, 110, 160), (60, 80, 120))  # BGR
SHIRT = ((60, 60, 180), (170, 90, 40), (70, 140, 60), (40, 150, 200), (150, 60, 130), (190, 190, 190))
TROUSERS = ((70, 50, 40), (50, 60, 70), (120, 80, 60), (40, 40, 45))
_ARC = np.linspace(-np.pi / 2, np.pi / 2, 7)
_HALF = np.stack([np.cos(_ARC), np.sin(_ARC)], axis=1)  # half a circle about "along"
_STRIP = np.array([[0.7], [0.7], [0.15], [0.15]])
HAIR = ((30, 35, 45), (40, 70, 110), (20, 20, 20), (90, 120, 150))


def scenery(width: int, height: int, seed: int) -> Image:
    """A wall with windows above a paved ground, both grainy: (H, W, 3) BGR uint8."""
    rng = np.random.default_rng(seed + 1000)
    horizon = int(0.45 * height)
    image = np.empty((height, width, 3), np.float32)
    image[:horizon] = np.linspace((150, 140, 130), (120, 125, 135), horizon)[:, None]
    image[horizon:] = np.linspace((105, 110, 112), (135, 140, 142), height - horizon)[:, None]
    for left in range(int(0.04 * width), width, max(1, int(0.11 * width))):
        corner = (left + int(0.06 * width), int(0.3 * height))
        cv2.rectangle(image, (left, int(0.12 * height)), corner, (95, 80, 70), -1)
        cv2.rectangle(image, (left, int(0.12 * height)), corner, (170, 165, 160), max(1, height // 240))
    vanish = (width // 2, int(0.3 * height))
    for foot in range(-width, 2 * width, max(1, width // 8)):
        cv2.line(image, vanish, (foot, height), (95, 100, 102), 1, cv2.LINE_AA)
    image[:horizon] = np.maximum(image[:horizon], 0)
    cv2.rectangle(image, (0, horizon - height // 60), (width, horizon), (90, 92, 95), -1)
    for cells in (8, 40, 200):  # value noise of three grains
        coarse = rng.normal(0, 5, (cells * height // width + 2, cells + 2)).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)[:, :, None]
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_figure(image: Image, figure: Figure, joints: Points) -> None:
    """Paint the person whose joints (17, 3) are given into `image`: far limbs first, lit from the upper left."""
    f, unit = figures, figure.height_px
    skin, shirt = SKIN[figure.id % len(SKIN)], SHIRT[figure.id % len(SHIRT)]
    trousers, hair = TROUSERS[figure.id % len(TROUSERS)], HAIR[figure.id % len(HAIR)]
    _shadow(image, joints, unit)
    left = ((f.L_SHOULDER, f.L_ELBOW, f.L_WRIST), (f.L_HIP, f.L_KNEE, f.L_ANKLE))
    right = ((f.R_SHOULDER, f.R_ELBOW, f.R_WRIST), (f.R_HIP, f.R_KNEE, f.R_ANKLE))
    far, near = (left, right) if joints[f.L_SHOULDER, 2] < joints[f.R_SHOULDER, 2] else (right, left)
    _arm(image, joints, far[0], unit, shirt, skin, 0.75)
    _leg(image, joints, far[1], unit, trousers, 0.75)
    _leg(image, joints, near[1], unit, trousers, 1.0)
    _torso(image, joints, unit, shirt)
    _head(image, joints, unit, skin, hair)
    _arm(image, joints, near[0], unit, shirt, skin, 1.0)


def _arm(
    image: Image, joints: Points, chain: tuple[int, int, int], unit: float, shirt: Colour, skin: Colour, light: float
) -> None:
    shoulder, elbow, wrist = (joints[place, :2] for place in chain)
    _limb(image, elbow, wrist, 0.022 * unit, 0.016 * unit, skin, light)
    _disc(image, wrist + 0.1 * (wrist - elbow), 0.02 * unit, _lit(skin, light))
    _limb(image, shoulder, elbow, 0.033 * unit, 0.025 * unit, shirt, light)


def _leg(
    image: Image, joints: Points, chain: tuple[int, int, int], unit: float, trousers: Colour, light: float
) -> None:
    hip, knee, ankle = (joints[place, :2] for place in chain)
    ahead = np.array(
        [np.sign(joints[figures.NOSE, 0] - joints[[figures.L_EAR, figures.R_EAR], 0].mean()) * 0.05, 0.025]
    )
    _limb(image, ankle + _xy(0, 0.012 * unit), ankle + ahead * unit, 0.022 * unit, 0.016 * unit, (35, 35, 40), light)
    _limb(image, knee, ankle, 0.034 * unit, 0.022 * unit, trousers, light)
    _limb(image, hip, knee, 0.05 * unit, 0.036 * unit, trousers, light)


def _torso(image: Image, joints: Points, unit: float, shirt: Colour) -> None:
    f = figures
    shoulders, hips = joints[[f.L_SHOULDER, f.R_SHOULDER], :2], joints[[f.L_HIP, f.R_HIP], :2]
    middle, bottom = shoulders.mean(axis=0), hips.mean(axis=0)
    half_top = max(abs(shoulders[0, 0] - shoulders[1, 0]) / 2, 0.055 * unit)
    half_bottom = max(abs(hips[0, 0] - hips[1, 0]) / 2, 0.05 * unit)
    outline = [
        middle + _xy(-half_top, -0.01 * unit),
        middle + _xy(-0.03 * unit, -0.035 * unit),
        middle + _xy(0.03 * unit, -0.035 * unit),
        middle + _xy(half_top, -0.01 * unit),
        bottom + _xy(half_bottom + 0.012 * unit, 0.02 * unit),
        bottom + _xy(-half_bottom - 0.012 * unit, 0.02 * unit),
    ]
    cv2.fillPoly(image, [_fixed(np.array(outline))], _lit(shirt, 0.95), cv2.LINE_AA, SHIFT)
    for side, light in ((-0.45, 1.15), (0.55, 0.8)):
        offset = _xy(side * half_top, 0.02 * unit)
        _limb(
            image, middle + offset, bottom + offset * _xy(0.8, -1), 0.03 * unit, 0.025 * unit, shirt, light, shade=False
        )


def _head(image: Image, joints: Points, unit: float, skin: Colour, hair: Colour) -> None:
    f = figures
    centre = joints[[f.L_EAR, f.R_EAR], :2].mean(axis=0)
    nose = joints[f.NOSE, :2]
    neck = joints[[f.L_SHOULDER, f.R_SHOULDER], :2].mean(axis=0)
    _limb(image, neck, centre, 0.028 * unit, 0.03 * unit, skin, 0.8, shade=False)
    _ellipse(image, centre + _xy(0, -0.008 * unit), (0.052 * unit, 0.068 * unit), _lit(skin, 1.0))
    back = _xy(-0.35 * (nose[0] - centre[0]), -0.035 * unit)
    _ellipse(image, centre + back, (0.053 * unit, 0.042 * unit), _lit(hair, 1.0))
    for eye, ear in ((f.L_EYE, f.L_EAR), (f.R_EYE, f.R_EAR)):
        if joints[eye, 2] > joints[ear, 2] - 0.02 * unit and joints[eye, 2] > 0:
            _disc(image, joints[eye, :2], 0.007 * unit, (40, 35, 35))
    _disc(image, nose, 0.009 * unit, _lit(skin, 0.8))
    _disc(image, nose + _xy(0.0, 0.022 * unit), 0.006 * unit, (70, 70, 150))


def _shadow(image: Image, joints: Points, unit: float) -> None:
    feet = joints[[figures.L_ANKLE, figures.R_ANKLE], :2].mean(axis=0)
    _ellipse(image, feet + _xy(0.04 * unit, 0.035 * unit), (0.17 * unit, 0.03 * unit), (80, 82, 84))


def _limb(
    image: Image, start: Points, end: Points, r1: float, r2: float, colour: Colour, light: float, shade: bool = True
) -> None:
    """A tapered, rounded limb from `start` to `end` (2,) with radii `r1` and `r2` pixels, brighter on its left."""
    x, y = end[0] - start[0], end[1] - start[1]
    length = float(np.hypot(x, y)) or 1.0
    turn = np.array([[x, y], [-y, x]]) / length  # rows: along, across
    body = np.concatenate([start - r1 * (_HALF @ turn), end + r2 * (_HALF @ turn)])
    cv2.fillConvexPoly(image, _fixed(body), _lit(colour, light), cv2.LINE_AA, SHIFT)
    if shade:
        lit = turn[1] if turn[1, 0] < 0 else -turn[1]
        strip = np.stack([start, end, end, start]) + lit * (_STRIP * np.array([[r1], [r2], [r2], [r1]]))
        cv2.fillConvexPoly(image, _fixed(strip), _lit(colour, light * 1.18), cv2.LINE_8, SHIFT)


def _disc(image: Image, centre: Points, radius: float, colour: Colour) -> None:
    x, y = _fixed(centre)
    cv2.circle(image, (int(x), int(y)), max(1, round(radius * 2**SHIFT)), colour, -1, cv2.LINE_AA, SHIFT)


def _ellipse(image: Image, centre: Points, axes: tuple[float, float], colour: Colour) -> None:
    x, y = _fixed(centre)
    size = (max(1, round(axes[0] * 2**SHIFT)), max(1, round(axes[1] * 2**SHIFT)))
    cv2.ellipse(image, (int(x), int(y)), size, 0, 0, 360, colour, -1, cv2.LINE_AA, SHIFT)


def _fixed(points: Points) -> npt.NDArray[np.int32]:
    """Pixels as OpenCV's fixed point numbers."""
    return np.asarray(np.rint(points * 2**SHIFT), np.int32)


def _xy(x: float, y: float) -> Points:
    return np.array([x, y], np.float64)


@lru_cache(maxsize=1024)
def _lit(colour: Colour, light: float) -> Colour:
    blue, green, red = (min(255, int(part * light)) for part in colour)
    return blue, green, red
