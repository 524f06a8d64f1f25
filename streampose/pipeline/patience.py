"""How long to wait for a camera: between two tries, and for its next picture."""

from __future__ import annotations

import random
import statistics
from collections import deque
from collections.abc import Callable

PACE_STEPS = 3, 9  # steps between pictures until a pace is known, and those it is the median of


class Backoff:
    """How long to wait before the next try: exponential with full jitter (uniform between 0 and the step) and a cap.

    Full jitter keeps many cameras behind one switch from coming back in step. `draw` gives numbers in 0..1.
    """

    def __init__(self, first_s: float, cap_s: float, draw: Callable[[], float] = random.random) -> None:
        if not 0 < first_s <= cap_s:
            raise ValueError(f"a backoff needs 0 < first_s <= cap_s, got {first_s} and {cap_s}")
        self._first_s = first_s
        self._cap_s = cap_s
        self._draw = draw
        self.tries = 0

    def next_s(self, at_least_s: float = 0.0, took_s: float = 0.0) -> float:
        """The wait before the next try, in seconds; never less than half of `at_least_s`, and up to that where it is larger.

        It counts from the begin of the failed try, which took `took_s`; what is drawn of the first step is waited in any
        case, so that cameras which fall silent together do not stay in step.
        """
        step_s = min(self._cap_s, self._first_s * 2.0 ** min(self.tries, 32))
        self.tries += 1
        drawn = self._draw()
        wait_s = max(step_s * drawn, at_least_s * (0.5 + 0.5 * drawn))
        return max(wait_s - took_s, self._first_s * drawn)

    def reset(self) -> None:
        """The source works again: the next failure begins with the shortest wait."""
        self.tries = 0


class Pace:
    """How far apart the pictures of a camera are: the median of the last steps of its own clock, over all its connections.

    What a container announces may lie, and pictures may arrive in bursts, be skipped, or lost now and then.
    """

    def __init__(self) -> None:
        self._steps_s: deque[float] = deque(maxlen=PACE_STEPS[1])

    def add(self, step_s: float) -> None:
        """`step_s` seconds lay between two pictures of one connection."""
        self._steps_s.append(step_s)

    @property
    def sure(self) -> bool:
        """Whether a burst at the begin of a connection cannot have made the pace."""
        return len(self._steps_s) == PACE_STEPS[1]

    @property
    def step_s(self) -> float | None:
        """The usual step in seconds, None until enough were seen."""
        return statistics.median(self._steps_s) if len(self._steps_s) >= PACE_STEPS[0] else None
