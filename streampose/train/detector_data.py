"""Pictures with person boxes for the detector's training: COCO-format sets, read once into memory, encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streampose.errors import DataError
from streampose.evaluate.dataset import (
    EDGE,
    KeypointSet,
    LabelledImage,
    LabelledPerson,
    decode_picture,
    open_keypoint_set,
    raise_faults,
)
from streampose.train.holdout import image_name, kept_elsewhere, kept_images

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class BoxPicture:
    """One labelled picture, `image` of the set `path`.

    `encoded` is the picture file's bytes. `boxes` (N, 4) xyxy pixels, centre of the top-left pixel (0, 0); `ignored`
    (M, 4) regions of which nothing is known. `background` in 0..1 is how far "no box here" may be believed.
    """

    path: Path
    image: LabelledImage
    encoded: bytes
    boxes: FloatArray
    ignored: FloatArray
    background: float = 1.0

    @property
    def key(self) -> str:
        """The picture's name among all: two that are one have one."""
        return sha256(self.encoded).hexdigest()[:24]

    @property
    def source(self) -> str:
        """The set or the part of it that the picture comes from."""
        return self.image.source

    def decode(self) -> npt.NDArray[np.uint8]:
        """The picture, (H, W, 3) BGR uint8; raises DataError where it is not one of the size that was announced."""
        return decode_picture(self.encoded, self.image, self.path)


def read_set(path: str | Path, images: str | Path | None = None) -> list[BoxPicture]:
    """All pictures of a COCO-format set with their people's boxes; `images` is the folder of a JSON's pictures.

    Raises DataError naming every fault found (at most ten), one line each.
    """
    with open_keypoint_set(path, joints=0, images=images) as data:
        people: dict[int, list[LabelledPerson]] = {number: [] for number in data.images}
        for person in data.people:
            people[person.image.id].append(person)
        pictures: list[BoxPicture] = []
        faults: list[str] = []
        for image in data.images.values():
            try:
                pictures.append(_picture(data, image, people[image.id]))
            except DataError as fault:
                faults += fault.lines
    raise_faults(faults)
    return pictures


def _picture(data: KeypointSet, image: LabelledImage, people: Sequence[LabelledPerson]) -> BoxPicture:
    boxes = np.array([person.box for person in people], np.float32).reshape(-1, 4)
    boxes = np.clip(boxes, -EDGE, np.array([image.width, image.height] * 2, np.float32) - EDGE)
    crowd = np.array([person.crowd for person in people], bool)
    doubled = _doubled(boxes, np.array([person.proposed for person in people], bool))
    return BoxPicture(data.path, image, data.checked(image), boxes[~crowd & ~doubled], boxes[crowd])


def _doubled(boxes: FloatArray, teacher: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Teacher boxes of people whom the set itself has boxed (IoU over 0.3, or one mostly inside the other)."""
    if not teacher.any() or teacher.all():
        return np.zeros(len(boxes), bool)
    inner, union = overlaps(boxes, boxes[~teacher])
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    smaller = np.minimum(areas[:, None], areas[~teacher][None])
    close = (inner > 0.3 * union) | (inner > 0.75 * smaller)
    return np.asarray(teacher & close.any(axis=1), np.bool_)


def overlaps(one: FloatArray, other: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Areas of intersection and union, (N, M) each, of two lists of xyxy boxes."""
    side = np.minimum(one[:, None, 2:], other[None, :, 2:]) - np.maximum(one[:, None, :2], other[None, :, :2])
    inner = np.prod(np.maximum(side, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one, other)]
    return inner, areas[0][:, None] + areas[1][None] - inner


def split_held_out(
    sets: Sequence[Sequence[BoxPicture]], source: str, count: int, share: float, sources: Sequence[str]
) -> tuple[list[BoxPicture], list[BoxPicture], list[BoxPicture]]:
    """Pictures for training, those held out (`kept_images` of `source`), and those of `sources`, the unseen cameras."""
    images = [[picture.image for picture in part] for part in sets]
    kept = kept_images(images, source, count, share, sources)
    pictures = [picture for part in sets for picture in part]
    out = set().union(*kept) | {image_name(p.image) for p in pictures if p.source in sources}
    files = {(place, p.image.id): p.encoded for place, part in enumerate(sets) for p in part}
    out |= kept_elsewhere(images, out, lambda place, image: files[place, image.id])
    training = [p for p in pictures if image_name(p.image) not in out]
    held = [p for part, names in zip(sets, kept, strict=True) for p in part if image_name(p.image) in names]
    return training, held, [p for p in pictures if p.source in sources]


def with_guesses(
    picture: BoxPicture, boxes: FloatArray, scores: FloatArray, sure: float, background: float, check: bool = False
) -> BoxPicture:
    """Complete a picture's labels with what a detector says of it: `boxes` (N, 4) and `scores` (N,).

    A detection that no label explains becomes a label where its score is at least `sure`, otherwise a region to ignore;
    the rest of the picture counts as background by `background`. With `check`, a label that no detection supports (a box
    around a crowd, a statue) becomes a region to ignore first.
    """
    labels, ignored = picture.boxes, picture.ignored
    if check:
        inner, union = overlaps(labels, boxes)
        supported = (inner > 0.4 * union).any(axis=1) if len(boxes) else np.zeros(len(labels), bool)
        labels, ignored = labels[supported], np.concatenate([ignored, labels[~supported]])
    inner, union = overlaps(boxes, labels)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)[:, None]
    explained = (
        ((inner > 0.4 * union) | (inner > 0.8 * areas)).any(axis=1) if len(labels) else np.zeros(len(boxes), bool)
    )
    certain = ~explained & (scores >= sure)
    return replace(
        picture,
        boxes=np.concatenate([labels, boxes[certain]]).astype(np.float32),
        ignored=np.concatenate([ignored, boxes[~explained & ~certain]]).astype(np.float32),
        background=background,
    )
