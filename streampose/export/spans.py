"""Stretches of time as (start, end) in seconds: their union, what lies in them, how long they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def within(times: Floats, spans: list[tuple[float, float]], tolerance_s: float) -> npt.NDArray[np.bool_]:
    """Which of `times` lie in one of `spans`, whose ends belong to them."""
    inside = np.zeros(len(times), np.bool_)
    for start, end in spans:
        inside |= (times >= start - tolerance_s) & (times <= end + tolerance_s)
    return inside


def merge(spans: list[tuple[float, float]], *, touching: bool = True) -> list[tuple[float, float]]:
    """The union of spans as sorted spans that do not overlap; those that only touch are one too, unless not `touching`:
    a frame may lie between them."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(span for span in spans if span[1] > span[0]):
        if merged and (start < merged[-1][1] or (touching and start == merged[-1][1])):
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def totals(times: Floats, gaps: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Seconds watched, seconds in gaps (overlaps once), and the longest stretch of them."""
    instants = [*times[:1], *times[-1:], *(instant for gap in gaps for instant in gap)]
    lengths = [end - start for start, end in merge(gaps)]
    return (float(max(instants) - min(instants)) if instants else 0.0, float(sum(lengths)), max(lengths, default=0.0))
