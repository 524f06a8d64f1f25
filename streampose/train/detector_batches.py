"""The detector's batches: which pictures, in which order; each batch a pure function of the recipe and its number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from streampose.errors import DataError
from streampose.train.detector_augment import Sample, make_sample
from streampose.train.detector_config import DataOptions, Recipe
from streampose.train.detector_data import BoxPicture, with_guesses


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is trained on, measured on, and the unseen cameras."""

    training: list[BoxPicture]
    held_out: list[BoxPicture]
    unseen: list[BoxPicture]


class Batches:
    """Batch `first` + n of a recipe at index n: a sequence, as torch's DataLoader takes it."""

    def __init__(self, pictures: list[BoxPicture], recipe: Recipe, first: int) -> None:
        self.pictures, self.recipe, self.first = pictures, recipe, first
        chances = np.array([recipe.data.weights.get(p.source, 1.0) for p in pictures], np.float64)
        self.chances = chances / chances.sum()

    def __len__(self) -> int:
        return max(0, self.recipe.steps - self.first)

    def __getitem__(self, index: int) -> list[Sample]:
        rng = np.random.default_rng([self.recipe.seed, self.first + index])
        width, height = self.recipe.canvases[int(rng.integers(len(self.recipe.canvases)))]
        samples = []
        for _ in range(self.recipe.batch):
            count = 4 if rng.random() < self.recipe.augment.mosaic else 1
            chosen = rng.choice(len(self.pictures), count, p=self.chances)
            drawn = [self.pictures[k] for k in chosen]
            samples.append(make_sample(drawn, width, height, self.recipe.augment, rng, self.recipe.teacher_share > 0))
        return samples


class TellingBatches:
    """Batches of which a fault is given, not raised: out of another process it would come with that one's traceback."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> list[Sample] | DataError:
        try:
            return self._batches[index]
        except DataError as fault:
            return fault


def start_worker(_: int) -> None:
    """One core for one worker."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def complete_labels(
    training: list[BoxPicture], guesses: Mapping[str, npt.NDArray[np.floating]], options: DataOptions
) -> list[BoxPicture]:
    """Labels completed with `guesses`, by key: (N, 5) of what the start found, boxes xyxy and score.

    In sources whose labels are incomplete, a sure guess becomes a label, and a label that the start sees nothing of
    becomes a region to ignore. In crowds of fully labelled sources it only
    becomes a region to ignore, for who stands there may be one of a crowd that nobody counted.
    """
    completed = []
    for picture in training:
        if picture.key in guesses:
            rows = np.asarray(guesses[picture.key], np.float32)
            incomplete = picture.source in options.guess_sources
            rows = rows[rows[:, 4] >= (options.guess_doubt if incomplete else options.crowd_doubt)]
            sure = options.guess_sure if incomplete else np.inf
            background = options.guess_background if incomplete else 1.0
            picture = with_guesses(picture, rows[:, :4], rows[:, 4], sure, background, check=incomplete)
        completed.append(picture)
    return completed
