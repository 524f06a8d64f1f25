"""Taking back the half-written end of a fragmented MP4 after the disk said no, so that all that is left plays."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_HEADER = struct.Struct(">I4s")


def trim_to_whole_fragments(path: Path) -> int:
    """Cut `path` behind its last whole `mdat` box; gives the bytes taken away.

    Boxes as in ISO/IEC 14496-12, 4.2: 32-bit size and type, size 1 for a 64-bit size behind the type. A file that holds
    no whole fragment, and one that is no MP4, is left as it is.
    """
    total = path.stat().st_size
    with path.open("r+b") as file:
        whole = _end_of_last_fragment(file, total)
        if whole is None or whole == total:
            return 0
        file.truncate(whole)
    return total - whole


def _end_of_last_fragment(file: BinaryIO, total: int) -> int | None:
    position, whole = 0, None
    while position + _HEADER.size <= total:
        file.seek(position)
        size, kind = _HEADER.unpack(file.read(_HEADER.size))
        if size == 1:
            extended = file.read(8)
            if len(extended) < 8:
                break
            (size,) = struct.unpack(">Q", extended)
        if size < _HEADER.size:
            break  # size 0 ("to the end of the file") and nonsense
        position += size
        if kind == b"mdat" and position <= total:
            whole = position
    return whole
