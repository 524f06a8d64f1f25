"""The refiner: from a pose network's answers to where people label joints and how sure each one is, a small perceptron.

A heatmap's peak is high where the network is sure, not where its point is near to what a person would mark, and people
are ranked by it (Gu et al., "On the Calibration of Human Pose Estimation", ICML 2024). So a network may bring two hidden
layers that look at all its joints at once, and say for each how far it lies off, how near it will come to a label (the
joint's part of OKS, Lin et al., 2014), and whether people would label it at all. `streampose train refiner` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streampose.errors import ModelError, words_of
from streampose.messages import Array
from streampose.models.manifest import Manifest
from streampose.pose.skeleton import load_skeleton

OUTPUTS = 4
"""Of a joint: x and y of the move in cells of `CELLS`, the logit of its nearness, the logit of its being labelled."""
CELLS = 48
"""The move is counted in this part of the input's width, 4 pixels of 192."""
ROWS = 4
"""At once: products this small numpy's library does in the calling thread; larger ones wake threads that would spin beside
those of the network."""
LABELLED = (0.0, 0.45, 0.55, 1.0)
KEPT = (0.17, 0.19, 1.0, 1.0)
"""The part of its nearness that a joint's score is, by the chance that people would label it. One that they probably
would not stays under the 0.2 from which joints count for a person (COCO's protocol as published with HRNet), but where
it is near (0.6 or more) still counts as a measurement: about where a face is that looks away helps to follow a person."""


@dataclass(frozen=True, slots=True, eq=False)
class Refiner:
    """Layers of (weights (M, N), biases (M,)) with ReLU between them, for an input `width` x `height` pixels large.

    `flip_order` (K,) is the skeleton's: every answer is also looked at as in a mirror, and the mean of both is taken, so
    that left and right are treated alike.
    """

    layers: tuple[tuple[Array, Array], ...]
    width: int
    height: int
    flip_order: npt.NDArray[np.int64]

    def __call__(self, points: Array) -> Array:
        """Refined key points (B, K, 3), x, y in input pixels and a score in 0..1, of `points` (B, K, 3) as decoded."""
        mirrored = mirror_points(points, self.width, self.flip_order)
        if len(points) == 0:
            return points.copy()
        both = self._ask(features(np.concatenate((points, mirrored)), self.width, self.height))
        both = both.reshape(2, *points.shape[:2], OUTPUTS)
        other = both[1][:, self.flip_order]
        other[..., 0] *= -1
        said = 0.5 * (both[0] + other)
        result = np.empty_like(points)
        result[..., :2] = points[..., :2] + said[..., :2] * np.float32(self.width / CELLS)
        result[..., 2] = joint_scores(said[..., 2], said[..., 3])
        return result

    def _ask(self, x: Array) -> Array:
        return np.concatenate([self._layers(x[at : at + ROWS]) for at in range(0, len(x), ROWS)])

    def _layers(self, x: Array) -> Array:
        for weights, biases in self.layers[:-1]:
            x = np.maximum(x @ weights.T + biases, 0.0)
        weights, biases = self.layers[-1]
        return np.asarray(x @ weights.T + biases, np.float32)


def features(points: Array, width: int, height: int) -> Array:
    """What the first layer sees of `points` (B, K, 3): (B, 3 K), positions from -1 to 1 over the input, and scores."""
    scaled = points * np.array([2 / width, 2 / height, 1], np.float32) - np.array([1, 1, 0], np.float32)
    return np.asarray(scaled.reshape(len(points), -1), np.float32)


def mirror_points(points: Array, width: int, flip_order: npt.NDArray[np.int64]) -> Array:
    """`points` (B, K, 3) as they would lie in the mirrored picture, the sides' joints changed."""
    result = points[:, flip_order]
    result[..., 0] = (width - 1) - result[..., 0]
    return result


def joint_scores(near: Array, labelled: Array) -> Array:
    """Scores in 0..1 from the logits of a joint's nearness and of its being labelled, of any one shape."""
    sure, marked = (1 / (1 + np.exp(-np.clip(logits, -30, 30))) for logits in (near, labelled))
    return np.asarray(sure * np.interp(marked, LABELLED, KEPT), np.float32)


def load_refiner(manifest: Manifest, weights: Path) -> Refiner | None:
    """The refiner that the manifest of the network in `weights` names beside it, None where it names none.

    Raises ModelError, in one line, where the file is none or of another number of joints.
    """
    if manifest.refiner is None:
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = weights.parent / manifest.refiner
    order = load_skeleton(manifest.output.skeleton).flip_order
    try:
        tensors = load_file(path)
        layers = tuple(
            (tensors[f"{at}.weight"].astype(np.float32), tensors[f"{at}.bias"].astype(np.float32))
            for at in range(len(tensors) // 2)
        )
        sides = [3 * len(order), *(len(biases) for _, biases in layers)]
        fits = sides[-1] == OUTPUTS * len(order) and len(layers) > 0
        if not fits or any(each.shape != (m, n) for (each, _), n, m in zip(layers, sides, sides[1:], strict=False)):
            raise ModelError(f"{path}: not the refiner of {len(order)} joints, which {manifest.output.skeleton} has")
    except (OSError, SafetensorError, KeyError, TypeError, IndexError) as error:
        raise ModelError(f"{path}: not a refiner's weights ({words_of(error, 80)})") from error
    return Refiner(layers, manifest.input.width, manifest.input.height, order)
