"""People of a picture that a set lists under several ids: who is in several of its entries is one person."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streampose.track.association import assign, iou

if TYPE_CHECKING:
    from streampose.evaluate.dataset import LabelledPerson

log = logging.getLogger(__name__)

SAME_IOU = 0.5  # boxes of two entries that are alike by more are of one person


def once_each(entries: Sequence[tuple[int, LabelledPerson]], path: Path) -> list[LabelledPerson]:
    """The people of the set `path`, given with the ids of their pictures in its entries, without those who are in another.

    One person of an entry is at most one of another; who has more labelled key points stays, else the first. Says how many
    are left out.
    """
    pictures: dict[int, dict[int, list[LabelledPerson]]] = {}
    for number, person in entries:
        pictures.setdefault(person.image.id, {}).setdefault(number, []).append(person)
    stays = {
        id(person)
        for first, listed in pictures.items()
        for person in _once_each(sorted(listed.items(), key=lambda entry: entry[0] != first))
    }
    people = [person for _, person in entries if id(person) in stays]
    if len(people) < len(entries):
        log.warning(
            "%s: leaves out %d people who are in another entry of their picture", path, len(entries) - len(people)
        )
    return people


def _once_each(listed: Sequence[tuple[int, list[LabelledPerson]]]) -> list[LabelledPerson]:
    """Those of one picture, whose entries are given in order."""
    (_, kept), *others = listed
    for _, people in others:
        pairs = _same(kept, people)
        for at, other in pairs.items():
            if people[other].labelled > kept[at].labelled:
                kept[at] = people[other]
        kept = kept + [person for at, person in enumerate(people) if at not in pairs.values()]
    return kept


def _same(some: list[LabelledPerson], others: list[LabelledPerson]) -> dict[int, int]:
    """Who of `some` is who of `others`, by place. A crowd is only like a crowd, a network's box like such."""
    likeness = iou(np.array([person.box for person in some]), np.array([person.box for person in others]))
    kinds = [np.array([(person.crowd, person.proposed) for person in people]) for people in (some, others)]
    likeness *= (kinds[0][:, None] == kinds[1][None]).all(axis=2)
    return dict(assign(likeness, SAME_IOU))
