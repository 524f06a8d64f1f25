"""Drawing people on a picture: one pure function, an image and people in, a new image out.

Left limbs are orange, right limbs blue, limbs that join the sides white. A joint whose score is low is hollow, and its
limbs are thin; a person who is coasting (not seen now, predicted) is dashed; a tentative one has a thin box without a label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from streampose.messages import Image, Person

Background: TypeAlias = Literal["image", "blur", "black"]
Side: TypeAlias = Literal["left", "right", "centre"]
Colour: TypeAlias = tuple[int, int, int]
Points: TypeAlias = npt.NDArray[np.float64]

SIDE_COLOURS: dict[Side, Colour] = {"left": (32, 150, 255), "right": (255, 170, 48), "centre": (240, 240, 240)}
"""BGR; orange and blue are told apart by colour-blind eyes too (Okabe and Ito, 2008)."""
ID_COLOURS: tuple[Colour, ...] = (
    (110, 220, 60), (60, 200, 255), (230, 130, 230), (230, 220, 70), (90, 120, 255), (160, 255, 200),
    (255, 170, 140), (70, 240, 240), (200, 160, 255), (180, 210, 130),
)  # fmt: skip
OUTLINE: Colour = (24, 24, 24)
_SHIFT = 3  # fractional bits of coordinates handed to OpenCV: an eighth of a pixel
_FAR_PX = 16000.0  # OpenCV clips lines with 32-bit fixed-point coordinates; beyond this nothing is drawn anyway


@dataclass(frozen=True, slots=True)
class DrawSkeleton:
    """What drawing needs of a skeleton: K `sides` and `edges` as pairs of joint indices."""

    sides: tuple[Side, ...]
    edges: tuple[tuple[int, int], ...]

    def edge_side(self, edge: tuple[int, int]) -> Side:
        """The side of a limb: that of its joints where one is left or right and none is of the other side."""
        found: set[Side] = {self.sides[joint] for joint in edge} - {"centre"}
        return found.pop() if len(found) == 1 else "centre"


@lru_cache(maxsize=8)
def _edges_by_side(skeleton: DrawSkeleton) -> tuple[npt.NDArray[np.intp], tuple[tuple[Side, slice], ...]]:
    """The (E, 2) edges in drawing order, and which of them are of which side."""
    order: tuple[Side, ...] = ("centre", "left", "right")
    groups = {side: [edge for edge in skeleton.edges if skeleton.edge_side(edge) == side] for side in order}
    ends = np.cumsum([len(group) for group in groups.values()]).tolist()
    parts = tuple((side, slice(end - len(groups[side]), end)) for side, end in zip(order, ends, strict=True))
    return np.array([edge for group in groups.values() for edge in group], np.intp).reshape(-1, 2), parts


@lru_cache(maxsize=512)
def _text_size(text: str, scale: float) -> tuple[int, int]:
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    return int(width), int(height)


@dataclass(frozen=True, slots=True)
class DrawOptions:
    """How to draw. On a black background skeletons stand alone, whatever `boxes` and `labels` say. Joints scored below
    `solid_score` are hollow, below `hide_score` left out.

    A joint whose standard deviation exceeds `hide_std` of the box's longer side is left out too: nobody knows where it is.
    """

    background: Background = "image"
    boxes: bool = True
    labels: bool = True
    skeletons: bool = True
    solid_score: float = 0.3
    hide_score: float = 0.05
    hide_std: float = 0.2


@dataclass(frozen=True, slots=True)
class _Pen:
    """Sizes in pixels, scaled to one person in one image."""

    limb: int
    joint: int
    box: int
    outline: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Limbs:
    """The skeletons of N people: E limbs as (N, E, 2, 2) pixels, which are `sure` and which are drawn but not sure (N, E);
    K joints as (N, K, 2) in fixed-point pixels, which are shown and which of them solid (N, K)."""

    lines: Points
    sure: npt.NDArray[np.bool_]
    unsure: npt.NDArray[np.bool_]
    joints: npt.NDArray[np.int32]
    shown: npt.NDArray[np.bool_]
    solid: npt.NDArray[np.bool_]


def draw_people(
    image: Image,
    people: Sequence[Person],
    skeleton: DrawSkeleton,
    options: DrawOptions | None = None,
    canvas: Image | None = None,
) -> Image:
    """An (H, W, 3) BGR image with `people` on the chosen background; `image` is left as it is.

    It is a new one, or `canvas` where that is given and has the same shape: memory that was touched before is cheaper.
    """
    options = options or DrawOptions()
    background = image if options.background == "image" else _background(image, options.background)
    if canvas is None or canvas.shape != image.shape:
        canvas = background.copy() if background is image else background
    else:
        np.copyto(canvas, background)
    alone = options.background == "black"
    placed = sorted(people, key=lambda one: float(one.box[3]))  # nearer people, lower in the image, on top
    limbs = _limbs(placed, skeleton, options) if options.skeletons and placed else None
    for index, person in enumerate(placed):
        pen = _pen(person, canvas.shape[0])
        if options.boxes and not alone and np.isfinite(person.box).all():
            _draw_box(canvas, person, pen)
        if limbs is not None:
            _draw_skeleton(canvas, limbs, index, person.state == "coasting", skeleton, pen)
    if options.labels and not alone:
        for person in people:
            if person.state != "tentative" and np.isfinite(person.box).all():
                _draw_label(canvas, person)
    return canvas


def _background(image: Image, kind: Literal["blur", "black"]) -> Image:
    if kind == "black":
        return np.zeros_like(image)
    # Averaging over blocks of 1/40 of the picture leaves shapes of furniture and none of faces, at any resolution.
    height, width = image.shape[:2]
    block = max(8, height // 40)
    small = image
    while min(small.shape[:2]) >= 2 and small.shape[0] > 4 * height // block:
        half = (small.shape[1] // 2, small.shape[0] // 2)  # halving is OpenCV's fast path
        small = np.asarray(cv2.resize(small, half, interpolation=cv2.INTER_AREA), np.uint8)
    coarse = (max(1, width // block), max(1, height // block))
    small = np.asarray(cv2.resize(small, coarse, interpolation=cv2.INTER_AREA), np.uint8)
    smooth = cv2.GaussianBlur(small, (3, 3), 0)
    return np.asarray(cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _pen(person: Person, image_height: int) -> _Pen:
    """Limbs about 1/45 of the person's height, and never so thick that a small person becomes a blot."""
    person_height = float(person.box[3]) - float(person.box[1])
    if not math.isfinite(person_height):
        person_height = 100.0
    limb = max(1, min(round(person_height / 70), max(2, image_height // 150)))
    return _Pen(
        limb=limb, joint=limb + (1 if person_height > 60 else 0), box=max(2, image_height // 360), outline=limb > 1
    )


def _draw_box(canvas: Image, person: Person, pen: _Pen) -> None:
    height, width = canvas.shape[:2]
    limits = (width, height, width, height)  # edges outside the image stay just outside it
    x1, y1, x2, y2 = (min(max(value, -1.0), limit) for value, limit in zip(person.box.tolist(), limits, strict=True))
    colour = ID_COLOURS[person.id % len(ID_COLOURS)]
    if person.state == "coasting":
        loop = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]])
        dashes = _dashes(np.stack([loop[:-1], loop[1:]], axis=1), max(6.0, (y2 - y1) / 20))
        _draw_lines(canvas, dashes, colour, pen.box)
    else:  # upright edges need no smoothing, and cost a tenth without it
        thickness = 1 if person.state == "tentative" else pen.box
        cv2.rectangle(canvas, (round(x1), round(y1)), (round(x2), round(y2)), colour, thickness)


def _limbs(people: Sequence[Person], skeleton: DrawSkeleton, options: DrawOptions) -> _Limbs:
    """What is to be drawn of N `people`: worked out for all at once, since there are many small arrays otherwise."""
    keypoints = np.stack([person.keypoints for person in people]).astype(np.float64)
    points, scores = keypoints[..., :2], keypoints[..., 2]
    boxes = np.stack([person.box for person in people])
    limits_px = options.hide_std * np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), 1.0)
    shown = (scores >= options.hide_score) & (np.abs(points) < _FAR_PX).all(axis=2)  # no number is below nothing, too
    shown &= np.logical_not(np.stack([person.std for person in people]) > limits_px[:, None])
    points = np.where(shown[..., None], points, 0.0)
    solid = scores >= options.solid_score
    edges, _ = _edges_by_side(skeleton)
    drawn, firm = np.asarray(shown[:, edges].all(axis=2)), np.asarray(solid[:, edges].all(axis=2))
    return _Limbs(points[:, edges], drawn & firm, drawn & ~firm, _fixed(points), shown, solid)


def _draw_skeleton(canvas: Image, limbs: _Limbs, index: int, coasting: bool, skeleton: DrawSkeleton, pen: _Pen) -> None:
    lines, sure, unsure = limbs.lines[index], limbs.sure[index], limbs.unsure[index]
    strokes = [(lines[sure], OUTLINE, pen.limb + 2)] if pen.outline else []
    doubt = unsure.any()
    for side, part in _edges_by_side(skeleton)[1]:
        if doubt:
            strokes.append((lines[part][unsure[part]], SIDE_COLOURS[side], 1))
        strokes.append((lines[part][sure[part]], SIDE_COLOURS[side], pen.limb))
    for stroke, colour, thickness in strokes:
        _draw_lines(canvas, _dashes(stroke, max(4.0, pen.limb * 3.0)) if coasting else stroke, colour, thickness)
    circle, radius, rim = cv2.circle, pen.joint << _SHIFT, (pen.joint + 1) << _SHIFT
    joints = zip(limbs.joints[index].tolist(), limbs.shown[index].tolist(), limbs.solid[index].tolist(), strict=True)
    for (centre, shown, solid), side in zip(joints, skeleton.sides, strict=True):
        if not shown:
            continue
        if coasting or not solid:
            circle(canvas, centre, rim, SIDE_COLOURS[side], 1, cv2.LINE_AA, _SHIFT)
            continue
        if pen.outline:
            circle(canvas, centre, rim, OUTLINE, -1, cv2.LINE_AA, _SHIFT)
        circle(canvas, centre, radius, SIDE_COLOURS[side], -1, cv2.LINE_AA, _SHIFT)


def _fixed(points: Points) -> npt.NDArray[np.int32]:
    """`points` in fixed-point pixels."""
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)


def _draw_lines(canvas: Image, lines: Points, colour: Colour, thickness: int) -> None:
    """Draw (N, 2, 2) line segments in one call."""
    if len(lines):
        cv2.polylines(canvas, list(_fixed(lines)), False, colour, thickness, cv2.LINE_AA, _SHIFT)


def _dashes(lines: Points, dash_px: float) -> Points:
    """Cut (N, 2, 2) segments into dashes of about `dash_px` with pauses as long, (M, 2, 2)."""
    start, way = lines[:, 0], lines[:, 1] - lines[:, 0]
    counts = np.maximum(1, np.rint(np.hypot(way[:, 0], way[:, 1]) / (2 * dash_px))).astype(np.intp)
    line = np.repeat(np.arange(len(lines)), counts)
    dash = np.arange(len(line)) - np.repeat(np.cumsum(counts) - counts, counts)
    # A line of n dashes is cut into 2n - 1 equal pieces, so that both of its ends are drawn.
    pieces = np.stack([2 * dash, 2 * dash + 1], axis=1) / (2 * counts[line] - 1)[:, None]
    return np.asarray(start[line][:, None] + pieces[:, :, None] * way[line][:, None])


def _draw_label(canvas: Image, person: Person) -> None:
    """The id in a filled tag on the box's upper edge, kept inside the image."""
    height, width = canvas.shape[:2]
    scale = min(max(height / 1400, 0.35), 1.2)
    text = str(person.id)
    text_width, text_height = _text_size(text, scale)
    pad = max(2, round(4 * scale))
    tag_width, tag_height = text_width + 2 * pad, text_height + 2 * pad
    left = int(min(max(float(person.box[0]), 0.0), max(0, width - tag_width)))
    top = int(min(max(float(person.box[1]) - tag_height, 0.0), max(0, height - tag_height)))
    colour = ID_COLOURS[person.id % len(ID_COLOURS)]
    cv2.rectangle(canvas, (left, top), (left + tag_width, top + tag_height), colour, -1)
    if person.state == "coasting":
        cv2.rectangle(canvas, (left + 1, top + 1), (left + tag_width - 1, top + tag_height - 1), OUTLINE, 1)
    origin = (left + pad, top + pad + text_height)
    cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, OUTLINE, max(1, round(scale * 1.6)), cv2.LINE_AA)
