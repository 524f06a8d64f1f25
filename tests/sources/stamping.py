"""Stamps as a source's clock gives them, for tests of it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from streampose.sources.clock import SourceClock, Stamp

TB = Fraction(1, 90_000)
WALL = 1_790_000_000.0  # Unix time of monotonic zero in these tests


def run(
    clock: SourceClock, pts: list[int | None], arrivals: list[float] | None = None, tb: Fraction = TB
) -> list[Stamp]:
    """Stamps for `pts`; arrivals default to the exact times that the stamps tell, 10 fps where they tell none."""
    times = arrivals if arrivals is not None else [0.1 * n for n in range(len(pts))]
    return [clock.stamp(p, tb, a, WALL + a) for p, a in zip(pts, times, strict=True)]


def steps(stamps: list[Stamp]) -> np.ndarray:
    return np.diff([stamp.time_s for stamp in stamps])
