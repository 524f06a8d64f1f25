"""The lock on a file that is written: by it other runs know not to empty or delete it.

It is an open file description lock of Linux on one byte far behind every end; the byte after that is locked by a run that is
going to write the file (`reserve.py`). A lock of the whole file (`flock`) would, on
an SMB share, keep readers from it, and the muxer that writes through a descriptor of its own. Where there are no such locks
nobody knows.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from pathlib import Path

if sys.platform == "linux":
    import fcntl

BINARY: int = getattr(os, "O_BINARY", 0)
"""Added to the flags of a file that is opened for writing: Windows would else write another end of line."""

_FLOCK = struct.Struct("hhqqi0q")  # type, whence, start, length, pid: struct flock of fcntl(2)
_BYTE = 1 << 62
_RESERVED = _BYTE + 1
_DESCRIPTORS = "/proc/self/fd"
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def lock(fd: int, *, reserve: bool = False) -> bool:
    """Lock the file of `fd`, which is open for writing, until it is closed; False where it is locked through another
    descriptor. One descriptor may `reserve` what another one locks to write it. One that is open for reading alone keeps
    others from locking the file, too."""
    byte = _RESERVED if reserve else _BYTE
    if sys.platform == "linux":
        reads = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        kind = fcntl.F_RDLCK if reads else fcntl.F_WRLCK  # more than that needs a file open for writing
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            if error.errno not in _NO_LOCKS:
                raise
    return True


def is_locked(fd: int) -> bool:
    """Whether the file of `fd` is locked, or reserved, through another descriptor, of whichever process."""
    if sys.platform != "linux":
        return False
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 2, 0))
    except OSError:
        return False  # no locks there
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def is_locked_elsewhere(fd: int) -> bool:
    """Whether another process has locked, or reserved, the file of `fd`."""
    return is_locked(fd) and not _is_written_here(fd)


def is_being_written(path: Path) -> bool:
    """Whether somebody has locked, or reserved, the file `path`; one that cannot be opened is taken for free."""
    if sys.platform != "linux":
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return is_locked(fd)
    finally:
        os.close(fd)


def _is_written_here(fd: int) -> bool:
    """Whether this process has the file of `fd` open for writing elsewhere, too; the lock does not tell whose it is. Where
    /proc is missing it is taken to: a run reserves its outputs, and would else keep itself from writing them."""
    status = os.fstat(fd)
    try:
        others = [int(name) for name in os.listdir(_DESCRIPTORS)]
    except OSError:
        return True
    for other in others:
        try:
            same = other != fd and os.path.samestat(status, os.fstat(other))
            if same and fcntl.fcntl(other, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
                return True
        except OSError:  # closed since the listing
            continue
    return False
