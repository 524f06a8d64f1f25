"""Any number of pictures through a network that is compiled for a few batch sizes only.

A size met for the first time costs a GPU a search and a CPU a compilation, so a batch is cut into pieces of the compiled
sizes; the last piece is padded where that is cheaper than another call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Pictures = TypeVar("Pictures", bound=Any)
Outputs = tuple[npt.NDArray[np.float32], ...]
WASTE = 0.2
"""Greatest part of a batch that may be padding where one larger call stands for several smaller ones."""


def plan_batches(count: int, sizes: Sequence[int], waste: float = WASTE) -> list[int]:
    """Compiled sizes, in order, whose pieces hold `count` pictures; only the last may hold fewer than its size.

    `waste` 1 always pads (one call is cheap whatever its size, as on a GPU), 0 pads only what no smaller size holds.
    """
    ordered = sorted(sizes)
    plan = []
    while count > 0:
        fits = [size for size in ordered if size <= count]
        above = next((size for size in ordered if size >= count), None)
        padded = above is not None and (not fits or (above - count) <= waste * above)
        plan.append(above if padded and above is not None else fits[-1])
        count -= plan[-1]
    return plan


def pad_array(piece: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """`piece` (b, …) in one stretch of memory, with zeros behind it up to `size` pictures."""
    if len(piece) == size:
        return np.ascontiguousarray(piece)
    padded = np.zeros((size, *piece.shape[1:]), piece.dtype)
    padded[: len(piece)] = piece
    return padded


def run_in_batches(
    batch: Pictures,
    sizes: Sequence[int],
    run: Callable[[Pictures], Outputs],
    waste: float = WASTE,
    pad: Callable[[Any, int], Any] = pad_array,
) -> Outputs:
    """Outputs for the whole `batch` (B, …) from calls of `run` with batches of exactly the compiled `sizes`.

    `pad` fills a piece up to the size given, for a `batch` that is no array.
    """
    if not len(batch):
        raise ValueError("a batch needs at least one picture")
    parts: list[Outputs] = []
    start = 0
    for size in plan_batches(len(batch), sizes, waste):
        piece = batch[start : start + size]
        parts.append(tuple(output[: len(piece)] for output in run(pad(piece, size))))
        start += size
    if len(parts) == 1:
        return parts[0]
    return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))
