"""Writing an exported file whole: beside its place first, then into it, so that no reader ever meets half of one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from streampose.errors import SinkError


def write_text(path: Path, pieces: Iterable[str]) -> Path:
    """Write `pieces` to `path` as UTF-8; gives `path`. Raises SinkError; a file that was there before stays then."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8", newline="") as file:
            file.writelines(pieces)
        part.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        remove(part)
    return path


def remove(part: Path) -> None:
    """Remove what a failed writing left; nothing where the writing went well or never began."""
    with contextlib.suppress(OSError):  # why nothing can be written there is said already
        part.unlink()


def cannot_write(path: Path, error: OSError) -> SinkError:
    """The one line for an export that cannot be written."""
    return SinkError(f"{path}: cannot be written ({error.strerror or error}); choose another place with --out")
