"""The name of a local file as libav takes it."""

from __future__ import annotations

import os
from pathlib import Path


def libav_name(path: Path) -> str:
    """`path` so that libav takes it for a file whatever is in its name: it would read `12:30.mp4` as a protocol `12`."""
    return os.path.join(".", path)
