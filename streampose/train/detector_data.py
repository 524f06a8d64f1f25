"""Pictures with person boxes for the detector's training: COCO-format zips or folders, read once into memory, encoded.

Every oddity of a data set ends in one line: a missing picture or annotation file, no people, NaN, a box without area,
an id given twice, an entry that lacks something.
"""

from __future__ import annotations

import json
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from streampose.errors import DataError
from streampose.evaluate.dataset import STORED, of_people

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class BoxPicture:
    """One labelled picture.

    `encoded` is the picture file's bytes. `boxes` (N, 4) xyxy pixels, centre of the top-left pixel (0, 0); `ignored`
    (M, 4) regions of which nothing is known. `background` in 0..1 is how far "no box here" may be believed.
    `source` names the set the picture comes from.
    """

    key: str
    encoded: bytes
    width: int
    height: int
    source: str
    boxes: FloatArray
    ignored: FloatArray
    background: float = 1.0

    def decode(self) -> npt.NDArray[np.uint8]:
        """The picture, (H, W, 3) BGR uint8; raises DataError where it is not one of the size that was announced."""
        image = cv2.imdecode(np.frombuffer(self.encoded, np.uint8), STORED)
        if image is None:
            raise DataError(f"{self.key}: not a picture that can be decoded")
        if image.shape[:2] != (self.height, self.width):
            found = f"{image.shape[1]}x{image.shape[0]}"
            raise DataError(f"{self.key}: is {found}, its annotation says {self.width}x{self.height}")
        return np.asarray(image, np.uint8)


def read_set(path: str | Path) -> list[BoxPicture]:
    """Read a zip or a folder with one `annotations.json` (COCO form) and its pictures; raises DataError, in one line."""
    path = Path(path)
    if path.is_dir():
        return _pictures(path, _parse((path / "annotations.json"), _read_file(path / "annotations.json")), None)
    try:
        with zipfile.ZipFile(path) as archive:
            if "annotations.json" not in archive.namelist():
                raise DataError(f"{path}: has no annotations.json")
            return _pictures(path, _parse(path, archive.read("annotations.json")), archive)
    except FileNotFoundError:
        raise DataError(f"{path}: no such data set; give a zip or a folder with annotations.json") from None
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: not a readable zip ({error})") from error


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text)
        if not isinstance(data["images"], list) or not isinstance(data["annotations"], list):
            raise TypeError("images and annotations must be lists")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: annotations are not COCO JSON ({error})") from error
    return dict(data)


def _pictures(path: Path, data: dict[str, Any], archive: zipfile.ZipFile | None) -> list[BoxPicture]:
    people: dict[int, list[dict[str, Any]]] = defaultdict(list)
    _complete(path, "image", data["images"], {"id": int, "file_name": str, "width": int, "height": int})
    _complete(path, "annotation", data["annotations"], {"id": int, "image_id": int, "bbox": list})
    for annotation in of_people(data, data["annotations"]):
        people[annotation["image_id"]].append(annotation)
    ids = [image["id"] for image in data["images"]]
    if orphans := people.keys() - set(ids):
        raise DataError(f"{path}: {len(orphans)} annotations name pictures that are not listed (id {min(orphans)} …)")
    if not people:
        raise DataError(f"{path}: no person is labelled in it")
    return [_picture(path, image, people[image["id"]], archive) for image in data["images"]]


def _complete(path: Path, kind: str, entries: list[Any], wanted: dict[str, type]) -> None:
    """Raise DataError for the first entry that lacks a wanted field, or has an id that another one has."""
    seen: set[int] = set()
    for entry in entries:
        lacking = [k for k, v in wanted.items() if not isinstance(entry, dict) or not isinstance(entry.get(k), v)]
        if lacking:
            raise DataError(f"{path}: {kind} {entry!s:.60} has no good `{lacking[0]}`")
        if entry["id"] in seen:
            raise DataError(f"{path}: {kind} {entry['id']}: id given twice")
        seen.add(entry["id"])


def _picture(
    path: Path, image: dict[str, Any], people: list[dict[str, Any]], archive: zipfile.ZipFile | None
) -> BoxPicture:
    name = image["file_name"]
    try:
        encoded = archive.read(name) if archive else (path / name).read_bytes()
    except (KeyError, OSError) as error:
        raise DataError(f"{path}: the picture {name} is listed but missing") from error
    try:
        boxes = np.array([person["bbox"] for person in people], np.float64).reshape(-1, 4)
    except (TypeError, ValueError):
        raise DataError(f"{path}: {name}: a bbox is not [x, y, width, height]") from None
    if not np.isfinite(boxes).all():
        raise DataError(f"{path}: {name}: a box is not a number")
    if (boxes[:, 2:] <= 0).any():
        raise DataError(f"{path}: {name}: a box has no area: {boxes[(boxes[:, 2:] <= 0).any(axis=1)][0].tolist()}")
    boxes[:, 2:] += boxes[:, :2]
    boxes = np.clip(boxes, 0, [image["width"], image["height"]] * 2) - 0.5
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    crowd = np.array([bool(person.get("iscrowd", 0)) for person in people], bool).reshape(-1)
    teacher = np.array([person.get("from") == "teacher" for person in people], bool).reshape(-1)
    corners, crowd, teacher = boxes[inside].astype(np.float32), crowd[inside], teacher[inside]
    doubled = _doubled(corners, teacher)
    source = str(image.get("source") or image.get("split") or path.stem)
    return BoxPicture(
        f"{path.stem}/{name}", encoded, image["width"], image["height"], source,
        corners[~crowd & ~doubled], corners[crowd],
    )  # fmt: skip


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
    pictures: Sequence[BoxPicture], last_val: int, sources: Sequence[str]
) -> tuple[list[BoxPicture], list[BoxPicture], list[BoxPicture]]:
    """Training pictures, held-out val2017 pictures (those `last_val` with the highest ids), and pictures of `sources`."""
    val = sorted((p for p in pictures if p.source == "val2017"), key=lambda p: p.key.rsplit("/", 1)[-1])
    held = {p.key for p in val[len(val) - min(last_val, len(val)) :]}
    kept = [p for p in pictures if p.key not in held and p.source not in sources]
    return kept, [p for p in val if p.key in held], [p for p in pictures if p.source in sources]


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
