"""Which pictures a training never sees: those of the highest ids, by picture and never by person."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from streampose.errors import DataError
from streampose.evaluate.dataset import LabelledImage
from streampose.evaluate.selection import apportion

ImageName = tuple[int, str, str]


def image_name(image: LabelledImage) -> ImageName:
    """What tells a picture from others, and is the same where two sets hold it as one of the same source."""
    return image.id, image.file, image.source


def kept_images(
    sets: Sequence[Sequence[LabelledImage]], source: str, count: int, share: float, unseen: Collection[str] = ()
) -> set[ImageName]:
    """The pictures kept for measuring, never of the sources `unseen`: `count`, or `share` of all where that is fewer.

    Where `source` is named they are its pictures of highest id; where it is empty every set gives its part, in proportion
    to its size: the pictures that `streampose eval --last` measures. Raises DataError where there is no picture of `source`,
    or none of one of `unseen`.
    """
    known = {image.source for images in sets for image in images}
    _check(set(unseen) - known, "keeps out of the training", ("holdout.sources", "held_out_sources"), known)
    if source and count:
        _check({source} - (known - set(unseen)), "keeps for measuring", ("holdout.source", "held_out_source"), known)
    everything = [{image_name(image): image for image in images if image.source not in unseen} for images in sets]
    if source:
        pooled = {name: image for images in everything for name, image in images.items()}
        everything = [{name: image for name, image in pooled.items() if image.source == source}]
    sizes = [len(images) for images in everything]
    kept: set[ImageName] = set()
    for images, part in zip(everything, apportion(min(count, int(share * sum(sizes))), sizes), strict=True):
        kept |= set(sorted(images, key=lambda name: images[name].id, reverse=True)[:part])
    return kept


def _check(lost: Collection[str], why: str, keys: tuple[str, str], known: Collection[str]) -> None:
    """Raise DataError where the recipe names sources of which there is no picture."""
    if lost:
        raise DataError(
            f"no picture is of {', '.join(sorted(lost))}, which the recipe {why} (`{keys[0]}` of the recipe, "
            f"`{keys[1]}` of a detector's); the sets have {', '.join(sorted(known))}"
        )
