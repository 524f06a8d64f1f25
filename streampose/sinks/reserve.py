"""The outputs of a run are locked before it writes them: networks load and a first reading lasts while none is open yet."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from streampose.errors import SinkError
from streampose.sinks.paths import cannot_write, make_folder, written_elsewhere
from streampose.sinks.write_lock import is_locked, is_locked_elsewhere, lock

if sys.platform == "linux":
    import resource


class Reserved:
    """Files that are held for the sinks of this process; what is in them stays as it is. Any thread may ask.

    One that is not there is made, empty, and removed again where nothing was written. Held are at most half as many as the
    process may have open.
    """

    def __init__(self) -> None:
        self._held: dict[Path, tuple[int, bool]] = {}  # descriptor, and whether the file was made here
        self._lock = threading.Lock()

    def take(self, paths: Iterable[Path]) -> None:
        """Hold all of `paths`, or none where one cannot be: raises SinkError, also where another run has it. Devices and
        pipes are left alone."""
        if sys.platform != "linux":
            return  # no locks there
        with self._lock:
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
            new = [path for path in dict.fromkeys(paths) if path not in self._held and _can_be_held(path)]
            try:
                for path in new[: max(most - len(self._held), 0)]:
                    self._held[path] = _reserve(path)
            except SinkError:
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
            fd, made = self._held.pop(path)
            with contextlib.suppress(OSError):  # it is gone, or its folder may not be changed any more
                try:
                    status = os.fstat(fd)
                    unused = made and status.st_size == 0 and not is_locked(fd)
                    if unused and os.path.samestat(status, path.stat()):
                        path.unlink()
                finally:
                    os.close(fd)


def _can_be_held(path: Path) -> bool:
    return path.is_file() or not path.exists()


def _reserve(path: Path) -> tuple[int, bool]:
    """The descriptor that holds `path`, and whether it had to be made."""
    make_folder(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    while True:
        try:
            try:
                fd, made = os.open(path, flags | os.O_EXCL, 0o666), True
            except FileExistsError:
                fd, made = os.open(path, flags, 0o666), False
        except OSError as error:
            raise cannot_write(path, error) from error
        if not lock(fd, reserve=True) or is_locked_elsewhere(fd):
            os.close(fd)
            raise written_elsewhere(path)
        if path.exists():
            return fd, made
        os.close(fd)  # the other run that had made it removed it in between
