"""How long recordings are kept: a pure decision, the small hand that carries it out, and the thread that sees to it."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import sys
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streampose.errors import words_of
from streampose.sinks.paths import Names, Rolled
from streampose.sinks.write_lock import is_being_written

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A recorded file: when it was last written (seconds since the epoch) and its size in bytes."""

    path: Path
    modified_s: float
    size: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What to keep; None does not limit. Sizes in bytes, `min_free` is of the file system the recordings lie on."""

    keep_s: float | None = None
    keep_bytes: int | None = None
    min_free: int | None = None

    def __str__(self) -> str:
        words = []
        if self.keep_s is not None:
            words.append(f"older than {_days(self.keep_s)}")
        if self.keep_bytes is not None:
            words.append(f"beyond {_size(self.keep_bytes)} in all")
        if self.min_free is not None:
            words.append(f"while less than {_size(self.min_free)} are free")
        return " or ".join(words) or "never"


def decide(files: Iterable[Kept], rules: Rules, now_s: float, free: int, writing: Collection[Path] = ()) -> list[Kept]:
    """The files to delete, oldest first.

    Files in `writing` are never among them, though their bytes count. `free` is the free space in bytes before any
    deletion. A file dated in the future (a clock set back) is not old.
    """
    ordered = sorted(files, key=lambda kept: (kept.modified_s, str(kept.path)))
    total = sum(kept.size for kept in ordered)
    doomed: list[Kept] = []
    for kept in ordered:
        too_old = rules.keep_s is not None and now_s - kept.modified_s > rules.keep_s
        too_much = rules.keep_bytes is not None and total > rules.keep_bytes
        too_full = rules.min_free is not None and free < rules.min_free
        if not (too_old or too_much or too_full):
            break  # the next ones are younger, and nothing else changes
        if kept.path in writing:
            continue
        doomed.append(kept)
        total -= kept.size
        free += kept.size
    return doomed


class Retention:
    """Deletes the oldest recordings of `places`, whose videos and records may share one, so that they go together.

    What is being written (`names` are those of the run; other runs lock theirs) and what is another camera's stays. What it
    cannot delete it says once and leaves. Any thread may sweep; while one does, another leaves it to that one.
    """

    def __init__(self, places: Sequence[Rolled], rules: Rules, names: Names) -> None:
        self.places = tuple(places)
        self._folders = {place.folder for place in places}
        self._rules = rules
        self._names = names
        self._stuck: set[Path] = set()
        self._last_sweep_s: float | None = None
        self._announced = False
        self._lock = threading.Lock()  # held by who sweeps; nobody waits for it, since a disk may hang

    def sweep_if_due(self, now_s: float) -> list[Path]:
        """Sweep once a minute; a clock that was set back counts as due."""
        if self._last_sweep_s is not None and 0 <= now_s - self._last_sweep_s < SWEEP_EVERY_S:
            return []
        return self.sweep(now_s)

    def sweep(self, now_s: float) -> list[Path]:
        """Delete what the rules say, after saying so; gives the deleted files."""
        if not self._lock.acquire(blocking=False):
            return []
        try:
            return self._sweep(now_s)
        finally:
            self._lock.release()

    def _sweep(self, now_s: float) -> list[Path]:
        self._last_sweep_s = now_s
        doomed = self._doomed(now_s)
        if not doomed:
            return []
        if not self._announced:
            folders = ", ".join(sorted(map(str, self._folders)))
            log.warning("retention: from now on recordings under %s are deleted %s", folders, self._rules)
            self._announced = True
        size = _size(sum(kept.size for kept in doomed))
        log.warning("retention: deleting %d recordings, %s, oldest first from %s", len(doomed), size, doomed[0].path)
        return [kept.path for kept in doomed if self._delete(kept.path)]

    def _doomed(self, now_s: float) -> list[Kept]:
        """What the rules say, without what another run is writing; only files whose turn it is are looked at for that."""
        files, free = self._find(), self._free()
        writing, seen = set(self._names.writing()), set[Path]()
        while True:
            doomed = decide(files, self._rules, now_s, free, writing)
            unseen = [kept.path for kept in doomed if kept.path not in seen]
            busy = [path for path in unseen if is_being_written(path)]
            if not busy:
                return doomed
            writing.update(busy)
            seen.update(unseen)

    def _find(self) -> list[Kept]:
        found: dict[Path, Kept] = {}
        for place in self.places:
            for path in place.find():
                if path in self._stuck or (place.number(path) != 1 and self._names.is_first(path)):
                    continue
                try:
                    status = path.stat()
                except OSError:
                    continue  # deleted by someone else between the listing and the look
                if stat.S_ISREG(status.st_mode):
                    found[path] = Kept(path, status.st_mtime, status.st_size)
        return list(found.values())

    def _free(self) -> int:
        """Of the first place's disk; where it does not say, nothing is deleted for want of space."""
        try:
            folder = self.places[0].folder.absolute()
            existing = next(place for place in (folder, *folder.parents) if os.path.exists(place))
            return shutil.disk_usage(existing).free
        except OSError:
            return sys.maxsize

    def _delete(self, path: Path) -> bool:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._stuck.add(path)
            log.error("retention: %s cannot be deleted (%s); it stays", path, words_of(error))
            return False
        for folder in path.parents:
            if folder in self._folders or not _removed(folder):
                break
        return True


class Sweeper:
    """The body of thread `retention`: sweeps all of a run once a minute, whatever their cameras do, so that files go on to
    be deleted while a camera is away or after it was taken out, and on a disk so full that nothing is written any more."""

    def __init__(self) -> None:
        self._retentions: dict[tuple[Rolled, ...], Retention] = {}
        self._over = threading.Event()

    def add(self, retention: Retention) -> None:
        """Sweep one more, in place of the earlier one of the same files; any thread may call."""
        self._retentions[retention.places] = retention

    def run(self) -> None:
        while not self._over.wait(SWEEP_EVERY_S):
            for retention in list(self._retentions.values()):
                retention.sweep_if_due(time.time())

    def end(self) -> None:
        """The run is over; may be called again."""
        self._over.set()


def _removed(folder: Path) -> bool:
    """Whether a folder could be removed: it holds nothing, and no other camera was faster."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _size(size: int) -> str:
    for unit, power in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= power:
            return f"{size / power:.1f} {unit}"
    return f"{size} B"


def _days(seconds: float) -> str:
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"
