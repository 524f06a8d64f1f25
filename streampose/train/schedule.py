"""Learning rates by the step: a linear warm-up, then half a cosine down to nothing (Loshchilov and Hutter, 2017)."""

from __future__ import annotations

import math


def warmup_cosine(step: int, total: int, warmup: int, floor: float = 0.0) -> float:
    """Factor of the peak rate at `step` of `total`, in 0..1: up over `warmup` steps, then down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
