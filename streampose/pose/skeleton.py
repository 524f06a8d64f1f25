"""Skeletons as data: names, sides, edges, flip pairs and OKS sigmas of a set of key points, read from YAML.

A skeleton of one's own is a file like `skeletons/limbs6.yaml`; no code knows how many joints a person has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from streampose.errors import ModelError
from streampose.typed_yaml import read_yaml

Side = Literal["left", "right", "centre"]
FOLDER = Path(__file__).parent / "skeletons"


@dataclass(frozen=True, slots=True, eq=False)
class Skeleton:
    """K key points. `edges` and `flip_pairs` are pairs of indices; `sigmas` (K,) float32 are the OKS's, relative to
    the square root of a person's area; `upper_body` indexes the joints that half-body augmentation keeps together."""

    name: str
    keypoints: tuple[str, ...]
    sides: tuple[Side, ...]
    sigmas: npt.NDArray[np.float32]
    edges: tuple[tuple[int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...]
    upper_body: tuple[int, ...] = ()

    @property
    def body(self) -> tuple[int, ...] | None:
        """The joints left and right shoulder, hip and knee, between which clothes lie; None where one is missing."""
        names = [f"{side}_{joint}" for joint in ("shoulder", "hip", "knee") for side in ("left", "right")]
        return tuple(map(self.keypoints.index, names)) if set(names) <= set(self.keypoints) else None

    @property
    def flip_order(self) -> npt.NDArray[np.int64]:
        """(K,) index that swaps left and right joints: `mirrored = points[flip_order]`."""
        order = np.arange(len(self.keypoints))
        for left, right in self.flip_pairs:
            order[[left, right]] = right, left
        return order


def list_skeletons() -> list[str]:
    """Names of the skeletons that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@lru_cache(maxsize=32)
def load_skeleton(name_or_path: str) -> Skeleton:
    """Read a skeleton by its name ("coco17") or from a YAML file; raises ModelError where it is none."""
    if unnamed := re.fullmatch(r"\d+ joints", name_or_path):  # as of a published checkpoint
        raise ModelError(
            f"a checkpoint of {unnamed[0]} does not say which they are: write a manifest beside it, with output.skeleton "
            "(docs/models.md)"
        )
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name_or_path}.yaml"
    hint = f"there are {', '.join(list_skeletons())}, or name a YAML file"
    return _build(read_yaml(path, ModelError, "skeleton", hint), path)


def _build(raw: Any, path: Path) -> Skeleton:
    if not isinstance(raw, dict) or not isinstance(raw.get("keypoints"), dict) or not raw["keypoints"]:
        raise ModelError(f"{path}: a skeleton needs `keypoints`, a map of name: [side, sigma]")
    names = tuple(str(name) for name in raw["keypoints"])
    index = {name: position for position, name in enumerate(names)}
    sides: list[Side] = []
    sigmas: list[float] = []
    for name, entry in raw["keypoints"].items():
        if not isinstance(entry, list) or len(entry) != 2 or entry[0] not in ("left", "right", "centre"):
            raise ModelError(f"{path}: keypoints.{name}: expected [left|right|centre, sigma], got {entry!r}")
        if not isinstance(entry[1], int | float) or not 0 < entry[1] < 1:
            raise ModelError(f"{path}: keypoints.{name}: sigma {entry[1]!r} is not between 0 and 1")
        sides.append(entry[0])
        sigmas.append(float(entry[1]))

    def at(name: Any, where: str) -> int:
        if str(name) not in index:
            raise ModelError(f"{path}: {where}: no key point {name!r} in this skeleton")
        return index[str(name)]

    def listed(key: str) -> list[Any]:
        entries = raw.get(key) or []
        if not isinstance(entries, list):
            raise ModelError(f"{path}: {key}: a list is wanted, got {entries!r:.40}")
        return entries

    def pairs(key: str) -> tuple[tuple[int, int], ...]:
        entries = listed(key)
        for entry in entries:
            if not isinstance(entry, list) or len(entry) != 2:
                raise ModelError(f"{path}: {key}: a pair [one key point, the other] is wanted, got {entry!r:.40}")
        return tuple((at(first, key), at(second, key)) for first, second in entries)

    flip_pairs = pairs("flip_pairs")
    mirrored = [joint for pair in flip_pairs for joint in pair]
    for joint, (name, side) in enumerate(zip(names, sides, strict=True)):
        if mirrored.count(joint) != (side != "centre"):
            raise ModelError(
                f"{path}: keypoints.{name}: is {side} and in {mirrored.count(joint)} of flip_pairs; left and right ones are "
                "each in one pair, the others in none"
            )

    return Skeleton(
        name=str(raw.get("name", path.stem)),
        keypoints=names,
        sides=tuple(sides),
        sigmas=np.asarray(sigmas, np.float32),
        edges=pairs("edges"),
        flip_pairs=flip_pairs,
        upper_body=tuple(at(name, "upper_body") for name in listed("upper_body")),
    )
