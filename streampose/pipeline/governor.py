"""The load governor: gives each frame less work, rung by rung, when results come too late, and takes it back.

Pure: ages and times in, settings out. A rung is climbed when the results of the last moments were late as a rule, not when
one was; it is left only after a long while of being early, twice as long each time that it had to be climbed again
at once, so that a machine that is nearly good enough does not swing between two settings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from streampose.messages import Degrade

Rung: TypeAlias = Literal["detect_every", "pose_every", "resolution", "fps"]
LADDER: tuple[Rung, ...] = ("detect_every", "pose_every", "resolution", "fps")

LATE = 0.8  # of max_age: results older than this are late, before the contract is broken
EARLY = 0.4  # of max_age: with results younger than this there is room for more work
QUANTILE = 0.9  # the age that counts: nine of ten results are younger
CLIMB_S = 1.0  # so long results must have been late
SETTLE_S = 2.0  # a new setting is judged only by what came this long after it
RESTORE_S = 10.0  # so long results must have been early
RESTORE_CAP_S = 300.0
RELAPSE_S = 20.0  # a rung climbed again within this after it was left was left too early
MIN_RESULTS = 5  # fewer say nothing


@dataclass(frozen=True, slots=True)
class Effort:
    """How much work a frame gets: detection and pose on every N-th frame, the detector's input scale, and at most so
    many frames a second (None: all)."""

    detect_every: int = 1
    pose_every: int = 1
    scale: float = 1.0
    fps: float | None = None


_NOTCHES: dict[Rung, tuple[tuple[Effort, str], ...]] = {
    "detect_every": (
        (Effort(detect_every=2), "detect on every 2nd frame"),
        (Effort(detect_every=4), "detect on every 4th frame"),
    ),
    "pose_every": (
        (Effort(pose_every=2), "pose on every 2nd frame"),
        (Effort(pose_every=4), "pose on every 4th frame"),
    ),
    "resolution": ((Effort(scale=0.5), "detect at half resolution"),),
    "fps": (
        (Effort(fps=8.0), "8 frames a second"),
        (Effort(fps=4.0), "4 frames a second"),
        (Effort(fps=1.0), "1 frame a second"),
    ),
}


def _steps(ladder: Sequence[Rung]) -> list[tuple[Effort, str]]:
    """The settings after each step, from full work on; each step keeps what those before it took away."""
    steps = [(Effort(), "full work")]
    for rung in ladder:
        for notch, what in _NOTCHES[rung]:
            before = steps[-1][0]
            steps.append(
                (
                    replace(
                        before,
                        detect_every=max(before.detect_every, notch.detect_every),
                        pose_every=max(before.pose_every, notch.pose_every),
                        scale=min(before.scale, notch.scale),
                        fps=before.fps if notch.fps is None else notch.fps,
                    ),
                    what,
                )
            )
    return steps


class LoadGovernor:
    """Keeps the ages of one camera's results below `max_age_s` by the rungs of `ladder`, in that order."""

    def __init__(self, camera: str, max_age_s: float, ladder: Sequence[Rung] = LADDER) -> None:
        if max_age_s <= 0:
            raise ValueError(f"max_age must be above 0 s, got {max_age_s}")
        self.camera = camera
        self.max_age_s = max_age_s
        self.step = 0
        self._steps = _steps(ladder)
        self._ages: deque[tuple[float, float]] = deque()  # (time_s, age_s) since the last change, at most RESTORE_CAP_S
        self._changed_s: float | None = None
        self._late_since_s: float | None = None
        self._early_since_s: float | None = None
        self._restore_s: dict[int, float] = {}  # of the steps that were left too early
        self._left_s: float | None = None

    @property
    def settings(self) -> Effort:
        return self._steps[self.step][0]

    def observe(self, age_s: float, time_s: float) -> Degrade | None:
        """Take the age of a result at `time_s` of the camera; the change that follows from it, if one does."""
        if self._changed_s is None:
            self._changed_s = time_s
        if self.step and time_s - self._changed_s < SETTLE_S:
            return None
        if time_s - self._changed_s >= RESTORE_CAP_S:  # less work than this is not needed for long
            self._restore_s = {step: wait_s for step, wait_s in self._restore_s.items() if step <= self.step}
        self._ages.append((time_s, age_s))
        while self._ages[0][0] < time_s - CLIMB_S and len(self._ages) > MIN_RESULTS:
            self._ages.popleft()
        if len(self._ages) < MIN_RESULTS:
            return None
        ages = sorted(age for _, age in self._ages)
        usual_s = ages[min(int(QUANTILE * len(ages)), len(ages) - 1)]
        self._late_since_s = self._since(self._late_since_s, usual_s > LATE * self.max_age_s, time_s)
        self._early_since_s = self._since(self._early_since_s, usual_s < EARLY * self.max_age_s, time_s)
        if self._late_since_s is not None and time_s - self._late_since_s >= CLIMB_S:
            return self._climb(usual_s, time_s)
        if self.step and self._early_since_s is not None and time_s - self._early_since_s >= self._wait_s():
            return self._leave(usual_s, time_s)
        return None

    def away(self, length_s: float) -> None:
        """No picture came for so long just now: that time is none in which results were late, or early."""
        if self._late_since_s is not None:
            self._late_since_s += length_s
        if self._early_since_s is not None:
            self._early_since_s += length_s
        self._ages = deque((time_s + length_s, age_s) for time_s, age_s in self._ages)

    def forget(self) -> None:
        """The camera begins anew: what was seen of it before says nothing of what comes now. The rung stays."""
        self._late_since_s = self._early_since_s = None
        self._ages.clear()

    def _wait_s(self) -> float:
        """How long results must have been early before this step is left."""
        return self._restore_s.get(self.step, RESTORE_S)

    @staticmethod
    def _since(since_s: float | None, holds: bool, time_s: float) -> float | None:
        if not holds:
            return None
        return time_s if since_s is None else since_s

    def _climb(self, usual_s: float, time_s: float) -> Degrade | None:
        if self.step + 1 >= len(self._steps):
            return None
        self.step += 1
        if self._left_s is not None and time_s - self._left_s < RELAPSE_S:
            self._restore_s[self.step] = min(2.0 * self._wait_s(), RESTORE_CAP_S)
            self._left_s = None
        what = self._steps[self.step][1]
        return self._change(
            what, f"results are {usual_s * 1e3:.0f} ms old, max_age is {self.max_age_s * 1e3:.0f} ms", time_s
        )

    def _leave(self, usual_s: float, time_s: float) -> Degrade:
        what = self._steps[self.step][1]
        self.step -= 1
        self._left_s = time_s
        what = f"no longer: {what}" if self.step else self._steps[0][1]
        return self._change(what, f"results are {usual_s * 1e3:.0f} ms old again", time_s)

    def _change(self, what: str, reason: str, time_s: float) -> Degrade:
        self._changed_s = time_s
        self.forget()
        return Degrade(self.camera, self.step, what, reason, time_s)
