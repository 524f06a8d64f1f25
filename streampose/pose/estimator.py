"""The pose estimator: pictures and boxes in, key points out; crops of all people of all pictures go as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streampose.errors import ConfigError, ModelError
from streampose.messages import Array, Image
from streampose.models.manifest import Manifest
from streampose.pose.crop import crop_affines, cut_crops, invert_affines, map_points
from streampose.pose.decode import decode_heatmaps
from streampose.pose.flip import merge_flipped, mirror_columns
from streampose.pose.refiner import Refiner
from streampose.pose.simcc import decode_simcc, merge_flipped_simcc
from streampose.pose.skeleton import Skeleton, load_skeleton
from streampose.runtime.base import CuttingRuntime, Runtime


@dataclass(frozen=True, slots=True, eq=False)
class PoseNetwork:
    """A compiled pose network with the manifest that says how to feed it and read it, and its refiner where it has one."""

    runtime: Runtime
    manifest: Manifest
    refiner: Refiner | None = None


class PoseEstimator:
    """Places the key points of people.

    `small`, where given, is a second network of the same skeleton for people whose box is lower than `small_below_px`
    pixels: a far person has no more detail than a small input holds. With `flip_test` every crop is seen mirrored too,
    at twice the cost. Stateless; for one thread at a time.
    """

    def __init__(
        self,
        network: PoseNetwork,
        *,
        flip_test: bool = False,
        small: PoseNetwork | None = None,
        small_below_px: float = 34,
    ) -> None:
        self.manifest = network.manifest
        self.skeleton: Skeleton = load_skeleton(network.manifest.output.skeleton)
        self.flip_test = flip_test
        self.small_below_px = small_below_px
        self._network = network
        self._small = small
        for each in self.networks:
            if each.manifest.output.kind not in ("heatmap", "simcc"):
                raise ConfigError(f"pose: {each.manifest.name} gives {each.manifest.output.kind}, not key points")
            shift, joints = each.manifest.output.shift, load_skeleton(each.manifest.output.skeleton).keypoints
            if shift is not None and len(shift) != len(joints):
                raise ModelError(
                    f"{each.manifest.name}: output.shift is of {len(shift)} joints, the skeleton has {len(joints)}"
                )
            if joints != self.skeleton.keypoints:
                raise ConfigError(
                    f"pose.small_model: {each.manifest.name} has skeleton {each.manifest.output.skeleton}, "
                    f"{network.manifest.name} has {network.manifest.output.skeleton}; both must have the same key points"
                )

    @property
    def networks(self) -> tuple[PoseNetwork, ...]:
        """The network, and the one for small people where there is one."""
        return (self._network, self._small) if self._small else (self._network,)

    def __call__(self, images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]:
        """Key points (N, K, 3) x, y, score for the `boxes` (N, 4) xyxy of each (H, W, 3) BGR picture.

        Positions are in pixels of the picture and may lie outside it, scores in 0..1. Raises ValueError for a box that
        is not finite.
        """
        counts = [len(each) for each in boxes]
        results = [np.zeros((count, len(self.skeleton.keypoints), 3), np.float32) for count in counts]
        for network, chosen in self._share(boxes):
            if any(len(rows) for rows in chosen):
                parts = [np.asarray(each)[rows] for each, rows in zip(boxes, chosen, strict=True)]
                points = self._estimate(network, images, parts)
                stops = np.cumsum([len(rows) for rows in chosen])[:-1]
                for result, rows, part in zip(results, chosen, np.split(points, stops), strict=True):
                    result[rows] = part
        return results

    def close(self) -> None:
        """Free the compiled networks."""
        for network in self.networks:
            network.runtime.close()

    def _share(self, boxes: Sequence[Array]) -> list[tuple[PoseNetwork, list[npt.NDArray[np.intp]]]]:
        """Which network poses which people: for each network, the row numbers in each picture's boxes."""
        if self._small is None:
            return [(self._network, [np.arange(len(each)) for each in boxes])]
        low = [
            np.reshape(each, (-1, 4))[:, 3] - np.reshape(each, (-1, 4))[:, 1] < self.small_below_px for each in boxes
        ]
        return [
            (self._network, [np.flatnonzero(~rows) for rows in low]),
            (self._small, [np.flatnonzero(rows) for rows in low]),
        ]

    def _estimate(self, network: PoseNetwork, images: Sequence[Image], boxes: Sequence[Array]) -> Array:
        """Key points (sum of N, K, 3) in picture pixels of the boxes of all pictures, in order."""
        spec = network.manifest.input
        affines = [crop_affines(each, spec.width, spec.height, spec.box_scale) for each in boxes]
        to_image = [invert_affines(each) for each in affines]
        if isinstance(network.runtime, CuttingRuntime):
            columns = mirror_columns(spec.width, network.manifest.output) if self.flip_test else None
            seen = network.runtime.cut(images, to_image, columns)
            points = read(network, seen, self.skeleton, flip_test=self.flip_test)
        else:
            crops = [
                cut_crops(image, each, spec.width, spec.height)
                for image, each in zip(images, affines, strict=True)
                if len(each)
            ]
            cut = crops[0] if len(crops) == 1 else np.concatenate(crops)
            points = look(network, cut, self.skeleton, flip_test=self.flip_test)
        if network.refiner is not None:
            points = network.refiner(points)
        points[..., :2] = map_points(np.concatenate(to_image), points[..., :2])
        return points


def look(network: PoseNetwork, crops: npt.NDArray[np.uint8], skeleton: Skeleton, *, flip_test: bool = False) -> Array:
    """Key points (B, K, 3) in crop pixels as `network` alone says them of `crops` (B, H, W, 3) uint8 BGR, not refined.

    With `flip_test` each crop is seen mirrored too. Raises ModelError where the network gives something else than its
    manifest says.
    """
    if flip_test:
        columns = mirror_columns(crops.shape[2], network.manifest.output)
        crops = np.concatenate((crops, crops[:, :, columns]))
    return read(network, network.runtime(crops), skeleton, flip_test=flip_test)


def read(network: PoseNetwork, seen: Sequence[Array], skeleton: Skeleton, *, flip_test: bool = False) -> Array:
    """Key points (B, K, 3) in crop pixels from what `network` gave, with `flip_test` of B crops and then of the same
    mirrored. Raises ModelError where it gave something else than its manifest says.
    """
    spec, order = network.manifest.output, skeleton.flip_order
    check_outputs(seen, network.manifest, len(order))
    count = len(seen[0]) // 2 if flip_test else len(seen[0])
    straight, mirrored = [each[:count] for each in seen], [each[count:] for each in seen]
    if spec.kind == "simcc":
        x, y = straight[0], straight[1]
        if flip_test:
            x, y = merge_flipped_simcc(x, mirrored[0], order, spec), np.float32(0.5) * (y + mirrored[1][:, order])
        return decode_simcc(x, y, spec)
    heatmaps = merge_flipped(straight[0], mirrored[0], order, spec) if flip_test else straight[0]
    return decode_heatmaps(heatmaps, spec)


def check_outputs(outputs: Sequence[Array], manifest: Manifest, joints: int) -> None:
    """A pose network says what its manifest promises; raises ModelError where not. The last row and column of a heatmap
    lie at the last pixels of the input, to a cell."""
    spec = manifest.output
    shapes = ", ".join(str(each.shape) for each in outputs)
    if spec.kind == "simcc":
        size = (round(manifest.input.width * spec.simcc_split), round(manifest.input.height * spec.simcc_split))
        good = len(outputs) == 2 and all(o.shape[1:] == (joints, s) for o, s in zip(outputs, size, strict=True))
        wanted = f"(B, {joints}, {size[0]}) and (B, {joints}, {size[1]})"
    else:
        good = outputs[0].ndim == 4 and outputs[0].shape[1] == joints
        wanted = f"(B, {joints}, h, w)"
    if not good:
        raise ModelError(f"{manifest.name}: gives {shapes}, its manifest promises {spec.kind} {wanted}")
    if spec.kind == "heatmap":
        sides = (manifest.input.width, manifest.input.height)
        for cells, stride, side in zip(outputs[0].shape[:1:-1], spec.strides, sides, strict=True):
            if abs(stride * (cells - 1) + spec.offset - (side - 1)) > stride:
                raise ModelError(
                    f"{manifest.name}: {cells} cells of output.stride {stride:.4g} do not cover its input's {side} "
                    f"pixels; {side / cells:.4g} would"
                )
