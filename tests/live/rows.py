"""The rows of the table of live claims: what was looked at, what is promised, what was measured, and whether it held."""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["held", "BROKEN", "not judged"]
SETTLED = {"MALLOC_ARENA_MAX": "2"}
"""With the allocator's sixteen arenas memory needs three minutes of faults to settle, with two one; a leak shows in both."""
T_95 = {1: 12.7, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23}
"""Student's t, two-sided 95 %, by degrees of freedom; 2.0 beyond."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    aim: str
    measured: str
    verdict: Verdict


def judged(what: str, aim: str, measured: str, held: bool) -> Row:
    return Row(what, aim, measured, "held" if held else "BROKEN")


def table(rows: Sequence[Row]) -> str:
    """Columns as wide as they need to be."""
    cells = [("what", "aim", "measured", "verdict"), *((r.what, r.aim, r.measured, r.verdict) for r in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def settle() -> None:
    """Start this very command again with an allocator that settles quickly, unless it has one."""
    if not SETTLED.items() <= os.environ.items():
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **SETTLED})


def broken(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.verdict == "BROKEN"]


def slope(points: Sequence[tuple[float, float]], blocks: int = 5) -> tuple[float, float]:
    """Slope of y over x by least squares, and half of its 95 % interval.

    Neighbouring values of a resident size hang together for a quarter of a minute (what came of a fault is kept for the
    next one), so the interval is that of a line through the means of `blocks` stretches, which hardly do.
    """
    if len(points) < 2 * blocks:
        return math.nan, math.inf
    size = len(points) / blocks
    cut = [points[round(i * size) : round((i + 1) * size)] for i in range(blocks)]
    xs = [statistics.fmean(x for x, _ in block) for block in cut]
    ys = [statistics.fmean(y for _, y in block) for block in cut]
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    rise = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    rest = sum((y - mean_y - rise * (x - mean_x)) ** 2 for x, y in zip(xs, ys, strict=True))
    return rise, T_95.get(blocks - 2, 2.0) * math.sqrt(rest / (blocks - 2) / spread)
