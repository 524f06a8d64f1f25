"""Where outputs go: names made from templates, folders made on the way, and the one line when that fails.

A template is a path with `{camera}`, and where files roll with the wall clock also `{date}` (2026-11-25) and `{time}`
(02-30-00), both UTC. A rolling template without the two gets a folder of its own: `out/gate.mp4` becomes
`out/gate/2026-11-25/02-30-00.mp4`.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
import threading
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path

from streampose.errors import ConfigError, SinkError

_FIELD = re.compile(r"\{([^{}]*)\}")
_KNOWN = ("camera", "date", "time")


def check_template(template: str) -> str:
    """The template itself; raises ConfigError for a field that is not known, a brace alone, and nothing at all."""
    if not template.strip():
        raise ConfigError("empty; a path is wanted")
    if re.search(r"[{}]", _FIELD.sub("", template)):
        raise ConfigError(
            f"{template}: a brace without its other one; {{camera}}, {{date}} and {{time}} can be written"
        )
    for field in _FIELD.findall(template):
        if field not in _KNOWN:
            raise ConfigError(f"{template}: unknown field {{{field}}}; known are {{camera}}, {{date}} and {{time}}")
    return template


def fill(template: str, camera: str, wall_s: float | None = None) -> Path:
    """The path of a template for one camera; `wall_s` (seconds since the epoch) makes it the name of a rolled file."""
    check_template(template)
    if wall_s is None:
        return Path(template.replace("{camera}", camera))
    if "{date}" not in template and "{time}" not in template:
        path = Path(template)
        template = str(path.with_suffix("") / "{date}" / ("{time}" + path.suffix))
    moment = datetime.fromtimestamp(wall_s, UTC)
    named = template.replace("{date}", moment.strftime("%Y-%m-%d")).replace("{time}", moment.strftime("%H-%M-%S"))
    return Path(named.replace("{camera}", camera))


def rolled_pattern(template: str, camera: str) -> tuple[Path, str]:
    """Folder and glob pattern that find the files which `fill` makes of a rolling template for one camera."""
    marked = str(fill(template.replace("{date}", "\0").replace("{time}", "\1"), camera))
    if "\0" not in marked and "\1" not in marked:
        path = Path(marked)
        marked = str(path.with_suffix("") / "\0" / ("\1" + path.suffix))
    parts = Path(marked).parts
    fixed = next(number for number, part in enumerate(parts) if "\0" in part or "\1" in part)
    date, time = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]", "[0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
    globs = [part.replace("\0", date) for part in parts[fixed:]]
    # What follows a time may be "-2" (a second file in the same second or segment) or ".source".
    pattern = "/".join(part.replace("\1", time + "*") for part in globs)
    return Path(*parts[:fixed]) if fixed else Path(), pattern


def numbered(path: Path, number: int, taken: Collection[Path] = ()) -> Path:
    """The name of the n-th file: the first keeps its plain name, the second is `name-2.ext`. Names in `taken`, with which
    others begin, are left out after the first."""
    later = (path.with_name(f"{path.stem}-{n}{path.suffix}") for n in count(2))
    free = (name for name in later if name not in taken)
    return path if number < 2 else next(islice(free, number - 2, None))


class Names:
    """The names of the files of one run, each given once, so that no camera writes over what it or another has made.

    `taken`: the names with which others begin. Any thread may ask.
    """

    def __init__(self, taken: Iterable[Path] = ()) -> None:
        self._taken = set(taken)
        self._given: set[Path] = set()
        self._lock = threading.Lock()  # cameras are added from the main thread while sinks begin files in theirs

    def take(self, paths: Iterable[Path]) -> None:
        """From now on only who asks for one of `paths` itself gets it."""
        with self._lock:
            self._taken.update(paths)

    def give(self, first: Path, *, replace: bool = True) -> Path:
        """The next name of those that begin with `first` (see `numbered`): `first` itself, unless it was given before.
        With `replace` off none of a file that is there, left by an earlier run."""
        with self._lock:
            number = 2 if first in self._given else 1
            while not replace and numbered(first, number, self._taken).is_file():
                number += 1
            path = numbered(first, number, self._taken)
            self._given.add(path)
            self._taken.add(path)
            return path


def unused(path: Path) -> Path:
    """`path`, or the first `name-2.ext`, `name-3.ext` … that does not exist: rolled files never overwrite one another."""
    number = 1
    while numbered(path, number).exists():
        number += 1
    return numbered(path, number)


def make_folder(path: Path) -> None:
    """Make the folder that `path` will lie in; raises SinkError where `path` cannot be a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    if path.is_dir():
        raise SinkError(f"{path}: this is a folder; name a file in it, such as {path / ('out' + path.suffix)}")


def check_apart(path: Path, sources: Iterable[Path]) -> None:
    """See that an output is none of the files that are read; raises SinkError, since it would be lost."""
    if os.path.isfile(path) and any(os.path.isfile(source) and path.samefile(source) for source in sources):
        raise SinkError(f"{path}: this is what is read, and would be lost; choose another path for what is written")


def check_writable(path: Path) -> None:
    """Make the folder of `path` and see that a file can be written there, leaving what is in it as it is.

    Raises SinkError, one line, so that a run need not find out at its first frame.
    """
    make_folder(path)
    try:
        if path.is_file():
            os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        elif not path.exists():  # a device or pipe is whatever it is
            tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path | str, error: OSError) -> SinkError:
    """The one line for an output that cannot be written: what, why, and what would be right."""
    advice = {
        errno.ENOSPC: "the disk is full; free some space or write elsewhere",
        errno.EDQUOT: "the disk quota is used up; free some space or write elsewhere",
        errno.EFBIG: "the file reached the largest size allowed here; roll files with `segment:` or raise the limit",
        errno.EACCES: "no permission to write there; choose another path or change its owner",
        errno.EPERM: "no permission to write there; choose another path or change its owner",
        errno.EROFS: "that file system is read-only; choose another path",
        errno.ENOTDIR: "a part of that path is a file, not a folder; choose another path",
        errno.EEXIST: "a part of that path is a file, not a folder; choose another path",
        errno.EISDIR: "this is a folder; name a file in it",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
        errno.EIO: "the device failed; check the disk",
    }
    why = advice.get(error.errno or 0)
    if why is None:
        why = (os.strerror(error.errno) if error.errno else str(error)) + "; choose a path that can be written"
    return SinkError(f"{path}: cannot be written: {why}")
