"""Compiled networks kept between starts: one checked file an entry, safe for many processes, rebuilt when damaged.

An entry's name is a digest of all it depends on. Its file is the payload followed by the payload's SHA-256; it is
written beside and renamed, so that a reader sees a whole entry or none, and two writers leave one of two equal files.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

from streampose.errors import words_of

log = logging.getLogger(__name__)
DIGEST_BYTES = 32
EXPORT_VERSION = 6
"""Counts changes of what `convert.py` makes of a network; part of every key, so that such a change empties the cache."""

_unwritten: dict[Path, bytes] = {}
"""What could not be stored: for one process at least, a network is converted once for all batches and picture sizes."""

_unreadable: set[Path] = set()
"""Entries of which it was said that they may not be read."""

_unwritable: set[Path] = set()
"""Folders of which it was said that nothing can be written there."""


def cache_folder() -> Path:
    """`STREAMPOSE_CACHE`, or the platform's place for caches."""
    if named := os.environ.get("STREAMPOSE_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local") / "streampose" / "cache"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "streampose"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "streampose"


def has_home() -> bool:
    """Whether what is stored in the cache is there when the next process asks for it."""
    named = any(os.environ.get(name) for name in ("STREAMPOSE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"))
    return named or _known_home() is not None


def _known_home() -> Path | None:
    """The user's home; None where nobody knows it, as of a numeric user in a container."""
    if os.environ.get("HOME") == "":
        return None
    try:
        return Path.home()
    except RuntimeError:
        return None


def _home() -> Path:
    return _known_home() or Path(_no_home())


@functools.cache
def _no_home() -> str:
    """A folder that goes with the process, for in one that others can make before us there could be networks of theirs; one
    that cannot be made where there is no place for temporary files either."""
    log.warning(
        "no home directory is known: networks are compiled again at every start; set STREAMPOSE_CACHE to a folder"
    )
    try:
        folder = tempfile.mkdtemp(prefix="streampose-")
    except OSError:
        return os.devnull
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def entry_path(kind: str, key: Mapping[str, object], suffix: str) -> Path:
    """Where the entry of `kind` ("openvino") that depends on `key` lies, whether it exists or not."""
    text = json.dumps(key, sort_keys=True, default=str)
    return cache_folder() / kind / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}{suffix}"


def read(path: Path) -> bytes | None:
    """The payload of an entry; None where there is none, it may not be read, or it is damaged and so removed."""
    try:
        content = path.read_bytes()
    except PermissionError as error:
        if path not in _unreadable:
            log.warning("%s: %s: made again", path, words_of(error))
            _unreadable.add(path)
        return None
    except OSError:
        return None
    payload, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if len(content) > DIGEST_BYTES and hashlib.sha256(payload).digest() == digest:
        return payload
    log.warning("%s: damaged cache entry, made again", path)
    discard(path)
    return None


def discard(path: Path) -> None:
    """Remove an entry that turned out to be unusable."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s: cannot be removed (%s)", path, words_of(error))


def write(path: Path, payload: bytes) -> bool:
    """Store an entry; False, said once in the log, where the cache cannot be written (the caller goes on without)."""
    part = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = part.open("xb")  # for whoever the umask lets read it: several users may share a cache
    except OSError as error:
        if cache_folder() not in _unwritable:
            log.warning("%s: no cache (%s): networks are compiled again at every start", path.parent, words_of(error))
            _unwritable.add(cache_folder())
        return False
    try:
        with file:
            file.write(payload)
            file.write(hashlib.sha256(payload).digest())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        log.warning("%s: not cached (%s)", path, words_of(error))
        return False
    return True


def cached(path: Path, build: Callable[[], bytes]) -> tuple[bytes, bool]:
    """The payload at `path`, and whether it was there; otherwise built and stored, in memory where the disk takes none."""
    found = read(path) or _unwritten.get(path)
    if found is not None:
        return found, True
    payload = build()
    if not write(path, payload):
        _unwritten[path] = payload
    return payload, False
