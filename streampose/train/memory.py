"""Memory that a training lacks: one line that says what needs less, in the place of an allocator's traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from streampose.errors import StreamposeError, words_of

_USED_UP = "out of memory", "ALLOC_FAILED", "can't allocate memory"


@contextmanager
def telling_of_memory() -> Iterator[None]:
    """Around a training: memory of a device or of the machine that is used up is a StreamposeError, in one line."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _of_memory(error):
            raise
        raise StreamposeError(
            f"out of memory ({words_of(error)}); lower `batch` or the input's size, train on fewer people or pictures, "
            "or, on a GPU, take `device: cpu`"
        ) from error


def _of_memory(error: RuntimeError | MemoryError) -> bool:
    """torch has a class of its own for some devices alone; of the others and of the machine's memory its message tells."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in _USED_UP)
