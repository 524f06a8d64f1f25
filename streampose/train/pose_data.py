"""The training set in memory: every person a crop with room to turn, in one uint8 tensor on the training device."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from streampose.errors import ConfigError, DataError
from streampose.evaluate.dataset import KeypointSet, LabelledPerson, numbered_afresh, open_keypoint_set
from streampose.evaluate.keypoints import PreparedCrops, prepare_crops
from streampose.models.manifest import InputSpec
from streampose.pose.crop import crop_affines, cut_crops, map_points
from streampose.pose.skeleton import Skeleton
from streampose.train.augment import PersonBatch
from streampose.train.holdout import image_name, kept_elsewhere, kept_images
from streampose.train.pose_config import HoldoutSpec, SetsRecipe

MARGIN = 1.25
"""A stored crop is that much wider than the network's, so that turning and shrinking finds picture, not black."""


@dataclass(frozen=True, slots=True)
class PersonStore:
    """N people: `crops` (N, S, T, 3) uint8 RGB, `points` (N, K, 2) stored pixels, `weights` (N, K), `human` (N, K) bool,
    `box_px` (N,) height of the box in stored pixels, `sources` the N names of the sets that they come from."""

    crops: Tensor
    points: Tensor
    weights: Tensor
    human: Tensor
    box_px: Tensor
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.crops)

    def batch(self, index: Tensor) -> PersonBatch:
        """The people of `index` (B,)."""
        index = index.to(self.crops.device)
        return PersonBatch(self.crops[index], self.points[index], self.weights[index], self.box_px[index])


def open_sets(recipe: SetsRecipe, skeleton: Skeleton) -> list[KeypointSet]:
    """The recipe's sets, open; raises DataError naming what is wrong with them."""
    names = skeleton.keypoints
    return [
        open_keypoint_set(recipe.found(path), joints=len(names), names=names, images=recipe.pictures)
        for path in recipe.data
    ]


def check_sources(sets: Sequence[KeypointSet], names: Collection[str], key: str) -> None:
    """Raise ConfigError where the option `key` names sources of which the sets have no picture."""
    known = {image.source for data in sets for image in data.images.values()}
    if lost := sorted(set(names) - known):
        raise ConfigError(f"{key}: no picture is of {', '.join(lost)}; the sets have {', '.join(sorted(known))}")


def split_people(
    sets: Sequence[KeypointSet], holdout: HoldoutSpec
) -> tuple[list[list[LabelledPerson]], list[list[LabelledPerson]]]:
    """People for training and people kept for measurement, a list for each set, never two of one picture on both sides.

    Raises DataError where nobody is left to train on, nothing is there to be kept, or a picture cannot be read that may be
    another one.
    """
    images = [list(data.images.values()) for data in sets]
    kept = kept_images(images, holdout.source, holdout.images, holdout.share, holdout.sources)
    out = set().union(*kept) | {
        image_name(image) for part in images for image in part if image.source in holdout.sources
    }
    out |= kept_elsewhere(images, out, lambda place, image: sets[place].encoded(image))
    labelled = [[person for person in data.people if not person.crowd and person.labelled] for data in sets]
    trained = [[person for person in part if image_name(person.image) not in out] for part in labelled]
    measured = [
        [person for person in part if image_name(person.image) in names]
        for part, names in zip(labelled, kept, strict=True)
    ]
    if not any(labelled):
        names = ", ".join(str(data.path) for data in sets)
        raise DataError(f"nobody in {names} has a labelled key point (all v = 0)")
    if not any(trained):
        raise DataError("no labelled person is left to train on; hold out fewer pictures")
    return trained, measured


def load_people(
    sets: Sequence[KeypointSet],
    people: Sequence[Sequence[LabelledPerson]],
    spec: InputSpec,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
    zoom: int = 1,
) -> PersonStore:
    """Cut the stored crops of `people`, a list for each of `sets`, at `zoom` times the resolution of the input `spec`."""
    width, height = round(spec.width * MARGIN * zoom), round(spec.height * MARGIN * zoom)
    count = sum(len(part) for part in people)
    joints = sets[0].joints
    crops = torch.empty((count, height, width, 3), dtype=torch.uint8)
    points = np.zeros((count, joints, 2), np.float32)
    weights = np.zeros((count, joints), np.float32)
    human = np.zeros((count, joints), bool)
    box_px = np.zeros(count, np.float32)
    at = 0
    for data, part in zip(sets, people, strict=True):
        image, picture = None, None
        for person in part:
            if image is None or image.id != person.image.id:
                image, picture = person.image, data.read(person.image)
            assert picture is not None
            affine = crop_affines(person.box, width, height, spec.box_scale * MARGIN)
            crops[at] = torch.from_numpy(cut_crops(picture, affine, width, height)[0, :, :, ::-1].copy())
            points[at] = map_points(affine, person.keypoints[None, :, :2])[0]
            weights[at], human[at] = person.weights, person.human
            box_px[at] = (person.box[3] - person.box[1]) * affine[0, 1, 1]
            at += 1
            if progress is not None:
                progress(1)
    return PersonStore(
        crops=crops.to(device),
        points=torch.from_numpy(points).to(device),
        weights=torch.from_numpy(weights).to(device),
        human=torch.from_numpy(human).to(device),
        box_px=torch.from_numpy(box_px).to(device),
        sources=tuple(person.image.source for part in people for person in part),
    )


def cut_measured(
    sets: Sequence[KeypointSet], people: Sequence[Sequence[LabelledPerson]], spec: InputSpec, height: int | None
) -> PreparedCrops:
    """The crops on which `people`, a list for each of `sets`, are measured, re-imaged `height` px high where it is given.

    The pictures are numbered afresh, since two sets may use one id.
    """
    parts = [prepare_crops(data, part, spec, person_height=height) for data, part in zip(sets, people, strict=True)]
    measured = [person for part in parts for person in part.people]
    images = numbered_afresh(person.image for person in measured)
    return PreparedCrops(
        [replace(person, image=images[id(person.image)]) for person in measured],
        np.concatenate([part.crops for part in parts]),
        np.concatenate([part.to_image for part in parts]),
    )


def digest_of(views: Mapping[str, PreparedCrops]) -> str:
    """What people, of which pictures and in which views, are measured; figures of others cannot be compared."""
    told = sha256()
    for name, crops in views.items():
        told.update(name.encode())
        for person in crops.people:
            told.update(person.image.file.encode(errors="backslashreplace"))
            told.update(person.box.tobytes() + person.keypoints.tobytes())
    return told.hexdigest()
