"""Which results are being written while somebody reads them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Set
from pathlib import Path

from streampose.sinks.write_lock import is_being_written

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv")


def being_written() -> set[str]:
    """The results that some process has open for writing, as far as Linux tells this user of it; elsewhere none."""
    found = set()
    for place in glob.iglob("/proc/[0-9]*/fd/[0-9]*"):
        try:
            path = os.readlink(place)
            if not path.endswith((".jsonl", *VIDEOS)):
                continue
            told = Path(place.replace("/fd/", "/fdinfo/")).read_text(encoding="utf-8")
            flags = re.search(r"^flags:\s*([0-7]+)", told, re.MULTILINE)
        except OSError:  # closed meanwhile, or of another user
            continue
        if flags is not None and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY:
            found.add(path)
    return found


def is_changing(path: Path, writing: Set[str], goes_on: bool = False) -> bool:
    """Whether a file cannot be read since it was just begun, or retention took it meanwhile. `writing`: the files that were
    being written before. `goes_on`: a run does; a name that it has just claimed is empty, open to nobody, for a moment.
    What a run is going to write (`sinks/reserve.py`) is empty, too."""
    try:
        empty = path.stat().st_size == 0
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    real = os.path.realpath(path)
    return (empty and (goes_on or is_being_written(path))) or real in writing or real in being_written()


def unreadable(path: Path, error: Exception) -> str:
    """The one line for a result that cannot be read; `error` is what its reader says of it."""
    try:
        empty = path.stat().st_size == 0
    except OSError:
        empty = False
    return f"{path}: empty, as a run leaves it that is killed before it writes; delete it" if empty else str(error)
