"""Writing an exported file whole: beside its place first, then into it, so that no reader ever meets half of one.

What is no file (a pipe, a device, standard output) stays what it is and is written through, once all is there; a link stays
one, and what it leads to is replaced.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from streampose.errors import SinkError

_OPEN_ALREADY = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/[^/]+/fd/\d+")
"""A file there is the shell's, and not ours to replace."""


def write_text(path: Path, pieces: Iterable[str], option: str = "--out") -> Path:
    """Write `pieces` to `path` as UTF-8; gives `path`. Raises SinkError; a file that was there before stays then."""
    with whole(path, option) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.writelines(pieces)
    return path


@contextlib.contextmanager
def whole(path: Path, option: str = "--out") -> Iterator[Path]:
    """Where to write what shall be `path`: a file that takes its place, or is sent through it, when the block ends well.
    Raises SinkError where that cannot be written."""
    place = Path(os.path.realpath(path))
    try:
        if is_written_through(path):
            with tempfile.NamedTemporaryFile(suffix=path.suffix) as spool:
                yield Path(spool.name)
                spool.seek(0)
                with (
                    contextlib.suppress(BrokenPipeError),  # a reader that is gone has read enough
                    os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND), "wb") as out,
                ):
                    shutil.copyfileobj(spool, out)
            return
        part = place.with_name(place.name + ".part")
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(place)
        finally:
            with contextlib.suppress(OSError):  # gone where all went well; else why is said already
                part.unlink()
    except OSError as error:
        raise cannot_write(path, error, option) from error


def is_written_through(path: Path) -> bool:
    """Whether `path` is there and no file of its own that could be replaced: a pipe, a device, an open descriptor."""
    return _OPEN_ALREADY.fullmatch(str(path)) is not None or (path.exists() and not (path.is_file() or path.is_dir()))


def cannot_write(path: Path, error: OSError, option: str = "--out") -> SinkError:
    """The one line for what `option` named and cannot be written."""
    why = os.strerror(error.errno) if error.errno else str(error)  # Arrow has words of its own for the same
    return SinkError(f"{path}: cannot be written ({why}); choose another place with {option}")
