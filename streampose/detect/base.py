"""What a kind of detector output is: how it lies in the array, and how boxes are got out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


class Decode(Protocol):
    """One picture's raw output to boxes (N, 4) xyxy in input pixels and scores (N,) of the class `person`, best first, none
    below `threshold` and at most `limit`."""

    def __call__(
        self, raw: FloatArray, threshold: float, *, limit: int = ..., person: int = ...
    ) -> tuple[FloatArray, FloatArray]: ...


@dataclass(frozen=True, slots=True)
class BoxOutput:
    """A kind of output, named in a manifest as `output.kind` and listed in `registry.DETECTORS`.

    `shape` says in words how an array of a batch lies, `fits` whether one of this shape can be of the kind, and
    `class_count` how many classes such a one has scores for (None: its rows name their class). `rows` turns an array of a
    batch to (B, candidates, 5 or more), box and score in front; `ranked`: the candidates come in the order of their scores.
    `any_size`: one conversion of the network serves pictures of every size.
    """

    shape: str
    fits: Callable[[tuple[int, ...]], bool]
    class_count: Callable[[tuple[int, ...]], int | None]
    decode: Decode
    rows: Callable[[FloatArray], FloatArray]
    ranked: bool
    any_size: bool
