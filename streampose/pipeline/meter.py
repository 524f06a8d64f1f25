"""Counting without locks: quantiles of ages and times in logarithmic buckets, each meter written by one thread."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_LOWEST_S = 1e-4
_PER_DECADE = 40  # buckets are 5.9 % apart, so a quantile is right to 3 %
_BUCKETS = 8 * _PER_DECADE


class Meter:
    """Durations in seconds, from 0.1 ms to hours, in constant memory however long the watch."""

    def __init__(self) -> None:
        self._counts: npt.NDArray[np.int64] = np.zeros(_BUCKETS, np.int64)
        self.count = 0
        self.total_s = 0.0
        self.last_s = 0.0

    def add(self, seconds: float) -> None:
        bucket = int(math.log10(max(seconds, _LOWEST_S) / _LOWEST_S) * _PER_DECADE)
        self._counts[min(bucket, _BUCKETS - 1)] += 1
        self.count += 1
        self.total_s += seconds
        self.last_s = seconds

    def quantile(self, q: float) -> float | None:
        """The duration below which a share `q` of all lies, in seconds; None before the first."""
        if not self.count:
            return None
        bucket = int(np.searchsorted(np.cumsum(self._counts), q * self.count))
        return float(_LOWEST_S * 10 ** ((min(bucket, _BUCKETS - 1) + 0.5) / _PER_DECADE))

    def summary_ms(self) -> dict[str, float]:
        """p50, p95 and p99 in milliseconds; empty before the first."""
        quantiles = {name: self.quantile(q) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
        return {name: round(value * 1e3, 1) for name, value in quantiles.items() if value is not None}
