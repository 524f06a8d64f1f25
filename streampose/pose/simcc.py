"""From SimCC vectors to key points: x and y as two classifications over the sides of the crop.

Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation", ECCV 2022; the form that
RTMPose (Jiang et al., 2023) exports: no softmax, the place of the maximum, and the lower of both maxima as score.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streampose.models.manifest import OutputSpec

Array = npt.NDArray[np.float32]


def decode_simcc(x: Array, y: Array, spec: OutputSpec) -> Array:
    """Key points (B, K, 3) as x, y in crop pixels and a score in 0..1, from `x` (B, K, W * split), `y` (B, K, H * split)."""
    result = np.empty((*x.shape[:2], 3), np.float32)
    result[..., 0] = x.argmax(axis=2) / spec.simcc_split + spec.offset
    result[..., 1] = y.argmax(axis=2) / spec.simcc_split + spec.offset
    result[..., 2] = np.clip(np.minimum(x.max(axis=2), y.max(axis=2)) / spec.peak, 0.0, 1.0)
    if spec.shift is not None:
        result[..., :2] += np.asarray(spec.shift, np.float32)
    return result


def merge_flipped_simcc(x: Array, mirrored_x: Array, flip_order: npt.NDArray[np.int64], spec: OutputSpec) -> Array:
    """Average vectors (B, K, bins) along x with those of the mirrored crops, turned back.

    Bin b is pixel b / split, so what is turned back lies split - 1 bins too far right, and is shifted left by them.
    """
    turned = mirrored_x[:, flip_order, ::-1]
    shift = round(spec.simcc_split - 1)
    if shift:
        turned = np.concatenate((turned[..., shift:], turned[..., -shift:]), axis=-1)
    return np.asarray(0.5 * (x + turned), np.float32)
