"""When a camera is watched: hours of the day in local time. Pure: a time in, a decision out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

_WINDOW = re.compile(r"\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*")
_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class Hours:
    """Windows of the day as (from, until) in minutes since midnight, until excluded; one that ends before it begins runs
    over midnight."""

    windows: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Hours:
        """Hours from texts such as "06:00-22:00" or "22:00-06:00". Raises ValueError, one line."""
        windows = tuple(_window(text) for text in texts)
        if not windows:
            raise ValueError('at least one window such as "06:00-22:00" is wanted; leave the key out to watch always')
        return cls(windows)

    def open_at(self, moment: datetime) -> bool:
        """Whether the camera is watched at a local time."""
        now = moment.hour * 60 + moment.minute
        return any(start <= now < end if start < end else not end <= now < start for start, end in self.windows)

    def opens_after(self, moment: datetime) -> str:
        """The time of day at which the next window begins, as "06:00"."""
        now = moment.hour * 60 + moment.minute
        start = min((start for start, _ in self.windows), key=lambda start: (start - now - 1) % _DAY)
        return f"{start // 60:02d}:{start % 60:02d}"


def _window(text: str) -> tuple[int, int]:
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ValueError(f'"{text}" is no window of the day; write it as "06:00-22:00"')
    start, end = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    if int(found[2]) > 59 or int(found[4]) > 59 or start >= _DAY or end > _DAY:
        raise ValueError(f'"{text}": the day has hours from 00:00 to 24:00')
    if start == end:
        raise ValueError(f'"{text}" is empty; leave the key out to watch always')
    return start, end
