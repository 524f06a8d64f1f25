"""What the networks answer on labelled pictures: boxes and key points, clean or as a far camera sees each person."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from streampose.errors import DataError, UsageError, words_of
from streampose.evaluate.dataset import EDGE, LabelledPerson, whole
from streampose.evaluate.keypoints import person_scores
from streampose.evaluate.oks import suppress_by_oks
from streampose.evaluate.reimage import reimage_person
from streampose.evaluate.selection import Sample
from streampose.messages import Array, Image
from streampose.pose.crop import invert_affines, map_points
from streampose.pose.skeleton import Skeleton
from streampose.track.association import iou

MOST_POSED = 50
PICTURES_AT_ONCE = 8
PEOPLE_AT_ONCE = 32
CANVAS = (640, 480)  # width and height of the grey picture into which a detector is shown a far person
GREY = 114
LARGEST = 1e6  # pixels, of a box in a file
T = TypeVar("T")
SAME_PERSON_IOU = 0.3


class EstimatesPose(Protocol):
    """Key points (N, K, 3) x, y, score for the boxes (N, 4) of each picture."""

    def __call__(self, images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]: ...


Boxes = list[tuple[Array, Array]]
"""One (boxes (N, 4) xyxy, scores (N,)) a picture."""
FindsPeople = Callable[[Sequence[Image]], Boxes]
BoxesOf = Callable[[Sequence[Sample], Sequence[Image]], Boxes]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """M answers: `image_ids` (M,) int64, `boxes` (M, 4) xyxy, `box_scores` (M,), `keypoints` (M, K, 3) in image pixels.

    `persons` (M,) int64 is the id of the labelled person whose box was asked, -1 where a detector's was. `detections`
    are the boxes of every picture in order, also those of answers that were suppressed.
    """

    image_ids: npt.NDArray[np.int64]
    persons: npt.NDArray[np.int64]
    boxes: Array
    box_scores: Array
    keypoints: Array
    detections: Boxes

    @property
    def scores(self) -> Array:
        """(M,) box score times the mean score of the joints above 0.2."""
        return person_scores(self.keypoints) * self.box_scores


def labelled_boxes(samples: Sequence[Sample], images: Sequence[Image]) -> Boxes:
    """The labelled boxes of the people whose key points are measured, each with score 1."""
    return [(sample.boxes, np.ones(len(sample.boxes), np.float32)) for sample in samples]


def read_detections(path: str | Path, samples: Sequence[Sample]) -> BoxesOf:
    """Boxes out of a file of COCO results (a list of image_id, bbox xywh, score), such as those published with HRNet.

    Those with a `category_id` are taken where it is one of people in the set that has the picture. Raises DataError, also
    where it is of other pictures than the sets of `samples`, and UsageError where two of these sets share ids, by which the
    file names its pictures.
    """
    path = Path(path)
    if any(sample.data.images.get(sample.image.id) is not sample.image for sample in samples):
        raise UsageError(
            f"--boxes {path}: names pictures by their ids, and two of the sets share some; give one --data"
        )
    sets = {id(sample.data): sample.data for sample in samples}.values()
    people_of = {image: data.person_ids for data in sets for image in data.images}
    found: dict[int, list[list[float]]] = {}
    for number, entry in enumerate(_read_list(path)):
        try:
            image, category = whole(entry["image_id"]), entry.get("category_id")
            if category is None or whole(category) in people_of.get(image, ()):
                found.setdefault(image, []).append(_read_row(entry))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise DataError(
                f"{path}: entry {number} is no COCO result with image_id, bbox and score ({error!r:.80})"
            ) from error
    if not any(found.keys() & sample.data.images.keys() for sample in samples):
        ids = ", ".join(map(str, sorted(set().union(*people_of.values()))))
        raise DataError(
            f"{path}: has no person's box (category_id {ids}) for any picture of the set; ids must be the set's"
        )

    def boxes_of(samples: Sequence[Sample], images: Sequence[Image]) -> Boxes:
        rows = [np.array(found.get(sample.image.id, []), np.float32).reshape(-1, 5) for sample in samples]
        return [(each[:, :4], each[:, 4]) for each in rows]

    return boxes_of


def _read_list(path: Path) -> list[Any]:
    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({words_of(error)})") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({words_of(error, 80)})") from error
    if not isinstance(raw, list):
        raise DataError(f"{path}: not COCO results, a list of image_id, bbox and score")
    return raw


def _read_row(entry: dict[str, Any]) -> list[float]:
    """x1, y1, x2, y2, score of a COCO result, as boxes are here; raises ValueError and the like where it is none."""
    x, y, width, height = (float(value) for value in entry["bbox"])
    x, y = x - float(EDGE), y - float(EDGE)
    row = [x, y, x + width, y + height, float(entry["score"])]
    if not all(abs(value) <= LARGEST for value in row):
        raise ValueError("a number is NaN or too large")
    if width < 0 or height < 0:
        raise ValueError("a side is negative")
    return row


def answer(
    samples: Sequence[Sample],
    pose: EstimatesPose,
    skeleton: Skeleton,
    boxes_of: BoxesOf = labelled_boxes,
    progress: Progress | None = None,
) -> Answers:
    """Pose everybody in `boxes_of` each picture; a detector's answers go through OKS-NMS, labelled boxes all stay.

    Of a detector's boxes the surest `MOST_POSED` are posed; COCO's protocol counts the best twenty answers of a picture.
    """
    labelled = boxes_of is labelled_boxes
    parts: list[tuple[Sample, Array, Array, Array]] = []
    detections: Boxes = []
    for chunk in _chunks(samples, PICTURES_AT_ONCE):
        images = [sample.read() for sample in chunk]
        found = boxes_of(chunk, images)
        detections += found
        if not labelled:
            found = [_surest(boxes, scores) for boxes, scores in found]
        points = pose(images, [boxes for boxes, _ in found])
        for sample, (boxes, scores), keypoints in zip(chunk, found, points, strict=True):
            kept = np.arange(len(boxes))
            if not labelled:
                kept = suppress_by_oks(keypoints, person_scores(keypoints) * scores, boxes, skeleton.sigmas)
            parts.append((sample, boxes[kept], scores[kept], keypoints[kept]))
        if progress is not None:
            progress(len(chunk))
    return _answers(parts, len(skeleton.keypoints), detections, labelled)


def _surest(boxes: Array, scores: Array) -> tuple[Array, Array]:
    best = np.argsort(-scores, kind="stable")[:MOST_POSED]
    return boxes[best], scores[best]


def answer_far(
    samples: Sequence[Sample],
    height_px: int,
    pose: EstimatesPose,
    skeleton: Skeleton,
    detector: FindsPeople | None = None,
    progress: Progress | None = None,
) -> Answers:
    """Pose each person re-imaged `height_px` pixels high (`reimage.py`), in pixels of the original picture.

    With a detector the far picture is shown to it at its own size on a grey canvas, and its box that best overlaps the
    person (IoU 0.3 or more) is posed; who is not found has no answer, and others found in that picture do not count.
    """
    people = [(sample, person) for sample in samples for person in sample.posed]
    rows: list[tuple[Sample, LabelledPerson, Array, float, Array]] = []
    for chunk in _chunks(people, PEOPLE_AT_ONCE):
        images: list[Image] = []
        maps = np.empty((len(chunk), 2, 3))
        read: dict[int, Image] = {}
        for index, (sample, person) in enumerate(chunk):
            if sample.image.id not in read:
                read = {sample.image.id: sample.read()}
            far, maps[index] = reimage_person(read[sample.image.id], person.box, height_px, person.id)
            if detector is not None:
                far, moved = _on_canvas(far)
                maps[index, :, 2] += moved
            images.append(far)
        corners = np.stack([person.box.reshape(2, 2) for _, person in chunk])
        boxes = map_points(maps, corners).reshape(-1, 4)
        scores = np.ones(len(chunk), np.float32)
        if detector is not None:
            boxes, scores = _matching(detector(images), boxes)
        asked: list[int] = np.flatnonzero(scores > 0).tolist()
        points = pose([images[i] for i in asked], [boxes[i : i + 1] for i in asked])
        back = invert_affines(maps)
        for i, found in zip(asked, points, strict=True):
            found = found.copy()
            found[..., :2] = map_points(back[i : i + 1], found[..., :2])
            box = map_points(back[i : i + 1], boxes[i].reshape(1, 2, 2)).reshape(4)
            rows.append((*chunk[i], box, float(scores[i]), found[0]))
        if progress is not None:
            progress(len(chunk))
    joints = len(skeleton.keypoints)
    return Answers(
        np.array([sample.image.id for sample, *_ in rows], np.int64),
        np.array([person.id for _, person, *_ in rows], np.int64),
        np.array([box for *_, box, _, _ in rows], np.float32).reshape(-1, 4),
        np.array([score for *_, score, _ in rows], np.float32),
        np.array([points for *_, points in rows], np.float32).reshape(-1, joints, 3),
        [],
    )


def _answers(
    parts: Sequence[tuple[Sample, Array, Array, Array]], joints: int, detections: Boxes, labelled: bool
) -> Answers:
    persons = [[p.id for p in s.posed] if labelled else [-1] * len(b) for s, b, _, _ in parts]
    return Answers(
        np.array([sample.image.id for sample, boxes, _, _ in parts for _ in boxes], np.int64),
        np.array([who for each in persons for who in each], np.int64),
        np.concatenate([boxes for _, boxes, _, _ in parts]).astype(np.float32),
        np.concatenate([scores for _, _, scores, _ in parts]).astype(np.float32),
        np.concatenate([points for *_, points in parts]).reshape(-1, joints, 3),
        detections,
    )


def _on_canvas(far: Image) -> tuple[Image, npt.NDArray[np.float64]]:
    """`far` in the middle of a grey picture at least as large as it, and by how much it moved, (2,) x, y."""
    height, width = far.shape[:2]
    size = max(CANVAS[0], width), max(CANVAS[1], height)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    canvas = np.full((size[1], size[0], 3), GREY, np.uint8)
    canvas[top : top + height, left : left + width] = far
    return canvas, np.array([left, top], np.float64)


def _matching(found: Boxes, wanted: Array) -> tuple[Array, Array]:
    """For each wanted box (N, 4) the found one that overlaps it best, and its score; score 0 where none does."""
    boxes, scores = wanted.copy(), np.zeros(len(wanted), np.float32)
    for index, (candidates, their_scores) in enumerate(found):
        if len(candidates):
            overlap = iou(wanted[index : index + 1], candidates)[0]
            best = int(overlap.argmax())
            if overlap[best] >= SAME_PERSON_IOU:
                boxes[index], scores[index] = candidates[best], their_scores[best]
    return boxes, scores


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
