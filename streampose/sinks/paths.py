"""Where outputs go: names made from templates, folders made on the way, and the one line when that fails.

A template is a path with `{camera}`, and where files roll with the wall clock also `{date}` (2026-11-25) and `{time}`
(02-30-00), both UTC. A rolling template without the two gets a folder of its own: `out/gate.mp4` becomes
`out/gate/2026-11-25/02-30-00.mp4`.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path

from streampose.errors import ConfigError, SinkError
from streampose.sinks.write_lock import BINARY, is_locked_elsewhere, lock

_FIELD = re.compile(r"\{([^{}]*)\}")
_KNOWN = ("camera", "date", "time")
_MARK = re.compile(r"(\{date\}|\{time\})")
_TWO = "[0-9][0-9]"  # the same to glob and to re
_DIGITS = {"{date}": f"{_TWO}{_TWO}-{_TWO}-{_TWO}", "{time}": f"{_TWO}-{_TWO}-{_TWO}"}
_TRIES = 10


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
    if wall_s is not None:
        moment = datetime.fromtimestamp(wall_s, UTC)
        template = _rolling(template).replace("{date}", moment.strftime("%Y-%m-%d"))
        template = template.replace("{time}", moment.strftime("%H-%M-%S"))
    return Path(template.replace("{camera}", camera))


def source_template(template: str) -> str:
    """Where the source stream goes beside the annotated one: `out/gate.mp4` becomes `out/gate.source.mp4`."""
    path = Path(template)
    return str(path.with_name(f"{path.stem}.source{path.suffix}"))


def _rolling(template: str) -> str:
    """What the files of a rolling template are named by: itself, or in a folder of its own without date and time."""
    if "{date}" in template or "{time}" in template:
        return template
    path = Path(template)
    return str(path.with_suffix("") / "{date}" / f"{{time}}{path.suffix}")


class Rolled:
    """The files which `fill` makes of a rolling template for one camera. All of them lie below `folder`."""

    def __init__(self, template: str, camera: str) -> None:
        path = Path(_rolling(check_template(template)).replace("{camera}", camera))
        first = next(number for number, part in enumerate(path.parts) if _MARK.search(part))
        self.folder = Path(*path.parts[:first])
        stem, suffix = str(path.with_name(path.stem)), path.suffix
        self._name = re.compile(f"{_marked(stem, re.escape)}(?:-([2-9]|[1-9][0-9]+))?{_marked(suffix, re.escape)}")
        self._glob = f"{_marked(stem, glob.escape)}*{_marked(suffix, glob.escape)}"

    def number(self, path: Path) -> int | None:
        """The n of the n-th file of its name (see `numbered`); None for one that is none of these."""
        match = self._name.fullmatch(str(path))
        return None if match is None else int(match[1] or 1)

    def find(self) -> list[Path]:
        """Those that are there; what cannot be looked into has none."""
        return [path for path in map(Path, glob.iglob(self._glob)) if self.number(path) is not None]


def _marked(text: str, escape: Callable[[str], str]) -> str:
    """`text` escaped, but for `{date}` and `{time}`, which become the digits they stand for."""
    return "".join(_DIGITS[part] if part in _DIGITS else escape(part) for part in _MARK.split(text))


def numbered(path: Path, number: int, taken: Collection[Path] = ()) -> Path:
    """The name of the n-th file: the first keeps its plain name, the second is `name-2.ext`. Names in `taken`, with which
    others begin, are left out after the first."""
    free = (name for name in names_of(path) if name == path or name not in taken)
    return next(islice(free, max(number, 1) - 1, None))


def names_of(path: Path) -> Iterator[Path]:
    """`path`, `name-2.ext`, `name-3.ext` …"""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")


class Names:
    """The names of the files of one run, each given once, so that no camera writes over what it or another has made, and
    which of its rolled files are being written.

    `taken`: the names with which others begin. Any thread may ask.
    """

    def __init__(self, taken: Iterable[Path] = ()) -> None:
        self._taken = set(taken)
        self._given: set[Path] = set()
        self._writing: set[Path] = set()
        self._rolled: dict[tuple[str, str], Rolled] = {}
        self._lock = threading.Lock()  # cameras are added from the main thread while sinks begin files in theirs

    def take(self, paths: Iterable[Path]) -> None:
        """From now on only who asks for one of `paths` itself gets it."""
        with self._lock:
            self._taken.update(paths)

    def give(self, first: Path, *, replace: bool = True) -> Path:
        """The next name of those that begin with `first` (see `numbered`): `first` itself, unless it was given before.
        With `replace` off none of a file that holds anything, left by an earlier run."""
        with self._lock:
            number = 2 if first in self._given else 1
            while not replace and _holds_anything(numbered(first, number, self._taken)):
                number += 1
            path = numbered(first, number, self._taken)
            self._given.add(path)
            self._taken.add(path)
            return path

    def roll(self, template: str, camera: str) -> Rolled:
        """The files that roll by a template for one camera; from now on the first of each name is only theirs."""
        with self._lock:
            if (template, camera) not in self._rolled:
                self._rolled[template, camera] = Rolled(template, camera)
            return self._rolled[template, camera]

    def is_first(self, path: Path) -> bool:
        """Whether `path` is the first of its name by a template that rolls: `02-30-00-gate-2.mp4` is of camera gate-2."""
        with self._lock:
            rolled = list(self._rolled.values())
        return any(files.number(path) == 1 for files in rolled)

    def claim(self, first: Path) -> Path:
        """A rolled file to write, until `release`: `first`, or the next of its name (see `numbered`) that is neither there
        nor another's. It is made, empty, so that no other run takes it at the same moment. Raises SinkError."""
        return next(path for path in names_of(first) if self._claimed(path, path == first))

    def _claimed(self, path: Path, is_first: bool) -> bool:
        with self._lock:
            if path in self._writing:
                return False
            self._writing.add(path)  # before the look, so that no two find the same one free
        claimed = False
        try:
            claimed = (is_first or not self.is_first(path)) and _make_new(path)
        finally:
            if not claimed:
                self.release(path)
        return claimed

    def release(self, path: Path) -> None:
        """The file is closed; one that was not claimed may be released, too."""
        with self._lock:
            self._writing.discard(path)

    def writing(self) -> frozenset[Path]:
        """The rolled files that are being written."""
        with self._lock:
            return frozenset(self._writing)


def _holds_anything(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def make_folder(path: Path) -> None:
    """Make the folder that `path` will lie in; raises SinkError where `path` cannot be a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    if os.path.isdir(path):
        raise SinkError(f"{path}: this is a folder; name a file in it, such as {path / ('out' + path.suffix)}")


def create(path: Path) -> int:
    """Make an empty file, and the folder that it lies in; gives its descriptor, for writing. It is locked until that is
    closed (`write_lock.py`). Raises SinkError, also where another run has it locked."""
    return _create(path, 0)


def _make_new(path: Path) -> bool:
    """Make an empty file, unless there is one; whether there was none."""
    try:
        os.close(_create(path, os.O_EXCL))
    except SinkError as error:
        if isinstance(error.__cause__, FileExistsError) and os.path.lexists(path):
            return False
        raise
    return True


def _create(path: Path, flags: int) -> int:
    """As `create`. A retention may take the folder, or those above it, in between, for they are empty."""
    tries = 0
    while True:
        tries += 1
        try:
            make_folder(path)
            return _emptied(path, flags)
        except SinkError as error:
            if not isinstance(error.__cause__, FileNotFoundError | FileExistsError) or tries == _TRIES:
                raise
        except OSError as error:
            if not isinstance(error, FileNotFoundError) or tries == _TRIES:
                raise cannot_write(path, error) from error


def _emptied(path: Path, flags: int) -> int:
    """The descriptor of a file that is made, or emptied once nobody else is known to write it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | BINARY | flags, 0o666)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):  # a pipe or device is whatever it is
            if not lock(fd) or is_locked_elsewhere(fd):
                raise written_elsewhere(path)
            if not path.exists():  # another run had reserved it and removed it in between
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            os.ftruncate(fd, 0)
    except (OSError, SinkError):
        os.close(fd)
        raise
    return fd


def check_apart(path: Path, sources: Iterable[Path]) -> None:
    """See that an output is none of the files that are read; raises SinkError, since it would be lost."""
    if os.path.isfile(path) and any(os.path.isfile(source) and path.samefile(source) for source in sources):
        raise SinkError(f"{path}: this is what is read, and would be lost; choose another path for what is written")


def check_writable(path: Path) -> None:
    """Make the folder of `path` and see that a file can be written there, leaving what is in it as it is.

    Raises SinkError, one line, so that a run need not find out at its first frame. What this process writes itself (a reload
    asks again) it may go on writing, but for its standard output.
    """
    make_folder(path)
    try:
        if _is_standard_output(path):
            raise SinkError(f"{path}: is standard output, where the report of the run goes; name another file")
        if path.is_file():
            fd = os.open(path, os.O_WRONLY)
            try:
                if is_locked_elsewhere(fd):
                    raise written_elsewhere(path)
            finally:
                os.close(fd)
        elif not path.exists():  # a device or pipe is whatever it is
            tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise cannot_write(path, error) from error


def _is_standard_output(path: Path) -> bool:
    """Whether `path` is what standard output goes to, by whatever name; what is thrown away may be of both."""
    if not path.exists():
        return False
    there = path.stat()
    return os.path.samestat(there, os.fstat(1)) and not os.path.samestat(there, os.stat(os.devnull))


def written_elsewhere(path: Path) -> SinkError:
    """The one line for an output that another run writes."""
    return SinkError(f"{path}: is being written by another run; end that one or choose another path")


def cannot_write(path: Path | str, error: OSError, lost: int = 0) -> SinkError:
    """The one line for an output that cannot be written: what, why, and what would be right. `lost` as in SinkError."""
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
    return SinkError(f"{path}: cannot be written: {why}", lost)
