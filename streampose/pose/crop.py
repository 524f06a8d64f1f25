"""From boxes to network crops and back: one affine map a person, and its exact inverse.

The crop keeps the aspect of the network's input: the box is widened to it, never stretched, then scaled about its
centre (Xiao et al., "Simple Baselines", ECCV 2018, with 1.25). Image and crop coordinates both have the centre of the
top-left pixel at (0, 0); the centre of the box goes to (width / 2, height / 2) of the crop, as published with HRNet.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Affines = npt.NDArray[np.float64]


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
    affines = np.zeros((len(boxes), 2, 3))
    affines[:, 0, 0] = affines[:, 1, 1] = scale
    affines[:, :, 2] = np.array([width / 2, height / 2]) - centres * scale[:, None]
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
    for crop, affine in zip(crops, affines, strict=True):
        cv2.warpAffine(image, affine, (width, height), dst=crop, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return crops
