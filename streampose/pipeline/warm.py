"""Makes ready what a new picture size needs, in the thread of the camera that brings it: the shared stages never wait.

A network is compiled for the shape of its input, which takes a third of a second to several where no earlier run has left
it on disk. Were it left to the detect stage, one camera that comes back with another resolution would hold up all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from streampose.errors import ModelError

log = logging.getLogger(__name__)
WORTH_SAYING_S = 0.5


class WarmsUp(Protocol):
    """What must be made ready for pictures of `width` x `height` before it can look at one."""

    def is_warm(self, width: int, height: int) -> bool: ...
    def warm_up(self, width: int, height: int) -> object: ...


class WarmUp:
    """Called by producers with the size of the pictures to come, before the first of them goes out."""

    def __init__(self, parts: Sequence[WarmsUp]) -> None:
        self._parts = tuple(parts)
        self._lock = threading.Lock()  # one compilation at a time; cameras of one size wait for the same one

    def __call__(self, width: int, height: int) -> None:
        if all(part.is_warm(width, height) for part in self._parts):
            return
        with self._lock:
            cold = [part for part in self._parts if not part.is_warm(width, height)]
            began_s = time.monotonic()
            try:
                for part in cold:
                    part.warm_up(width, height)
            except ModelError as error:
                log.debug("not ready for %dx%d: %s", width, height, error)  # the stage meets the same, and ends the run
            if time.monotonic() - began_s > WORTH_SAYING_S:
                log.info("made ready for pictures of %dx%d in %.1f s", width, height, time.monotonic() - began_s)
