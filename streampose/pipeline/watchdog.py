"""Whether a network still answers: a call into it that never returns would leave every camera unwatched without a word."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from streampose.errors import ModelError

HUNG_S = 120.0
COUNTED_S = 1.0  # of the time between two looks: a process that was stopped (SIGSTOP, a debugger) did not wait


class Asked:
    """The calls of one stage into its networks, told by its thread and looked at by another."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0
        self.under_way = False

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around each call."""
        self.calls += 1
        self.under_way = True
        try:
            yield
        finally:
            self.under_way = False


class Watchdog:
    """Looks whether any of `asked` has been in one and the same call for HUNG_S seconds."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        self._waited_s = dict.fromkeys(asked, (0, 0.0))  # the call, and for how long it has lasted
        self._looked_s = time.monotonic()

    def look(self) -> None:
        """To be called every second or more often. Raises ModelError for a network that does not answer."""
        now_s = time.monotonic()
        counted_s = min(now_s - self._looked_s, COUNTED_S)
        self._looked_s = now_s
        for each, (call, waited_s) in self._waited_s.items():
            now = each.calls
            waited_s = waited_s + counted_s if each.under_way and now == call else 0.0
            self._waited_s[each] = (now, waited_s)
            if waited_s >= HUNG_S:
                raise ModelError(
                    f"{each.name}: its network has not answered for {HUNG_S:g} s: the device or its driver hangs; "
                    "the run ends, so that a supervisor can begin it anew"
                )
