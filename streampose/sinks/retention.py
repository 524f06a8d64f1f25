"""How long recordings are kept: a pure decision, and the small hand that carries it out."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streampose.errors import words_of

log = logging.getLogger(__name__)

_SWEEP_EVERY_S = 60.0


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
    """Deletes the oldest recordings found by `places`, pairs of a folder and a glob pattern (`paths.rolled_pattern`).

    Videos and their records may share one Retention, so that they go together. Writers `claim` a file before they open
    it and `release` it when it is closed. What it cannot delete it says once and leaves.
    """

    def __init__(self, places: Sequence[tuple[Path, str]], rules: Rules) -> None:
        self._places = list(places)
        self._rules = rules
        self._writing: set[Path] = set()
        self._stuck: set[Path] = set()
        self._last_sweep_s: float | None = None
        self._announced = False

    def claim(self, path: Path) -> None:
        self._writing.add(path)

    def release(self, path: Path) -> None:
        self._writing.discard(path)

    def sweep_if_due(self, now_s: float) -> list[Path]:
        """Sweep once a minute; a clock that was set back counts as due."""
        if self._last_sweep_s is not None and 0 <= now_s - self._last_sweep_s < _SWEEP_EVERY_S:
            return []
        return self.sweep(now_s)

    def sweep(self, now_s: float) -> list[Path]:
        """Delete what the rules say, after saying so; gives the deleted files."""
        self._last_sweep_s = now_s
        doomed = decide(self._find(), self._rules, now_s, self._free(), self._writing.copy())
        if not doomed:
            return []
        if not self._announced:
            folders = ", ".join(sorted({str(folder) for folder, _ in self._places}))
            log.warning("retention: from now on recordings under %s are deleted %s", folders, self._rules)
            self._announced = True
        size = _size(sum(kept.size for kept in doomed))
        log.warning("retention: deleting %d recordings, %s, oldest first from %s", len(doomed), size, doomed[0].path)
        return [kept.path for kept in doomed if self._delete(kept.path)]

    def _find(self) -> list[Kept]:
        found: dict[Path, Kept] = {}
        for folder, pattern in self._places:
            for path in folder.glob(pattern):
                try:
                    status = path.stat()
                except OSError:
                    continue  # deleted by someone else between the listing and the look
                if path not in self._stuck and path.is_file():
                    found[path] = Kept(path, status.st_mtime, status.st_size)
        return list(found.values())

    def _free(self) -> int:
        for folder, _ in self._places:
            existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
            return shutil.disk_usage(existing).free
        return 0

    def _delete(self, path: Path) -> bool:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._stuck.add(path)
            log.error("retention: %s cannot be deleted (%s); it stays", path, words_of(error))
            return False
        if not any(path.parent.iterdir()) and path.parent not in [folder for folder, _ in self._places]:
            path.parent.rmdir()
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
