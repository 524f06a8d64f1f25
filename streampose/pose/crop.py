"""From boxes to network crops and back: one affine map a person, and its exact inverse.

The crop keeps the aspect of the network's input: the box is widened to it, never stretched, then scaled about its
centre (Xiao et al., "Simple Baselines", ECCV 2018, with 1.25). Image and crop coordinates both have the centre of the
top-left pixel at (0, 0); the centre of the box goes to (width / 2, height / 2) of the crop, as published with HRNet.
Then the edges of the window go to the nearest whole pixels of the image, which moves them by half a pixel at most: such
a window is resized in a quarter of the time that a free affine map takes, and a person who stands still gives the very
same crop although the box trembles. The maps are those of the window as cut, so no key point moves with it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Affines = npt.NDArray[np.float64]
FARTHEST_PX = 1e8  # beyond which whole pixels are no matter


def crop_affines(boxes: npt.NDArray[Any], width: int, height: int, box_scale: float = 1.25) -> Affines:
    """Maps from image to crop pixels, (N, 2, 3), for `boxes` (N, 4) xyxy in image pixels.

    Boxes may leave the image; a side under one pixel counts as one pixel. Raises ValueError where a box is not finite.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if not np.isfinite(boxes).all():
        raise ValueError(f"box {boxes[~np.isfinite(boxes).all(1)][0].tolist()} is not finite")
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    scale = 1.0 / (np.maximum(sides[:, 0] / width, sides[:, 1] / height) * box_scale)
    size = np.array([width, height])
    low = np.rint(np.clip(centres + 0.5 - (size + 1) / (2 * scale[:, None]), -FARTHEST_PX, FARTHEST_PX))
    sides = np.maximum(np.rint(np.minimum(size / scale[:, None], FARTHEST_PX)), 1.0)
    affines = np.zeros((len(boxes), 2, 3))
    affines[:, (0, 1), (0, 1)] = size / sides
    affines[:, :, 2] = (0.5 - low) * size / sides - 0.5
    return affines


def invert_affines(affines: Affines) -> Affines:
    """The inverse maps, (N, 2, 3)."""
    inverse = np.linalg.inv(affines[:, :, :2])
    return np.concatenate((inverse, -inverse @ affines[:, :, 2:]), axis=2)


def map_points(affines: Affines, points: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Put `points` (N, K, 2) through the N maps; float32."""
    mapped = np.einsum("nij,nkj->nki", affines[:, :, :2], points.astype(np.float64)) + affines[:, None, :, 2]
    return np.asarray(mapped, np.float32)


def cut_crops(image: npt.NDArray[np.uint8], affines: Affines, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Cut the N crops (N, height, width, 3) uint8 out of `image` (H, W, 3); black where a crop leaves the image."""
    crops = np.empty((len(affines), height, width, image.shape[2]), np.uint8)
    size = np.array([width, height])
    sides = size / affines[:, (0, 1), (0, 1)]
    low = 0.5 - (affines[:, :, 2] + 0.5) / size * sides
    windows = np.rint(np.concatenate((low, low + sides), axis=1))
    whole = (windows[:, :2] >= 0).all(axis=1) & (windows[:, 2:] <= image.shape[1::-1]).all(axis=1)
    whole &= (np.abs(low - windows[:, :2]) < 1e-3).all(axis=1) & (windows[:, 2:] > windows[:, :2]).all(axis=1)
    for crop, affine, window, simple in zip(crops, affines, windows.astype(int).tolist(), whole, strict=True):
        if simple:
            x1, y1, x2, y2 = window
            cv2.resize(image[y1:y2, x1:x2], (width, height), dst=crop, interpolation=cv2.INTER_LINEAR)
        else:
            cv2.warpAffine(image, affine, (width, height), dst=crop, borderMode=cv2.BORDER_CONSTANT)
    return crops
