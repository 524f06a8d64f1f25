"""Drawing people on a picture: one pure function, an image and people in, a new image out.

Left limbs are orange, right limbs blue, limbs that join the sides white. A joint whose score is low is hollow, and its
limbs are thin; a person who is coasting (not seen now, predicted) is dashed; a tentative one has a thin box without a label.
"""

from __future__ import annotations

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
def _edges_by_side(skeleton: DrawSkeleton) -> tuple[tuple[Side, npt.NDArray[np.intp]], ...]:
    """The edges of each side as (E, 2) indices, the sides in drawing order."""
    order: tuple[Side, ...] = ("centre", "left", "right")
    groups = ((side, [edge for edge in skeleton.edges if skeleton.edge_side(edge) == side]) for side in order)
    return tuple((side, np.array(edges, np.intp)) for side, edges in groups if edges)


@lru_cache(maxsize=512)
def _text_size(text: str, scale: float) -> tuple[int, int]:
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    return int(width), int(height)


@dataclass(frozen=True, slots=True)
class DrawOptions:
    """How to draw. Joints scored below `solid_score` are hollow, below `hide_score` left out.

    A joint whose standard deviation exceeds `hide_std` of the box height is left out too: nobody knows where it is.
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
    for person in sorted(people, key=lambda one: float(one.box[3])):  # nearer people, lower in the image, on top
        pen = _pen(person, canvas.shape[0])
        if options.boxes and np.isfinite(person.box).all():
            _draw_box(canvas, person, pen)
        if options.skeletons:
            _draw_skeleton(canvas, person, skeleton, options, pen)
    if options.labels:
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
    person_height = float(person.box[3] - person.box[1])
    if not np.isfinite(person_height):
        person_height = 100.0
    limb = int(np.clip(round(person_height / 70), 1, max(2, image_height // 150)))
    return _Pen(
        limb=limb, joint=limb + (1 if person_height > 60 else 0), box=max(2, image_height // 360), outline=limb > 1
    )


def _draw_box(canvas: Image, person: Person, pen: _Pen) -> None:
    height, width = canvas.shape[:2]
    corner = np.clip(person.box, -1, [width, height, width, height])  # edges outside the image stay just outside it
    x1, y1, x2, y2 = (float(value) for value in corner)
    colour = ID_COLOURS[person.id % len(ID_COLOURS)]
    if person.state == "coasting":
        loop = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]])
        dashes = _dashes(np.stack([loop[:-1], loop[1:]], axis=1), max(6.0, (y2 - y1) / 20))
        _draw_lines(canvas, dashes, colour, pen.box)
    else:  # upright edges need no smoothing, and cost a tenth without it
        thickness = 1 if person.state == "tentative" else pen.box
        cv2.rectangle(canvas, (round(x1), round(y1)), (round(x2), round(y2)), colour, thickness)


def _draw_skeleton(canvas: Image, person: Person, skeleton: DrawSkeleton, options: DrawOptions, pen: _Pen) -> None:
    points = person.keypoints[:, :2].astype(np.float64)
    scores = person.keypoints[:, 2]
    limit_px = options.hide_std * max(float(person.box[3] - person.box[1]), 1.0)
    shown: npt.NDArray[np.bool_]
    shown = (scores >= options.hide_score) & np.isfinite(points).all(axis=1) & (np.abs(points) < _FAR_PX).all(axis=1)
    shown &= np.logical_not(person.std > limit_px)
    solid: npt.NDArray[np.bool_] = scores >= options.solid_score
    dash_px = max(4.0, pen.limb * 3.0)

    batches: list[tuple[Points, Colour, int, bool]] = []
    for side, edges in _edges_by_side(skeleton):
        firm = solid[edges].all(axis=1)
        for kind, thickness in ((False, 1), (True, pen.limb)):
            chosen = edges[shown[edges].all(axis=1) & (firm == kind)]
            if len(chosen):
                batches.append((points[chosen], SIDE_COLOURS[side], thickness, kind))
    if person.state == "coasting":
        batches = [(_dashes(lines, dash_px), colour, thickness, sure) for lines, colour, thickness, sure in batches]
    if pen.outline:
        for lines, _, thickness, sure in batches:
            if sure:
                _draw_lines(canvas, lines, OUTLINE, thickness + 2)
    for lines, colour, thickness, _ in batches:
        _draw_lines(canvas, lines, colour, thickness)
    hollow = person.state == "coasting"
    fixed = np.rint(np.where(shown[:, None], points, 0.0) * (1 << _SHIFT)).astype(np.int64).tolist()
    for joint in np.flatnonzero(shown).tolist():
        _draw_joint(canvas, fixed[joint], SIDE_COLOURS[skeleton.sides[joint]], pen, bool(solid[joint]) and not hollow)


def _draw_joint(canvas: Image, centre: Sequence[int], colour: Colour, pen: _Pen, solid: bool) -> None:
    """One joint at `centre`, fixed-point pixels."""
    radius = pen.joint << _SHIFT
    if solid:
        if pen.outline:
            cv2.circle(canvas, centre, radius + (1 << _SHIFT), OUTLINE, -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(canvas, centre, radius, colour, -1, cv2.LINE_AA, _SHIFT)
    else:
        cv2.circle(canvas, centre, radius + (1 << _SHIFT), colour, 1, cv2.LINE_AA, _SHIFT)


def _draw_lines(canvas: Image, lines: Points, colour: Colour, thickness: int) -> None:
    """Draw (N, 2, 2) line segments in one call."""
    if len(lines):
        fixed = np.rint(lines * (1 << _SHIFT)).astype(np.int32)
        cv2.polylines(canvas, list(fixed), False, colour, thickness, cv2.LINE_AA, _SHIFT)


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
    scale = float(np.clip(height / 1400, 0.35, 1.2))
    text = str(person.id)
    text_width, text_height = _text_size(text, scale)
    pad = max(2, round(4 * scale))
    tag_width, tag_height = text_width + 2 * pad, text_height + 2 * pad
    left = int(np.clip(person.box[0], 0, max(0, width - tag_width)))
    top = int(np.clip(person.box[1] - tag_height, 0, max(0, height - tag_height)))
    colour = ID_COLOURS[person.id % len(ID_COLOURS)]
    cv2.rectangle(canvas, (left, top), (left + tag_width, top + tag_height), colour, -1)
    if person.state == "coasting":
        cv2.rectangle(canvas, (left + 1, top + 1), (left + tag_width - 1, top + tag_height - 1), OUTLINE, 1)
    origin = (left + pad, top + pad + text_height)
    cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, OUTLINE, max(1, round(scale * 1.6)), cv2.LINE_AA)
