"""A person as a far camera sees them: the picture around them shrunk, noisy and compressed, the same on every run.

The surroundings of the box (twice its sides, within the picture) are resampled by area so that the box is N pixels
high, Gaussian noise of sigma 5 is added, and the result goes through JPEG at quality 45. The noise is drawn from the
annotation's id, so that two measurements see the same pictures.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

NOISE_SIGMA = 5.0
JPEG_QUALITY = 45
SURROUNDINGS = 2.0
MOST_SIDE_PX = 65_500
"""JPEG has no longer sides: what lies around a box that is all but flat is not enlarged further."""
HEIGHTS_PX = (8, 1000)
"""The least and the most that is taken for a person's height."""


def reimage_person(
    image: npt.NDArray[np.uint8], box: npt.NDArray[np.float32], height_px: int, seed: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """The far picture (h, w, 3) uint8 and the (2, 3) map from pixels of `image` to pixels of it.

    `box` (4,) is xyxy in `image`; key points and boxes go through the map, areas times the square of its scale.
    """
    full_height, full_width = image.shape[:2]
    centre, side = (box[:2] + box[2:] + 1) / 2, (box[2:] - box[:2]) * SURROUNDINGS  # from the picture's edge
    low = np.clip(np.floor(centre - side / 2), 0, (full_width - 1, full_height - 1)).astype(int)
    high = np.clip(np.ceil(centre + side / 2), low + 1, (full_width, full_height)).astype(int)
    scale = min(height_px / max(float(box[3] - box[1]), 1.0), MOST_SIDE_PX / int((high - low).max()))
    size = np.maximum(np.rint((high - low) * scale), 1).astype(int)
    part = image[low[1] : high[1], low[0] : high[0]]
    small = cv2.resize(
        part, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    noise = np.random.Generator(np.random.PCG64(abs(seed))).normal(0.0, NOISE_SIGMA, small.shape)
    noisy = np.clip(np.rint(small + noise), 0, 255).astype(np.uint8)
    _, coded = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    far = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    ratio = size / (high - low)
    affine = np.zeros((2, 3))
    affine[0, 0], affine[1, 1] = ratio
    affine[:, 2] = (0.5 - low) * ratio - 0.5  # pixel centres: (x - low + 0.5) * ratio - 0.5
    return far, affine
