"""The outputs of a run are locked before it writes them: networks load and a first reading lasts while none is open yet."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from streampose.sinks.paths import cannot_write, make_folder, written_elsewhere
from streampose.sinks.write_lock import is_locked, is_locked_elsewhere, lock

if sys.platform == "linux":
    import resource


class Reserved:
    """Files that are held for the sinks of this process; what is in them stays as it is. Any thread may ask.

    One that is not there is made, empty. One that is empty at the end, though a killed run may have left it so, is removed.
    Held are at most an eighth as many as the process may have open.
    """

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}
        self._lock = threading.Lock()

    def take(self, paths: Iterable[Path]) -> None:
        """Hold all of `paths`, or none where one cannot be: raises SinkError, also where another run has it. Devices and
        pipes are left alone."""
        if sys.platform != "linux":
            return  # no locks there
        with self._lock:
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8
            new = [path for path in dict.fromkeys(paths) if path not in self._held and _can_be_held(path)]
            try:
                for path in new[: max(most - len(self._held), 0)]:
                    self._held[path] = _reserve(path)
            except BaseException:
                self._release(new)
                raise

    def keep(self, paths: Iterable[Path]) -> None:
        """Let go of all but `paths`."""
        with self._lock:
            self._release(self._held.keys() - set(paths))

    def release(self, paths: Iterable[Path]) -> None:
        """Let go of `paths`, as far as they are held."""
        with self._lock:
            self._release(paths)

    def _release(self, paths: Iterable[Path]) -> None:
        for path in [path for path in paths if path in self._held]:
            _let_go(path, self._held.pop(path))


def _can_be_held(path: Path) -> bool:
    return os.path.isfile(path) or not os.path.exists(path)


def _reserve(path: Path) -> int:
    """The descriptor that holds `path`, which is made where it is not there."""
    make_folder(path)
    while True:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                if not lock(fd, reserve=True) or is_locked_elsewhere(fd):
                    raise written_elsewhere(path)
                if path.exists():
                    return fd
            except BaseException:
                _let_go(path, fd)
                raise
            os.close(fd)  # the other run that had made it removed it in between
        except OSError as error:
            raise cannot_write(path, error) from error


def _let_go(path: Path, fd: int) -> None:
    """Close what was held, and remove it where it is empty and nobody is going to write it."""
    try:
        try:
            mine = lock(fd)  # from here on no sink begins to write it
        except OSError:
            mine = True  # where locks fail none can
        with contextlib.suppress(OSError):  # it is gone, or its folder may not be changed any more
            status = os.fstat(fd)
            if mine and status.st_size == 0 and not is_locked(fd) and os.path.samestat(status, path.stat()):
                path.unlink()
    finally:
        os.close(fd)
