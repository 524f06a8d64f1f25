"""Which pictures of which sets are measured: by split or source, the last so many, at most so many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from streampose.errors import UsageError
from streampose.evaluate.dataset import KeypointSet, LabelledImage, LabelledPerson, numbered_afresh
from streampose.evaluate.keypoints import measurable


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One picture of the selection with its people; `image.id` is unique over all sets."""

    data: KeypointSet
    image: LabelledImage
    people: list[LabelledPerson]

    def read(self) -> npt.NDArray[np.uint8]:
        """The picture (H, W, 3) BGR; raises DataError where it does not decode."""
        return self.data.read(self.image)

    @property
    def posed(self) -> list[LabelledPerson]:
        """The people whose key points are measured: no crowds, at least one labelled joint."""
        return measurable(self.people)

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """The labelled boxes (N, 4) xyxy of the people whose key points are measured."""
        return np.array([person.box for person in self.posed], np.float32).reshape(-1, 4)


def select(
    sets: Sequence[KeypointSet], *, split: str | None = None, last: int | None = None, limit: int | None = None
) -> list[Sample]:
    """The pictures of `split` (or source), of these the `last` with the highest id, of these at most `limit`, evenly
    spread.

    Without `split` each set gives its part of `last` (`apportion`), since ids of two sets say nothing of one another; so
    they are the pictures that a training keeps of these sets. Raises UsageError where nothing is left.
    """
    whole = [sorted(_samples_of(data), key=lambda sample: sample.image.id) for data in sets]
    if last is not None and split is None:
        parts = apportion(last, [len(part) for part in whole])
        whole = [part[len(part) - count :] for part, count in zip(whole, parts, strict=True)]
    samples = [sample for part in whole for sample in part]
    kinds = sorted({sample.image.source for sample in samples})
    if split is not None:
        samples = [sample for sample in samples if sample.image.source == split]
        if not samples:
            known = ", ".join(kind for kind in kinds if kind) or "none"
            raise UsageError(f"--split {split}: no picture of that split or source; there are: {known}")
    samples.sort(key=lambda sample: sample.image.id)
    if last is not None and split is not None:
        samples = samples[-last:]
    if limit is not None and len(samples) > limit:
        samples = [samples[place] for place in spread(len(samples), limit)]
    if not any(sample.people for sample in samples):
        raise UsageError("nobody is left to measure; choose another --split, --last or --limit")
    return _with_unique_ids(samples)


def spread(total: int, count: int) -> list[int]:
    """The places of `count` of `total` things, evenly spread from the first to the last; all where they are no more."""
    return [int(place) for place in np.linspace(0, total - 1, min(count, total)).round()]


def apportion(count: int, sizes: Sequence[int]) -> list[int]:
    """How many of `count` fall to each of several sets in proportion to their `sizes`, by largest remainders."""
    total = sum(sizes)
    count = min(count, total)
    shares = [divmod(count * size, total) if total else (0, 0) for size in sizes]
    most_left = sorted(range(len(sizes)), key=lambda place: -shares[place][1])
    more = set(most_left[: count - sum(whole for whole, _ in shares)])
    return [whole + (place in more) for place, (whole, _) in enumerate(shares)]


def _samples_of(data: KeypointSet) -> list[Sample]:
    people: dict[int, list[LabelledPerson]] = defaultdict(list)
    for person in data.people:
        people[person.image.id].append(person)
    return [Sample(data, image, people[image.id]) for image in data.images.values()]


def _with_unique_ids(samples: list[Sample]) -> list[Sample]:
    """The same samples; where two sets use one id, all pictures are numbered afresh."""
    if len({sample.image.id for sample in samples}) == len(samples):
        return samples
    fresh = numbered_afresh(sample.image for sample in samples)
    return [
        Sample(sample.data, image, [replace(person, image=image) for person in sample.people])
        for sample, image in zip(samples, fresh.values(), strict=True)
    ]
