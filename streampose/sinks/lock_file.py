"""A file that is there only to be locked, while something is made beside it, and is deleted again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from streampose.sinks.write_lock import lock


def hold(path: Path) -> int | None:
    """The descriptor of `path`, made and locked until `let_go`; None where another has it locked.

    One that a run of another user has left is deleted and made anew. Raises OSError where that cannot be done.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError as error:
            if not _delete_left(path, error):
                return None
            continue
        if not lock(fd):
            os.close(fd)
            return None
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # whoever had it has deleted it meanwhile


def _delete_left(path: Path, refused: PermissionError) -> bool:
    """Delete a lock file that may not be written, unless somebody has it locked; raises `refused` where nobody can tell."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        raise refused from None
    try:
        free = lock(fd)
        if free:
            path.unlink(missing_ok=True)
    finally:
        os.close(fd)
    return free


def let_go(path: Path, fd: int) -> None:
    """Delete the file that `hold` made, and unlock it."""
    try:
        if os.fstat(fd).st_nlink:
            with contextlib.suppress(OSError):  # its folder may not be changed any more: unlocked it keeps nobody out
                path.unlink()
    finally:
        os.close(fd)
