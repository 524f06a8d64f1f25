"""Which pictures a training never sees: those of the highest ids, by picture and never by person."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from hashlib import sha256
from ntpath import basename

from streampose.errors import DataError
from streampose.evaluate.dataset import LabelledImage
from streampose.evaluate.selection import apportion

log = logging.getLogger(__name__)
ImageName = tuple[int, str, str]


def image_name(image: LabelledImage) -> ImageName:
    """What tells a picture from others, and is the same where two sets hold it as one of the same source."""
    return image.id, image.file, image.source


def kept_images(
    sets: Sequence[Sequence[LabelledImage]], source: str, count: int, share: float, unseen: Collection[str] = ()
) -> list[set[ImageName]]:
    """The pictures of each set kept for measuring, never of the sources `unseen`: `count` in all, or `share` of all where
    that is fewer.

    Where `source` is named they are its pictures of highest id; where it is empty every set gives its part, in proportion
    to its size: the pictures that `streampose eval --last` measures, with `--split` where there is a `source`. A picture of
    another set that has one name with them is neither kept nor to be trained on. Raises DataError where there is no picture
    of `source`, or none of one of `unseen`.
    """
    known = {image.source for images in sets for image in images}
    _check(set(unseen) - known, "keeps out of the training", ("holdout.sources", "held_out_sources"), known)
    if source and count:
        _check({source} - (known - set(unseen)), "keeps for measuring", ("holdout.source", "held_out_source"), known)
    _say_what_is_one(sets)
    wanted = [
        sorted(
            (image for image in images if image.source not in unseen and source in ("", image.source)),
            key=lambda image: image.id,
        )
        for images in sets
    ]
    sizes = [len(images) for images in wanted]
    count = min(count, int(share * sum(sizes)))
    parts = apportion(count, sizes)
    if source:
        ranked = sorted((image.id, place) for place, images in enumerate(wanted) for image in images)
        last = Counter(place for _, place in ranked[len(ranked) - count :])
        parts = [last[place] for place in range(len(sets))]
    return [
        {image_name(image) for image in images[len(images) - part :]}
        for images, part in zip(wanted, parts, strict=True)
    ]


def kept_elsewhere(
    sets: Sequence[Sequence[LabelledImage]], kept: Collection[ImageName], encoded: Callable[[int, LabelledImage], bytes]
) -> set[ImageName]:
    """The pictures that are one of those `kept` by another id, source or folder, as in a later export of the same task.

    Of one picture are files of one content; compared are those of one file name and size. `encoded` gives the file of a
    picture of the n-th set. How many there are is said.
    """
    alike: dict[tuple[str, int, int], list[tuple[int, LabelledImage]]] = defaultdict(list)
    for place, images in enumerate(sets):
        for image in images:
            alike[basename(image.file), image.width, image.height].append((place, image))
    found: set[ImageName] = set()
    for group in alike.values():
        ours, others = ([each for each in group if (image_name(each[1]) in kept) is inside] for inside in (True, False))
        if ours and others:
            contents = {sha256(encoded(*each)).digest() for each in ours}
            found |= {image_name(each[1]) for each in others if sha256(encoded(*each)).digest() in contents}
    if found:
        sources = ", ".join(sorted({source for _, _, source in found}))
        log.warning(
            "%d pictures of %s are not trained on: their files are held out too, under another id or source",
            len(found),
            sources,
        )
    return found


def _say_what_is_one(sets: Sequence[Sequence[LabelledImage]]) -> None:
    """Two exports of different recordings may give their pictures the same names."""
    names = Counter(image_name(image) for images in sets for image in images)
    twice = [name for name, times in names.items() if times > 1]
    if twice:
        sources = ", ".join(sorted({source for _, _, source in twice}))
        log.warning(
            "two sets are called %s and have %d pictures of one id and file name: they count as the same ones, and none is "
            "trained on where its like is held out; give one JSON another name where they are not",
            sources,
            len(twice),
        )


def _check(lost: Collection[str], why: str, keys: tuple[str, str], known: Collection[str]) -> None:
    """Raise DataError where the recipe names sources of which there is no picture."""
    if lost:
        raise DataError(
            f"no picture is of {', '.join(sorted(lost))}, which the recipe {why} (`{keys[0]}` of the recipe, "
            f"`{keys[1]}` of a detector's); the sets have {', '.join(sorted(known))}"
        )
