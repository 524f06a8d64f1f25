"""What people wear: the colours of torso and legs, taken where the key points say that they are.

A handful of pixels a person tells a black coat from a red one, which boxes and motion cannot when two people meet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
COLOUR_STD = np.array([0.12, 0.06, 0.06])  # of one person's clothes from frame to frame, in a CCTV clip
FARTHEST = 16.0
PARTS = 2  # torso and legs
SURE_SCORE = 0.3
COLOURS = np.array(
    [[1 / 3, 1 / 3, 1 / 3], [0.0, -1.0, 1.0], [-1.0, 0.5, 0.5]]
)  # from b, g, r: light, red-green, yellow-blue
_ACROSS, _DOWN = (grid.ravel()[:, None] for grid in np.meshgrid(np.linspace(0.2, 0.8, 3), np.linspace(0.1, 0.8, 4)))
_ALONG = np.linspace(0.15, 0.85, 6)[:, None]
PIXELS = 12  # of each part


def clothes(image: npt.NDArray[np.uint8], poses: npt.NDArray[Any], corners: npt.NDArray[np.intp]) -> Floats:
    """Colours (N, 2, 3) of torso and legs of N people, in 0..1 (light) and -1..1 (two opponent colours).

    `image` (H, W, 3) is BGR, `poses` (N, K, 3); `corners` (6,) are the joints left and right shoulder, hip, knee. The
    median over a dozen pixels a part; NaN for a part whose joints are unsure or that lies outside the picture.
    """
    count = len(poses)
    joints = np.asarray(poses, np.float64)[:, corners].reshape(count, 3, 2, 1, 3)  # shoulders, hips, knees; left, right
    points = np.where(np.isfinite(joints), joints, 0.0)[..., :2]
    left, right = points[:, :2, 0], points[:, :2, 1]
    across = left + _ACROSS * (right - left)
    grid = np.empty((count, PARTS, PIXELS, 2))
    grid[:, 0] = across[:, 0] + _DOWN * (across[:, 1] - across[:, 0])
    grid[:, 1] = (points[:, 1] + _ALONG * (points[:, 2] - points[:, 1])).reshape(count, PIXELS, 2)
    np.rint(grid, out=grid)
    at = np.minimum(np.maximum(grid, 0), (image.shape[1] - 1, image.shape[0] - 1))
    inside = (at == grid).reshape(count, PARTS, 2 * PIXELS).all(axis=2)
    x, y = at.astype(np.intp).transpose(3, 0, 1, 2)
    pixels = np.sort(image[y, x], axis=2)
    colours = pixels[:, :, PIXELS // 2] / 255.0 @ COLOURS.T
    sure = joints[..., 0, 2] >= SURE_SCORE  # and no number is not
    told = (sure[:, :2] & sure[:, 1:]).all(axis=2) & inside
    return np.where(told[..., None], colours, np.nan)


def wardrobe_likeness(worn: Floats, seen: Floats) -> Floats:
    """How alike the colours of N people (N, 2, 3) and M sightings (M, 2, 3) are: (N, M) in 0..1, NaN where unknown."""
    if not len(worn) or not len(seen):
        return np.zeros((len(worn), len(seen)))
    z2 = ((worn[:, None] - seen[None]) / COLOUR_STD) ** 2
    parts = np.minimum(z2.sum(axis=3), FARTHEST)
    known = np.isfinite(parts)
    total = np.where(known, parts, 0.0).sum(axis=2)
    count = known.sum(axis=2)
    return np.asarray(np.where(count > 0, np.exp(-0.5 * total / np.maximum(count, 1)), np.nan))


def remember(worn: Floats, seen: Floats, share: float) -> Floats:
    """`worn` (2, 3) with `share` of what was just `seen` (2, 3) mixed in, part by part where both are known."""
    mixed = (1 - share) * worn + share * seen
    return np.where(np.isfinite(mixed), mixed, np.where(np.isfinite(worn), worn, seen))
