"""COCO-format key point sets, from a folder or a zip, checked while they are read.

COCO's boxes lie between the edges of pixels, its key points on pixels: a box that goes round the one pixel (0, 0) is
[0, 0, 1, 1], a key point on it (0, 0). Here both count from the centre of the top-left pixel, as everywhere.

A set is `annotations.json` beside the pictures it names, or a zip, or a JSON and a folder named apart (set_files.py).
Beyond COCO's fields, an annotation may carry `scores` and `agreement` (K,) in 0..1, how sure each label is, and `labels`,
who made it: "teacher" for a network, "human12+teacher-face" for people except the face, and `from`, who drew its box,
"teacher" for a network; without them people did. Where 133 key points are asked for they may stand as COCO-WholeBody has
them, 17 in `keypoints` and the rest in fields of their own. A picture that is listed twice is one, with the people of all
its entries, each once (listed_twice.py). Every fault found is one line.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from posixpath import normpath
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from streampose.detect.names import is_person
from streampose.errors import DataError, words_of
from streampose.evaluate.listed_twice import once_each
from streampose.evaluate.set_files import SetFiles
from streampose.sources.images import orientation_of

log = logging.getLogger(__name__)

STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # labels are of the pixels as they are stored, as COCO's are
UPRIGHT = 1
SIDEWAYS = 5
"""From this EXIF orientation on width and height change places (TIFF 6.0)."""
EDGE = np.float32(0.5)
"""A pixel's centre lies so far from its left and upper edge, from where COCO counts boxes."""
FAR = 10
"""A point so many times the picture's longer side from its corner is no label of it; people may reach out of a picture."""
FACE = 5
"""The first five key points of a person are the face, in COCO's order."""
WHOLE_BODY = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
"""COCO-WholeBody's fields of an annotation, in the order of its 133 key points, and how many of them each has."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A picture of the set; `file` is its name inside the set, `source` where it came from (a split, a camera), else the
    set's own name."""

    id: int
    file: str
    width: int
    height: int
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPerson:
    """A person of the set. `box` (4,) xyxy float32 in image pixels, from the centre of the top-left one; `keypoints` (K, 3)
    x, y, v float32 with COCO's v (0 not labelled, 1 hidden, 2 seen); `weights` (K,) in 0..1 how far each label is to be
    trusted; `human` (K,) bool whether people made it; `proposed` whether a network drew the box."""

    id: int
    image: LabelledImage
    box: npt.NDArray[np.float32]
    keypoints: npt.NDArray[np.float32]
    area: float
    crowd: bool
    weights: npt.NDArray[np.float32]
    human: npt.NDArray[np.bool_]
    proposed: bool = False

    @property
    def labelled(self) -> int:
        """Number of key points that have a label."""
        return int((self.keypoints[:, 2] > 0).sum())


@dataclass(slots=True)
class KeypointSet:
    """An open set: its people and its pictures, read on demand. Use as a with-block or call `close`."""

    path: Path
    images: dict[int, LabelledImage]
    people: list[LabelledPerson]
    joints: int
    files: SetFiles
    person_ids: frozenset[int] = frozenset({1})
    """Ids of the categories of people: of those called so, else of all; COCO's where the set lists none."""
    unturned: set[int] = field(default_factory=set)
    """Ids of the pictures read whose EXIF asks for a turn that their size cannot confirm, and that are read as stored."""

    def read(self, image: LabelledImage) -> npt.NDArray[np.uint8]:
        """The picture (H, W, 3) BGR; raises DataError where it is missing or does not decode."""
        return self._decoded(self.encoded(image), image)

    def checked(self, image: LabelledImage) -> bytes:
        """The picture's file as it lies there, of which `read` would make a picture; raises DataError as that does."""
        data = self.encoded(image)
        self._decoded(data, image)
        return data

    def _decoded(self, data: bytes, image: LabelledImage) -> npt.NDArray[np.uint8]:
        picture = decode_picture(data, image, self.path)
        orientation = orientation_of(data)
        if UPRIGHT < orientation < SIDEWAYS or (orientation >= SIDEWAYS and image.width == image.height):
            self.unturned.add(image.id)
        return picture

    def encoded(self, image: LabelledImage) -> bytes:
        """The picture's file as it lies there; raises DataError where it is missing or cannot be read."""
        try:
            return self.files.read(image.file)
        except DataError as fault:
            raise DataError(f"{self.path}: image {image.id}: {fault}") from fault

    def close(self) -> None:
        """Close the archive, and say how many pictures were read that may be meant turned."""
        self.files.close()
        if self.unturned:
            log.warning(
                "%s: EXIF turns or mirrors %d pictures, which is not applied: labels are taken to be of the stored pixels",
                self.path,
                len(self.unturned),
            )
            self.unturned.clear()

    def __enter__(self) -> KeypointSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def numbered_afresh(images: Iterable[LabelledImage]) -> dict[int, LabelledImage]:
    """By the `id()` of each picture, the same with 1, 2, … as its id: two sets may use one."""
    apart = {id(image): image for image in images}
    return {key: replace(image, id=number) for number, (key, image) in enumerate(apart.items(), 1)}


def decode_picture(data: bytes, image: LabelledImage, path: Path) -> npt.NDArray[np.uint8]:
    """The picture (H, W, 3) BGR in the file `data` of `image`, a picture of the set `path`: as it is stored, or turned as
    its EXIF says where only then it has the size that was announced. Raises DataError where it is none, or of another size.
    """
    size = (image.height, image.width)
    pixels = np.frombuffer(data, np.uint8)
    picture = cv2.imdecode(pixels, STORED) if data else None
    if picture is not None and picture.shape[:2] == size[::-1] != size and orientation_of(data) >= SIDEWAYS:
        picture = cv2.imdecode(pixels, cv2.IMREAD_COLOR)
    if picture is None:
        raise DataError(f"{path}: image {image.id}: {image.file} does not decode as a picture")
    if picture.shape[:2] != size:
        found = f"{picture.shape[1]}x{picture.shape[0]}"
        raise DataError(
            f"{path}: image {image.id}: {image.file} is {found}, its annotation says {image.width}x{image.height}"
        )
    return np.asarray(picture, np.uint8)


def open_keypoint_set(
    path: str | Path,
    *,
    joints: int,
    names: Sequence[str] = (),
    images: str | Path | None = None,
    boxes_only: bool = False,
) -> KeypointSet:
    """Open a folder with `annotations.json`, a zip, or a JSON file whose pictures lie in the folder `images` or beside it.

    With `boxes_only` annotations need no key points; those without have none labelled. With 0 `joints` no key point is
    read. Where the set says what its key points are called and all are among `names`, they are put into the order of these.
    Where it has a category called person, annotations of other categories are left out. Raises DataError naming every fault
    found (at most ten), one line each.
    """
    path = Path(path)
    files = SetFiles(path, Path(images) if images else None)
    try:
        try:
            raw = json.loads(files.annotations())
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: annotations are not JSON ({words_of(error)})") from error
        faults: list[str] = []
        listed = _read_images(raw, _name_of(path.absolute()), faults)
        pictures = {image.id: image for image in listed.values()}
        if again := [number for number, image in listed.items() if number != image.id]:
            log.warning(
                "%s: lists %d pictures more than once (%s as %d and %d); each is one, of its first id and source, with the "
                "people of all its entries",
                path, len(again), listed[again[0]].file, listed[again[0]].id, again[0],
            )  # fmt: skip
        missing = set(files.find([image.file for image in pictures.values()]))
        faults += [f"image {each.id}: {each.file} is missing" for each in pictures.values() if each.file in missing]
        order = _order(raw, list(names), path, faults) if joints else None
        person_ids = _person_ids(raw, faults)
        people = once_each(_read_people(raw, listed, joints, boxes_only, person_ids, faults), path)
        if order is not None:
            people = [_reordered(person, order) for person in people]
        if not people and not faults:
            faults.append("no annotated person in it")
        raise_faults(faults, f"{path}: ")
    except BaseException:
        files.close()
        raise
    return KeypointSet(path, pictures, people, joints, files, person_ids or frozenset({1}))


def raise_faults(faults: Sequence[str], where: str = "") -> None:
    """Raise DataError, a line that begins with `where` for each of the first ten `faults`, where there are any."""
    if faults:
        more = [f"... and {len(faults) - 10} more"] if len(faults) > 10 else []
        raise DataError(*(where + line for line in [*faults[:10], *more]))


def _name_of(path: Path) -> str:
    """What pictures of the set `path` have as their source: a file's name without its ending, or a folder's."""
    return path.stem if path.is_file() or path.suffix.lower() in (".json", ".zip") else path.name


def whole(value: Any) -> int:
    """`value` as a whole number of 64 bits, in whatever form a tool writes it: 7, 7.0, "7". Raises ValueError."""
    fault = ValueError(f"{value!r:.40} is no whole number of 64 bits")
    exact = isinstance(value, int) or (isinstance(value, str) and value.strip().lstrip("+-").isdecimal())
    try:
        number = int(value) if exact else float(value)
        known = int(number)
    except (TypeError, ValueError, OverflowError) as error:
        raise fault from error
    if known != number or not -(2**63) <= known < 2**63:
        raise fault
    return known


def _duplicates(ids: Iterable[Any]) -> list[Any]:
    return [item for item, count in Counter(ids).items() if count > 1]


def _read_images(raw: Any, name: str, faults: list[str]) -> dict[int, LabelledImage]:
    """The pictures by the ids in the JSON; one that is listed under several is there by each."""
    if (
        not isinstance(raw, dict)
        or not isinstance(raw.get("images"), list)
        or not isinstance(raw.get("annotations"), list)
    ):
        faults.append("the JSON needs the lists `images` and `annotations` (COCO format)")
        return {}
    images: dict[int, LabelledImage] = {}
    of_file: dict[str, LabelledImage] = {}
    for entry in raw["images"]:
        try:
            image = LabelledImage(
                whole(entry["id"]), str(entry["file_name"]), whole(entry["width"]), whole(entry["height"]),
                str(entry.get("source") or entry.get("split") or name),
            )  # fmt: skip
            if min(image.width, image.height) < 1:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            faults.append(f"image {entry!r:.80} lacks a good id, file_name, width or height")
            continue
        if image.id in images:
            faults.append(f"image {image.id}: id given twice")
        first = of_file.setdefault(normpath(image.file.replace("\\", "/")), image)
        if (image.width, image.height) != (first.width, first.height):
            faults.append(f"image {image.id}: {image.file} is image {first.id} too, and of another size there")
        images[image.id] = first
    return images


def _read_people(
    raw: Any,
    images: dict[int, LabelledImage],
    joints: int,
    boxes_only: bool,
    person_ids: frozenset[int],
    faults: list[str],
) -> list[tuple[int, LabelledPerson]]:
    """Each person and by which id of its picture."""
    people: list[tuple[int, LabelledPerson]] = []
    annotations = raw.get("annotations") if isinstance(raw, dict) else None
    if not isinstance(annotations, list):
        return people
    entries = []
    for entry in annotations:
        with suppress(TypeError, KeyError, ValueError):
            entries.append({**entry, "id": whole(entry["id"])})
    if len(entries) < len(annotations):
        faults.append(f"{len(annotations) - len(entries)} annotations are no objects with a whole number as id")
    faults.extend(f"annotation {again}: id given twice" for again in _duplicates(entry["id"] for entry in entries))
    for entry in _of_people(raw, entries, person_ids, faults):
        if boxes_only and not entry.get("keypoints"):
            entry = {**entry, "keypoints": [0.0] * (3 * joints)}
        try:
            person = _read_person(entry, images, joints)
            people.append((whole(entry["image_id"]), person))
        except DataError as error:
            faults.append(str(error))
    return people


def _categories(raw: Any) -> list[dict[str, Any]]:
    """The categories of people of a COCO set: those called so, or all where none is."""
    listed = raw.get("categories") if isinstance(raw, dict) else None
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return [entry for entry in entries if is_person(entry.get("name"))] or entries


def _person_ids(raw: Any, faults: list[str]) -> frozenset[int]:
    """Ids of the categories of people (`_categories`); a fault where one that is called so has none."""
    people = _categories(raw)
    if len(people) > 1 and not _any_called(people):
        names = ", ".join(str(entry.get("name")) for entry in people[:6])
        log.warning("no category is called person; all are taken for people: %s", names)
    known: set[int] = set()
    for entry in people:
        try:
            known.add(whole(entry.get("id")))
        except ValueError as error:
            if is_person(entry.get("name")):
                faults.append(f"category {entry.get('name')}: id {error}")
    return frozenset(known)


def _any_called(categories: Iterable[dict[str, Any]]) -> bool:
    return any(is_person(entry.get("name")) for entry in categories)


def _of_people(
    raw: Any, annotations: Iterable[dict[str, Any]], person_ids: frozenset[int], faults: list[str]
) -> Iterator[dict[str, Any]]:
    """Those annotations of a COCO set that are of a category of people, or of none; a fault where that cannot be told."""
    called = _any_called(_categories(raw))
    for annotation in annotations:
        category = annotation.get("category_id")
        try:
            if not called or category is None or whole(category) in person_ids:
                yield annotation
        except ValueError as error:
            faults.append(f"annotation {annotation['id']}: category_id {error}")


def _order(raw: Any, names: list[str], path: Path, faults: list[str]) -> list[int] | None:
    """Where the set keeps each of `names`, where it has them in another order; a fault where it has only some of them, and
    in other places. A set that calls them by words of its own is taken to have them in order."""
    wanted = [_bare(name) for name in names]
    for entry in _categories(raw):
        listed = entry.get("keypoints")
        called = listed if isinstance(listed, list) else []
        theirs = [_bare(name) for name in called]
        if len(theirs) != len(wanted) or theirs == wanted:
            continue  # another number is said where it is met, at an annotation
        if sorted(theirs) == sorted(wanted):
            log.warning("%s: has the key points in another order; they are taken by their names", path)
            return [theirs.index(name) for name in wanted]
        if moved := [name for at, name in enumerate(theirs) if name in wanted and wanted[at] != name]:
            at = theirs.index(moved[0])
            faults.append(
                f"key point {at + 1} is called {called[at]}, and {names[at]} in the skeleton; all have to be called as "
                "there, or none"
            )
            break
    return None


def _bare(name: object) -> str:
    """A key point's name as it is compared: "Left Eye" is "left_eye"."""
    return re.sub(r"[\s_-]+", "", str(name)).lower()


def _reordered(person: LabelledPerson, order: list[int]) -> LabelledPerson:
    changes = {name: getattr(person, name)[order] for name in ("keypoints", "weights", "human")}
    return replace(person, **changes)


def _points(entry: dict[str, Any], joints: int) -> list[Any]:
    """x, y, v of the key points of an annotation; those of COCO-WholeBody's fields in a row, where they are wanted."""
    if not joints:
        return []
    points: list[Any] = entry["keypoints"]
    if (
        joints != sum(WHOLE_BODY.values())
        or len(points) != 3 * WHOLE_BODY["keypoints"]
        or not entry.keys() >= WHOLE_BODY.keys()
    ):
        return points
    return [value for field in WHOLE_BODY for value in entry[field]]


def _read_person(entry: dict[str, Any], images: dict[int, LabelledImage], joints: int) -> LabelledPerson:
    name = f"annotation {entry.get('id')}"
    try:
        image = images[whole(entry.get("image_id"))]
    except (KeyError, ValueError):
        raise DataError(f"{name}: no image {entry.get('image_id')!r:.40} in this set") from None
    try:
        crowd = bool(whole(entry.get("iscrowd") or 0))
    except ValueError as error:
        raise DataError(f"{name}: iscrowd {error}") from None
    try:
        box = np.asarray(entry["bbox"], np.float32).reshape(4)
        keypoints = np.asarray(_points(entry, joints), np.float32).reshape(-1, 3)
    except (KeyError, TypeError, ValueError):
        wanted = "bbox [x, y, w, h] and keypoints [x, y, v, ...]" if joints else "bbox [x, y, w, h]"
        raise DataError(f"{name}: needs {wanted}") from None
    if len(keypoints) != joints:
        raise DataError(f"{name}: {len(keypoints)} key points, the skeleton has {joints}")
    if not (np.isfinite(box).all() and np.isfinite(keypoints).all()):
        raise DataError(f"{name}: a number is NaN or infinite")
    if not (box[2] > 0 and box[3] > 0):
        raise DataError(f"{name}: box {box.tolist()} has no width or height")
    box[2:] += box[:2]
    if box[0] >= image.width or box[1] >= image.height or box[2] <= 0 or box[3] <= 0:
        raise DataError(f"{name}: box {box.tolist()} lies outside its {image.width}x{image.height} image")
    if not np.isin(keypoints[:, 2], (0, 1, 2)).all():
        raise DataError(f"{name}: visibility must be 0, 1 or 2")
    far = np.abs(keypoints[:, :2]).max(axis=1, initial=0) > FAR * max(image.width, image.height)
    if far.any():
        point = keypoints[far][0, :2].tolist()
        raise DataError(f"{name}: key point {point} lies far outside its {image.width}x{image.height} image")
    weights = np.ones(joints, np.float32)
    for key in ("scores", "agreement") if joints else ():
        if key in entry:
            try:
                factor = np.asarray(entry[key], np.float32)
            except (TypeError, ValueError):
                factor = np.zeros(0, np.float32)
            if factor.shape != (joints,) or not (np.isfinite(factor).all() and (factor >= 0).all()):
                raise DataError(f"{name}: {key} must be {joints} numbers in 0..1")
            weights *= np.minimum(factor, 1.0)  # a heatmap's peak may pass 1 a little
    maker = str(entry.get("labels", "human"))
    human = np.full(joints, maker.startswith("human"))
    if "teacher-face" in maker:
        human[:FACE] = False
    weights[human] = 1.0
    weights[keypoints[:, 2] == 0] = 0.0
    area = entry.get("area") or 0.505 * float((box[2] - box[0]) * (box[3] - box[1]))
    if not isinstance(area, int | float) or not (math.isfinite(area) and area > 0):
        raise DataError(f"{name}: area {area!r:.40}: a number above zero is wanted")
    proposed = entry.get("from") == "teacher"
    return LabelledPerson(entry["id"], image, box - EDGE, keypoints, float(area), crowd, weights, human, proposed)
