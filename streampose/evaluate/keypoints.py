"""OKS-AP of a pose network on labelled people, with their labelled boxes or with given ones.

The protocol is COCO's (Lin et al., 2014), counted by faster-coco-eval; a person's score is the mean of the joint
scores above 0.2 times the box's score, as published with HRNet. `prepare_crops` cuts what the network sees once, clean
or as a far camera sees it, so that training can measure the same crops again and again.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.evaluate.counting import coco_counting
from streampose.evaluate.dataset import KeypointSet, LabelledPerson
from streampose.evaluate.reimage import reimage_person
from streampose.models.manifest import InputSpec, OutputSpec
from streampose.pose.crop import crop_affines, cut_crops, invert_affines, map_points
from streampose.pose.decode import decode_heatmaps
from streampose.pose.flip import merge_flipped, mirror_columns
from streampose.pose.skeleton import Skeleton

JOINT_SCORE_FLOOR = 0.2
Network = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""(B, H, W, 3) uint8 BGR crops to heatmaps (B, K, h, w) float32."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedCrops:
    """N people ready for a network: `crops` (N, H, W, 3) uint8 BGR and `to_image` (N, 2, 3), crop to image pixels."""

    people: list[LabelledPerson]
    crops: npt.NDArray[np.uint8]
    to_image: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class KeypointFigures:
    """COCO's key point figures, fractions in 0..1, over `people` persons."""

    ap: float
    ap50: float
    ap75: float
    ap_medium: float
    ap_large: float
    ar: float
    people: int

    def as_dict(self) -> dict[str, float]:
        """Plain numbers by name."""
        return {name: round(float(value), 5) for name, value in asdict(self).items()}


def measurable(people: Sequence[LabelledPerson]) -> list[LabelledPerson]:
    """Those that COCO measures: not a crowd, at least one key point labelled."""
    return [person for person in people if not person.crowd and person.labelled]


def prepare_crops(
    data: KeypointSet,
    people: Sequence[LabelledPerson],
    spec: InputSpec,
    *,
    person_height: int | None = None,
    boxes: npt.NDArray[np.float32] | None = None,
) -> PreparedCrops:
    """Cut the crops of `people` by their own boxes, or by `boxes` (N, 4) xyxy.

    With `person_height` each person is re-imaged first so that the labelled box is that many pixels high (reimage.py).
    """
    crops = np.empty((len(people), spec.height, spec.width, 3), np.uint8)
    to_image = np.empty((len(people), 2, 3))
    cached: tuple[int, npt.NDArray[np.uint8]] | None = None
    for index, person in enumerate(people):
        if cached is None or cached[0] != person.image.id:
            cached = person.image.id, data.read(person.image)
        picture = cached[1]
        box = person.box if boxes is None else boxes[index]
        if person_height is None:
            affine = crop_affines(box, spec.width, spec.height, spec.box_scale)
            to_image[index] = invert_affines(affine)[0]
        else:
            picture, far = reimage_person(picture, person.box, person_height, person.id)
            far_box = map_points(far[None], box.reshape(1, 2, 2)).reshape(4)
            affine = crop_affines(far_box, spec.width, spec.height, spec.box_scale)
            to_image[index] = _chain(invert_affines(far[None])[0], invert_affines(affine)[0])
        crops[index] = cut_crops(picture, affine, spec.width, spec.height)[0]
    return PreparedCrops(list(people), crops, to_image)


def _chain(after: npt.NDArray[np.float64], first: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The affine map that does `first`, then `after`."""
    return np.asarray(np.hstack((after[:, :2] @ first[:, :2], (after[:, :2] @ first[:, 2:]) + after[:, 2:])))


def predict_keypoints(
    prepared: PreparedCrops,
    network: Network,
    output: OutputSpec,
    *,
    flip_order: npt.NDArray[np.int64] | None = None,
    batch: int = 32,
    progress: Callable[[int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """Key points (N, K, 3) in image pixels; with `flip_order` the mirrored crops are asked too (flip test)."""
    found: list[npt.NDArray[np.float32]] = []
    for start in range(0, len(prepared.people), batch):
        crops = prepared.crops[start : start + batch]
        heatmaps = network(crops)
        if flip_order is not None:
            mirrored = network(crops[:, :, mirror_columns(crops.shape[2], output)])
            heatmaps = merge_flipped(heatmaps, mirrored, flip_order, output)
        points = decode_heatmaps(heatmaps, output)
        points[..., :2] = map_points(prepared.to_image[start : start + batch], points[..., :2])
        found.append(points)
        if progress is not None:
            progress(len(crops))
    return np.concatenate(found) if found else np.zeros((0, 0, 3), np.float32)


def person_scores(keypoints: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N,) mean score of the joints over 0.2, zero where there is none, for `keypoints` (N, K, 3)."""
    scores = keypoints[..., 2]
    sure = scores > JOINT_SCORE_FLOOR
    return np.asarray((scores * sure).sum(1) / np.maximum(sure.sum(1), 1), np.float32)


def score_keypoints(
    people: Sequence[LabelledPerson],
    image_ids: Sequence[int],
    keypoints: npt.NDArray[np.float32],
    skeleton: Skeleton,
    box_scores: npt.NDArray[np.float32] | None = None,
) -> KeypointFigures:
    """COCO figures of `keypoints` (N, K, 3), found in the images `image_ids` (N), against the labels of `people`.

    Raises UsageError where faster-coco-eval is not installed.
    """
    COCO, COCOeval_faster = coco_counting()
    total = person_scores(keypoints) * (1.0 if box_scores is None else box_scores)
    truth = {
        "info": {},
        "images": [{"id": image} for image in sorted({person.image.id for person in people} | set(image_ids))],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [_truth(person, number) for number, person in enumerate(people, 1)],
    }
    results = [
        {"image_id": int(image), "category_id": 1, "keypoints": points.reshape(-1).tolist(), "score": float(score)}
        for image, points, score in zip(image_ids, keypoints, total, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO(truth)
        counted = COCOeval_faster(
            labels, labels.loadRes(results), "keypoints", kpt_oks_sigmas=skeleton.sigmas.astype(float).tolist()
        )
        counted.run()
    stats: Any = np.maximum(np.asarray(counted.stats, float), 0.0)
    return KeypointFigures(
        ap=stats[0],
        ap50=stats[1],
        ap75=stats[2],
        ap_medium=stats[3],
        ap_large=stats[4],
        ar=stats[5],
        people=len(people),
    )


def _truth(person: LabelledPerson, number: int) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(value) for value in person.box)
    return {
        "id": number,
        "image_id": person.image.id,
        "category_id": 1,
        "iscrowd": int(person.crowd),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": person.area,
        "num_keypoints": person.labelled,
        "keypoints": person.keypoints.reshape(-1).tolist(),
    }


def measure(
    prepared: PreparedCrops,
    network: Network,
    output: OutputSpec,
    skeleton: Skeleton,
    *,
    flip_test: bool = False,
    batch: int = 32,
) -> KeypointFigures:
    """OKS-AP of `network` on prepared crops, each person's labelled box giving one answer."""
    order = skeleton.flip_order if flip_test else None
    keypoints = predict_keypoints(prepared, network, output, flip_order=order, batch=batch)
    return score_keypoints(prepared.people, [person.image.id for person in prepared.people], keypoints, skeleton)
