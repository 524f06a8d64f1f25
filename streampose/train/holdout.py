"""Which pictures a training never sees: those of the highest ids, by picture and never by person."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from streampose.errors import DataError
from streampose.evaluate.dataset import LabelledImage

ImageName = tuple[int, str, str]


def image_name(image: LabelledImage) -> ImageName:
    """What tells a picture from others, and is the same where two sets hold it as one of the same source."""
    return image.id, image.file, image.source


def kept_images(
    sets: Sequence[Iterable[LabelledImage]], source: str, count: int, share: float, unseen: Collection[str] = ()
) -> set[ImageName]:
    """The pictures kept for measuring, `count` in all, of no set more than `share`, never of the sources `unseen`.

    Where `source` is named they are its pictures of highest id; where it is empty every set gives its part, in proportion
    to its size. Raises DataError where there is no picture of `source`.
    """
    everything = [{image_name(image): image for image in images if image.source not in unseen} for images in sets]
    if source:
        pooled = {name: image for images in everything for name, image in images.items()}
        everything = [{name: image for name, image in pooled.items() if image.source == source}]
        if count and not everything[0]:
            known = ", ".join(sorted({image.source for image in pooled.values()}))
            raise DataError(
                f"no picture is of {source}, which the recipe keeps for measuring (`holdout.source` of the recipe, "
                f"`held_out_source` of a detector's); the sets have {known}"
            )
    total = sum(map(len, everything))
    kept: set[ImageName] = set()
    for images in everything:
        part = min(round(count * len(images) / total), int(share * len(images))) if total else 0
        kept |= set(sorted(images, key=lambda name: images[name].id, reverse=True)[:part])
    return kept
