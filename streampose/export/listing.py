"""The files below a folder, through links, too, with what of it may not be entered."""

from __future__ import annotations

import os
from pathlib import Path

from streampose.errors import words_of


def list_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Every file below `folder`, sorted, and a line for each folder that may not be entered and each link that leads
    nowhere. A folder that several links lead to is entered once; one that is deleted meanwhile is none."""
    files: list[Path] = []
    wrong: list[str] = []

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            wrong.append(f"{error.filename}: cannot be entered ({words_of(error)}); what lies in it is not proven")

    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, onerror=note, followlinks=True):
        try:
            status = os.stat(place)
        except OSError as error:
            note(error)
            folders.clear()
            continue
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        for path in (Path(place, name) for name in names):
            if path.is_symlink() and not path.exists():
                wrong.append(f"{path}: a link that leads nowhere; what it led to is not proven")
            else:
                files.append(path)
    return sorted(files), wrong
