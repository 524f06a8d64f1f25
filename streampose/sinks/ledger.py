"""What was watched and what was not: gaps summed to coverage. Pure; times in, figures out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from streampose.messages import Frame, Gap

_OPEN_SPANS = 1024  # gaps that a late one may still overlap; a watch of weeks keeps no more


@dataclass(slots=True)
class Ledger:
    """Sums the frames and gaps of one camera.

    Time watched runs from the first instant that a frame or gap speaks of to the last one. Gaps that overlap count once.
    """

    frames: int = 0
    first_s: float | None = None
    last_s: float | None = None
    causes: Counter[str] = field(default_factory=Counter)
    _settled_s: float = 0.0
    _settled_until_s: float = float("-inf")
    _longest_settled_s: float = 0.0
    _spans: list[tuple[float, float]] = field(default_factory=list)

    def add_frame(self, frame: Frame) -> None:
        self.frames += 1
        self._extend(frame.time_s, frame.time_s)

    def add_gap(self, gap: Gap) -> None:
        self.causes[gap.cause] += 1
        self._extend(gap.start_s, gap.end_s)
        self._insert(max(gap.start_s, self._settled_until_s), gap.end_s)
        if len(self._spans) > 2 * _OPEN_SPANS:
            self._settle()

    @property
    def gaps(self) -> int:
        return sum(self.causes.values())

    @property
    def watched_s(self) -> float:
        return 0.0 if self.first_s is None or self.last_s is None else self.last_s - self.first_s

    @property
    def missed_s(self) -> float:
        return self._settled_s + sum(end - start for start, end in self._spans)

    @property
    def longest_s(self) -> float:
        """The longest stretch that was not seen; gaps that touch are one stretch."""
        return max(self._longest_settled_s, max((end - start for start, end in self._spans), default=0.0))

    @property
    def coverage(self) -> float:
        """The part of the time watched that was analysed, 0..1."""
        if self.watched_s <= 0:
            return 1.0 if self.frames else 0.0
        return max(0.0, 1.0 - self.missed_s / self.watched_s)

    def summary(self) -> dict[str, Any]:
        """The footer's fields, and the same as a sentence."""
        return {
            "watched_s": round(self.watched_s, 6),
            "gap_s": round(self.missed_s, 6),
            "coverage": self._coverage_down(1_000_000),
            "gaps": self.gaps,
            "gaps_by_cause": dict(sorted(self.causes.items())),
            "longest_gap_s": round(self.longest_s, 6),
            "text": str(self),
        }

    def __str__(self) -> str:
        percent = 100 * self._coverage_down(1000)
        if not self.gaps:
            return f"coverage {percent:.1f} %, no gaps"
        noun = "gap" if self.gaps == 1 else "gaps"
        return f"coverage {percent:.1f} %, {self.gaps} {noun}, longest {self.longest_s:.1f} s"

    def _coverage_down(self, parts: int) -> float:
        """The coverage rounded down to so many parts: a watch with a gap in it must not read as complete, however short
        that is."""
        return min(int(self.coverage * parts + 1e-6), parts - 1 if self.gaps else parts) / parts

    def _extend(self, start_s: float, end_s: float) -> None:
        self.first_s = start_s if self.first_s is None else min(self.first_s, start_s)
        self.last_s = end_s if self.last_s is None else max(self.last_s, end_s)

    def _insert(self, start_s: float, end_s: float) -> None:
        """Add a span, merged with those it overlaps or touches; spans stay sorted. New ones are nearly always last."""
        if end_s <= start_s:
            return
        spans = self._spans
        at = len(spans)
        while at > 0 and spans[at - 1][1] >= start_s:
            at -= 1
        merged_start, merged_end, stop = start_s, end_s, at
        while stop < len(spans) and spans[stop][0] <= end_s:
            merged_start, merged_end = min(merged_start, spans[stop][0]), max(merged_end, spans[stop][1])
            stop += 1
        spans[at:stop] = [(merged_start, merged_end)]

    def _settle(self) -> None:
        """Sum up the oldest spans and forget them."""
        done = self._spans[:_OPEN_SPANS]
        self._settled_s += sum(end - start for start, end in done)
        self._longest_settled_s = max(self._longest_settled_s, max(end - start for start, end in done))
        self._settled_until_s = done[-1][1]
        del self._spans[:_OPEN_SPANS]
