"""How a picture enters a detector and how its boxes come back: resized to a long side, padded with grey, inverted once.

The aspect ratio is kept; the padded sides are multiples of 32, as the strides of the networks ask. Pixel centres are
whole numbers (the centre of the top-left pixel is (0, 0)), so a resize by s maps x to s (x + 0.5) - 0.5, which is what
OpenCV's resize does.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

PAD_VALUE = 114
STRIDE = 32


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where a picture of `source` (width, height) pixels lies in the network's input of `size` (width, height).

    `scale_x` and `scale_y` differ only by the rounding of the resized sides; `left` and `top` are the padding in pixels.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    size: tuple[int, int]
    left: int
    top: int

    @property
    def scale_x(self) -> float:
        return self.resized[0] / self.source[0]

    @property
    def scale_y(self) -> float:
        return self.resized[1] / self.source[1]

    def to_input(self, boxes: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Boxes (N, 4) xyxy in picture pixels to pixels of the network's input."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float64)
        shift = np.array([self.left, self.top] * 2, np.float64)
        return ((boxes + 0.5) * scale - 0.5 + shift).astype(np.float32)

    def to_picture(self, boxes: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """The exact inverse of `to_input`; boxes may reach outside the picture and are not clipped."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float64)
        shift = np.array([self.left, self.top] * 2, np.float64)
        return ((boxes - shift + 0.5) / scale - 0.5).astype(np.float32)


def plan(width: int, height: int, long_side: int, canvas: tuple[int, int] | None = None) -> Letterbox:
    """Lay a picture of `width` x `height` into the smallest input whose long side is `long_side` (pixels), or into one of
    `canvas`, width and height, where the network takes no other.

    The picture is centred. Raises ValueError where a side is not positive.
    """
    if min(width, height, long_side) <= 0:
        raise ValueError(f"sides must be positive, got {width}x{height} for a long side of {long_side}")
    scale = long_side / max(width, height) if canvas is None else min(canvas[0] / width, canvas[1] / height)
    resized = (max(1, round(width * scale)), max(1, round(height * scale)))
    size = canvas or (-(-resized[0] // STRIDE) * STRIDE, -(-resized[1] // STRIDE) * STRIDE)
    return Letterbox((width, height), resized, size, (size[0] - resized[0]) // 2, (size[1] - resized[1]) // 2)


def apply(
    image: npt.NDArray[np.uint8], box: Letterbox, out: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """The (H, W, 3) picture as the network's input (h, w, 3) by the plan `box`; written into `out` where it is given."""
    if (image.shape[1], image.shape[0]) != box.source:
        raise ValueError(
            f"the plan is for {box.source[0]}x{box.source[1]}, the picture is {image.shape[1]}x{image.shape[0]}"
        )
    if out is None:
        out = np.empty((box.size[1], box.size[0], 3), np.uint8)
    width, height = box.resized
    inner = out[box.top : box.top + height, box.left : box.left + width]
    if box.resized == box.source:
        inner[:] = image
    else:
        shrinks = width < box.source[0]
        inner[:] = cv2.resize(image, box.resized, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    out[: box.top] = PAD_VALUE
    out[box.top + height :] = PAD_VALUE
    out[box.top : box.top + height, : box.left] = PAD_VALUE
    out[box.top : box.top + height, box.left + width :] = PAD_VALUE
    return out
