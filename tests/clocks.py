"""Clocks that tests control: bounds on time that hold on a machine of any speed, however busy it is."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from streampose.pipeline import keeper

STEP_S = 0.01


class StillClock:
    """In place of the module `time`: time passes only while somebody sleeps, and then at once."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class OwnTime:
    """Seconds as this process gets to live them, within a with-block: the short sleeps of one of its threads, counted.

    On a quiet machine these are the seconds of any clock. Where it does other things, too, that thread wakes late, as all of
    this process do: so what merely waits takes as long by this clock as it was meant to, and nothing longer.
    """

    def __init__(self) -> None:
        self._woke_s: list[float] = []  # by time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count, name="own time", daemon=True)

    def __enter__(self) -> OwnTime:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _count(self) -> None:
        while not self._over.is_set():
            time.sleep(STEP_S)
            self._woke_s.append(time.monotonic())

    @property
    def seconds(self) -> float:
        """Since the block began, and until it ended."""
        return len(self._woke_s) * STEP_S

    def between_s(self, since_s: float, until_s: float) -> float:
        """Between two moments of `time.monotonic()`."""
        return (bisect.bisect(self._woke_s, until_s) - bisect.bisect(self._woke_s, since_s)) * STEP_S


class AskedWaits:
    """How long each keeper asks to wait from its stop on, by the name of its thread, in seconds: the wait that the stop
    comes into, in full, and all that follow. What a machine makes of them is its own matter."""

    def __init__(self, patch: pytest.MonkeyPatch, stopped: Callable[[], bool]) -> None:
        self.by_thread: dict[str, float] = {}
        self._stopped = stopped
        for name in ("next", "end"):
            patch.setattr(keeper.Reading, name, self._noted(getattr(keeper.Reading, name)))
        patch.setattr(keeper, "time", SimpleNamespace(monotonic=time.monotonic, sleep=self._noted(time.sleep)))

    def _noted(self, wait: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            thread = threading.current_thread().name
            before_s = self.by_thread.get(thread, 0.0) if self._stopped() else 0.0
            self.by_thread[thread] = before_s + given[-1]
            return wait(*given)

        return noted
