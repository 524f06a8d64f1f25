"""Times and sizes as people write them in a configuration (`500ms`, `10m`, `200GB`), and numbers of things."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_DURATION = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*(ms|s|m|min|h|d)?\s*")
_SECONDS = {"ms": 1e-3, "s": 1.0, None: 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*(?:([KMGT])(i?))?B?\s*", re.IGNORECASE)
_LETTERS = "KMGT"


def parse_duration(value: object) -> float:
    """Seconds from a number of seconds or a text such as "500ms", "1s", "10m", "2h", "7d"."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < 1e300 else math.inf  # which no limit is
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a duration such as "500ms", "1s", "10m" or "7d" is wanted')
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(value: object) -> int:
    """Bytes from a number or a text such as "5GB" (powers of 1000) or "5GiB" (of 1024)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a size such as "500MB" or "200GB" is wanted')
    power = 1 + _LETTERS.index(match[2].upper()) if match[2] else 0
    size = float(match[1]) * (1024 if match[3] else 1000) ** power
    if not math.isfinite(size):
        raise ValueError("larger than any disk")
    return int(size)


Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[int, BeforeValidator(parse_size), Field(ge=0, lt=2**63)]


def count(number: int, what: str) -> str:
    """`1 frame`, `2 frames`, `1 person`, `2 people`."""
    return f"{number} {what if number == 1 else 'people' if what == 'person' else what + 's'}"
