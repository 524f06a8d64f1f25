"""Training pictures for the detector, as a camera might see them: a pure function of pictures and a random generator.

A sample is one picture at a random scale, or four around a cross (mosaic, Bochkovskiy 2020), flipped, recoloured and
then spoiled: low resolution, blur, motion, sensor noise, JPEG, grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from streampose.detect.letterbox import PAD_VALUE
from streampose.train.detector_data import BoxPicture
from streampose.train.ranges import PositivePair, Strict

FloatArray = npt.NDArray[np.float32]
BytePicture = npt.NDArray[np.uint8]


class AugmentOptions(Strict):
    """How far pictures are changed; probabilities are 0..1."""

    long_side: int = Field(
        640, gt=0, description="long side of a picture at scale 1, the one the detector is to run at"
    )
    scale: PositivePair = (0.6, 1.5)
    mosaic: float = Field(0.3, ge=0, le=1)
    mosaic_scale: PositivePair = (0.4, 1.1)
    flip: float = Field(0.5, ge=0, le=1)
    colour: float = Field(0.6, ge=0, le=1)
    camera: float = Field(0.5, ge=0, le=1, description="share of samples spoiled as a camera spoils them")
    grey: float = Field(0.08, ge=0, le=1)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """What the network is shown: `image` (H, W, 3) BGR uint8, `boxes` (N, 4) xyxy in its pixels.

    `regions` (M, 5) are xyxy and how far "nobody is here" counts inside, later rows over earlier ones. `detail`
    (2 H, 2 W, 3) is what a teacher is shown: the same view at twice the size, before the camera's faults.
    """

    image: BytePicture
    boxes: FloatArray
    regions: FloatArray
    detail: BytePicture | None = None


def make_sample(
    pictures: Sequence[BoxPicture],
    width: int,
    height: int,
    options: AugmentOptions,
    rng: np.random.Generator,
    detailed: bool = False,
) -> Sample:
    """Lay one picture, or four around a cross, on a canvas of `width` x `height`; then colour and camera effects.

    `detailed`: with what a teacher is to be shown; the random draws are the same.
    """
    zooms = (1, 2) if detailed else (1,)
    canvases = [np.full((height * zoom, width * zoom, 3), PAD_VALUE, np.uint8) for zoom in zooms]
    boxes, regions = [], []
    for picture, window in zip(pictures, _windows(len(pictures), width, height, rng), strict=True):
        low, high = options.scale if len(pictures) == 1 else options.mosaic_scale
        scale = (
            float(np.exp(rng.uniform(np.log(low), np.log(high))))
            * options.long_side
            / max(picture.image.width, picture.image.height)
        )
        placed = _place(canvases, picture, window, scale, options, rng)
        boxes.append(placed[0])
        regions.append(placed[1])
    if rng.random() < options.colour:
        table = _colour_table(rng)
        canvases = [np.asarray(cv2.LUT(canvas, table), np.uint8) for canvas in canvases]
    if rng.random() < options.grey:
        canvases = [
            np.asarray(cv2.cvtColor(cv2.cvtColor(c, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)
            for c in canvases
        ]
    image, detail = canvases[0], canvases[1] if detailed else None
    if rng.random() < options.camera:
        image = spoil(image, rng)
    return Sample(image, np.concatenate(boxes), np.concatenate(regions), detail)


def _windows(count: int, width: int, height: int, rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """Where each of the `count` (1 or 4) pictures goes: x1, y1, x2, y2 of its window on the canvas."""
    if count == 1:
        return [(0, 0, width, height)]
    x, y = int(rng.uniform(0.3, 0.7) * width), int(rng.uniform(0.3, 0.7) * height)
    return [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]


def _place(
    canvases: Sequence[BytePicture],
    picture: BoxPicture,
    window: tuple[int, int, int, int],
    scale: float,
    options: AugmentOptions,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """Draw a picture at `scale` into its window, on canvases of once and twice the size, and say where its people and its
    regions have come to lie on the first."""
    image = picture.decode()
    size = (max(8, round(picture.image.width * scale)), max(8, round(picture.image.height * scale)))
    factor = np.array([size[0] / picture.image.width, size[1] / picture.image.height] * 2)
    boxes = (picture.boxes + 0.5) * factor - 0.5
    ignored = (picture.ignored + 0.5) * factor - 0.5
    if rng.random() < options.flip:
        image = image[:, ::-1]
        boxes, ignored = ((b * [-1, 1, -1, 1] + [size[0] - 1, 0] * 2)[:, [2, 1, 0, 3]] for b in (boxes, ignored))
    x1, y1, x2, y2 = window
    shift = np.array([_offset(size[0], x2 - x1, rng), _offset(size[1], y2 - y1, rng)])
    left, top = np.maximum(shift, 0)
    from_x, from_y = np.maximum(-shift, 0)
    across, down = min(size[0] - from_x, x2 - x1 - left), min(size[1] - from_y, y2 - y1 - top)
    for zoom, canvas in enumerate(canvases, 1):
        way = cv2.INTER_AREA if scale * zoom < 1 else cv2.INTER_LINEAR
        large = cv2.resize(image, (size[0] * zoom, size[1] * zoom), interpolation=way)
        canvas[(y1 + top) * zoom : (y1 + top + down) * zoom, (x1 + left) * zoom : (x1 + left + across) * zoom] = large[
            from_y * zoom : (from_y + down) * zoom, from_x * zoom : (from_x + across) * zoom
        ]
    move = np.tile([shift[0] + x1, shift[1] + y1], 2)
    seen = np.array([x1 + left, y1 + top, x1 + left + across, y1 + top + down]) - 0.5
    kept, cut = _clip(boxes + move, seen)
    unknown = np.concatenate([_clip(ignored + move, seen, 0.0)[0], cut])
    regions = np.concatenate([
        np.append(seen, picture.background)[None],
        np.concatenate([unknown, np.zeros((len(unknown), 1))], axis=1),
    ])  # fmt: skip
    return kept.astype(np.float32), regions.astype(np.float32)


def _offset(size: int, room: int, rng: np.random.Generator) -> int:
    """Where the picture begins in its room: anywhere inside it, or, where it is larger, so that the room is filled."""
    spare = room - size
    return int(rng.integers(min(spare, 0), max(spare, 0) + 1))


def _clip(
    boxes: npt.NDArray[np.floating], seen: npt.NDArray[np.floating], enough: float = 0.3
) -> tuple[FloatArray, FloatArray]:
    """Boxes cut to what is seen: those of which `enough` is left (and 4 pixels), and the remains of the others."""
    cut = np.concatenate([np.maximum(boxes[:, :2], seen[:2]), np.minimum(boxes[:, 2:], seen[2:])], axis=1)
    sides = np.maximum(cut[:, 2:] - cut[:, :2], 0)
    left = np.prod(sides, axis=1) / np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-6)
    some = (sides > 1).all(axis=1)
    kept = some & (left >= enough) & (sides.min(axis=1, initial=np.inf) >= 4)
    return cut[kept].astype(np.float32), cut[some & ~kept].astype(np.float32)


def _colour_table(rng: np.random.Generator) -> BytePicture:
    """Brightness, contrast, gamma and the balance of the colours, as one table a channel for `cv2.LUT`."""
    ramp = np.arange(256, dtype=np.float32) / 255
    gamma, contrast, light = np.exp(rng.normal(0, 0.22)), np.exp(rng.normal(0, 0.12)), rng.normal(0, 0.04)
    balance = np.exp(rng.normal(0, 0.05, 3))
    curve = (ramp**gamma - 0.5) * contrast + 0.5 + light
    table = np.clip(curve[:, None] * balance[None] * 255, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(table[None])


def spoil(image: BytePicture, rng: np.random.Generator) -> BytePicture:
    """What a cheap camera, the dark and the wire do: each effect now and then, in the order in which they happen."""
    height, width = image.shape[:2]
    if rng.random() < 0.25:
        image = np.asarray(
            cv2.filter2D(image, -1, _motion_kernel(int(rng.integers(3, 10)), rng.uniform(0, 180))), np.uint8
        )
    if rng.random() < 0.6:
        shrink = rng.uniform(0.35, 0.95)
        small = (max(16, round(width * shrink)), max(16, round(height * shrink)))
        image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), np.uint8)
    if rng.random() < 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5)), np.uint8)
    if rng.random() < 0.6:
        sigma = rng.uniform(1, 12)
        channels = 3 if rng.random() < 0.6 else 1
        noise = rng.standard_normal((*image.shape[:2], channels), np.float32) * np.float32(sigma)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.7:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 85))]
        image = np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR), np.uint8)
    if image.shape[:2] != (height, width):
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    return image


def _motion_kernel(length: int, angle_deg: float) -> FloatArray:
    """A line through the middle of a (length, length) kernel, of sum 1: what a moving camera smears a point to."""
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    turn = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), angle_deg, 1)
    kernel = np.asarray(cv2.warpAffine(kernel, turn, (length, length)), np.float32)
    return np.asarray(kernel / kernel.sum(), np.float32)
