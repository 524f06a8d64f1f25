"""Networks replaced by constants: runtimes that answer at once with what a good network would say of walking figures.

They stand at the same seam as the real ones, so that everything around a network is the product's own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.detect import letterbox
from streampose.messages import Array
from streampose.models.manifest import InputSpec, Manifest, OutputSpec
from streampose.sources.figures import Figure, figure_box

STRIDES = (8, 16, 32)
PROPOSALS = 8  # overlapping boxes that a YOLO network gives for each person before they are merged
NOISE = 0.01  # standard deviation of a box side, in box heights
BANK = 32  # different heatmap sets, taken in turn
JOINT_NOISE_PX = (
    1.0  # in crop pixels; the shipped network's is 0.7 in the bundled park, 2 on the small people of the road
)
PEAK_SIGMA = 2.0  # heatmap cells
STANDING = (
    (0.50, 0.10), (0.53, 0.08), (0.47, 0.08), (0.56, 0.09), (0.44, 0.09), (0.62, 0.22), (0.38, 0.22), (0.66, 0.37),
    (0.34, 0.37), (0.66, 0.50), (0.34, 0.50), (0.58, 0.52), (0.42, 0.52), (0.58, 0.72), (0.42, 0.72), (0.58, 0.90),
    (0.42, 0.90),
)  # fmt: skip
"""The 17 joints of a standing person as fractions of a box of 3:4, which fills 1 / 1.25 of the crop."""


def detector_manifest(long_side: int = 640) -> Manifest:
    """What a YOLO network of that input says of itself."""
    return Manifest(
        name="constant_boxes",
        task="detect",
        architecture={},
        weights="none",
        sha256="0" * 64,
        input=InputSpec(width=long_side, height=long_side),
        output=OutputSpec(kind="yolo"),
        licence="none",
    )


def pose_manifest(width: int = 192, height: int = 256) -> Manifest:
    """What a heatmap network of that input says of itself."""
    return Manifest(
        name="constant_heatmaps",
        task="pose",
        architecture={},
        weights="none",
        sha256="0" * 64,
        input=InputSpec(width=width, height=height),
        output=OutputSpec(kind="heatmap", blur=5),
        licence="none",
    )


def boxes_at(figures: Sequence[Figure], time_s: float) -> Array:
    """The true boxes (N, 4) xyxy of the figures at `time_s`."""
    boxes = [figure_box(figure.pose(time_s), figure.height_px) for figure in figures]
    return np.array(boxes, np.float32).reshape(-1, 4)


class ConstantBoxes:
    """A YOLO network's raw output (B, 5, anchors) for frames in order: true boxes with noise, eight times each."""

    name, device, precision = "constant", "none", "none"
    batch_sizes: Sequence[int] = ()

    def __init__(self, figures: Sequence[Figure], fps: float, picture: tuple[int, int], long_side: int = 640) -> None:
        self._figures, self._fps = figures, fps
        self._plan = letterbox.plan(*picture, long_side)
        width, height = self._plan.size
        self._anchors = sum((width // stride) * (height // stride) for stride in STRIDES)
        self._rng = np.random.default_rng(1)
        self._next = 0

    def raw(self, index: int) -> Array:
        """The output (5, anchors) for frame `index`."""
        boxes = self._plan.to_input(boxes_at(self._figures, index / self._fps)) + np.float32(0.5)
        many = np.repeat(boxes, PROPOSALS, axis=0)
        noise = self._rng.normal(0.0, NOISE, size=many.shape) * (many[:, 3:] - many[:, 1:2])
        many += noise.astype(np.float32)
        raw = np.zeros((5, self._anchors), np.float32)
        places = np.linspace(0, self._anchors - 1, len(many)).astype(int)
        raw[:2, places] = (many[:, :2] + many[:, 2:]).T / 2
        raw[2:4, places] = (many[:, 2:] - many[:, :2]).T
        raw[4, places] = np.tile(np.linspace(0.9, 0.3, PROPOSALS), len(boxes))
        return raw

    def __call__(self, batch: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """One output for each picture of the batch; pictures come in the order of the video."""
        first, self._next = self._next, self._next + len(batch)
        return (np.stack([self.raw(index) for index in range(first, self._next)]),)

    def close(self) -> None:
        """Nothing to free."""


class ConstantHeatmaps:
    """Heatmaps (B, 17, H/4, W/4) of a standing person, each time a little elsewhere."""

    name, device, precision = "constant", "none", "none"
    batch_sizes: Sequence[int] = ()

    def __init__(self, width: int = 192, height: int = 256) -> None:
        rng = np.random.default_rng(2)
        centres = (0.5 + (np.array(STANDING) - 0.5) / 1.25) * (width, height) + rng.normal(
            0, JOINT_NOISE_PX, (BANK, len(STANDING), 2)
        )
        x, y = np.arange(width // 4), np.arange(height // 4)
        across = np.exp(-((x - centres[..., :1] / 4) ** 2) / (2 * PEAK_SIGMA**2))
        down = np.exp(-((y - centres[..., 1:] / 4) ** 2) / (2 * PEAK_SIGMA**2))
        self._bank = (down[..., :, None] * across[..., None, :]).astype(np.float32)
        self._next = 0

    def __call__(self, batch: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """One set of heatmaps for each crop of the batch."""
        chosen = (self._next + np.arange(len(batch))) % BANK
        self._next += len(batch)
        return (self._bank[chosen],)

    def close(self) -> None:
        """Nothing to free."""
