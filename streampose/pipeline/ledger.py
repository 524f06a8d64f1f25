"""The account of one camera's frames: which were analysed, which were not, and the time that this left unseen.

The rule: a frame covers the time from itself to the next frame, or to the gap that begins before that one. A frame that
came through makes that time seen; one that was dropped makes it a gap. So at the end, to the last bit,

    frames decoded = frames with a result + dropped (by cause) + corrupt
    time watched   = time seen + time of gaps

where time watched runs from the first instant a frame or gap speaks of to the last. The producer registers what it
makes, any stage may drop, and the pose stage settles before it hands out a result: what lies before that result and was
not settled yet cannot come any more.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass

from streampose.messages import Counts, Frame, Gap

NEWER = "newest wins"
UNFINISHED = "not finished when the run ended"


@dataclass(slots=True)
class _Span:
    """A frame on its way: the time it covers, and why it was dropped if it was."""

    index: int
    start_s: float
    wall_start_s: float | None
    end_s: float | None = None
    wall_end_s: float | None = None
    detail: str | None = None


class CameraLedger:
    """Shared by the threads of one camera's frames. Times in seconds of `time_s`."""

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self._lock = threading.Lock()  # guards all below: producer, detect and pose stage write here
        self._spans: deque[_Span] = deque()  # decoded and not settled, by index; as many as frames are in flight
        self._frames = 0
        self._corrupt = 0
        self._dropped: Counter[str] = Counter()

    def decoded(self, frame: Frame) -> None:
        """The producer made `frame` and is about to hand it on."""
        with self._lock:
            self._close_last(frame.time_s, frame.wall_s)
            self._spans.append(_Span(frame.index, frame.time_s, frame.wall_s))
            self._frames += 1

    def interrupted(self, time_s: float, wall_s: float | None = None) -> None:
        """The producer tells of a gap that begins at `time_s`: the frame before covers no more than that."""
        with self._lock:
            self._close_last(time_s, wall_s)

    def corrupt(self, frames: int) -> None:
        """So many frames could not be decoded."""
        with self._lock:
            self._corrupt += frames

    def drop(self, frame: Frame, detail: str = NEWER) -> None:
        """`frame` will have no result, and why, in few words (they are counted by these words)."""
        with self._lock:
            for span in self._spans:
                if span.index == frame.index:
                    if span.detail is None:
                        span.detail = detail
                        self._dropped[detail] += 1
                    return

    def settle(self, frame: Frame) -> list[Gap]:
        """The gaps before `frame`, which has a result now. To be called for every result, in order."""
        with self._lock:
            passed = self._take_before(frame.index)
            if self._spans and self._spans[0].index == frame.index:
                self._spans.popleft()
            return self._gaps(passed, NEWER)

    def finish(self) -> list[Gap]:
        """The gaps of what is left at the end."""
        with self._lock:
            passed = list(self._spans)
            self._spans.clear()
            return self._gaps(passed, UNFINISHED)

    @property
    def counts(self) -> Counts:
        """Decoded = with a result + dropped + corrupt, once `finish` was called."""
        with self._lock:
            return Counts(self._frames + self._corrupt, self._corrupt, dict(sorted(self._dropped.items())))

    def _close_last(self, time_s: float, wall_s: float | None) -> None:
        if self._spans and self._spans[-1].end_s is None:
            self._spans[-1].end_s = time_s
            self._spans[-1].wall_end_s = wall_s

    def _take_before(self, index: int) -> list[_Span]:
        passed: list[_Span] = []
        while self._spans and self._spans[0].index < index:
            passed.append(self._spans.popleft())
        return passed

    def _gaps(self, spans: list[_Span], unsaid: str) -> list[Gap]:
        """One gap for each run of frames that follow each other without a gap of the producer between them.

        Where nobody said why a frame is missing, `unsaid` is the reason: a channel tells of the frame that gave way only
        after the newer one may already have been taken.
        """
        gaps: list[Gap] = []
        run: list[_Span] = []
        for span in spans:
            if span.detail is None:
                span.detail = unsaid
                self._dropped[unsaid] += 1
            if run and (run[-1].index + 1 != span.index or run[-1].end_s != span.start_s):
                gaps.append(self._gap(run))
                run = []
            run.append(span)
        if run:
            gaps.append(self._gap(run))
        return gaps

    def _gap(self, run: list[_Span]) -> Gap:
        first, last = run[0], run[-1]
        return Gap(
            self.camera,
            "dropped",
            first.start_s,
            last.start_s if last.end_s is None else last.end_s,
            len(run),
            first.wall_start_s,
            last.wall_start_s if last.end_s is None else last.wall_end_s,
            ", ".join(sorted({span.detail for span in run if span.detail})),
        )
