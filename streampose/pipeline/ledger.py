"""The account of one camera's frames: which were analysed, which were not, and the time that this left unseen.

The rule: a frame covers the time from itself to the next frame, or to the gap that begins before that one. A frame that
came through makes that time seen; one that was dropped makes it a gap. So at the end, to the last bit,

    frames decoded = frames with a result + dropped (by cause) + corrupt
    time watched   = time seen + time of gaps

where time watched runs from the first instant a frame or gap speaks of to the last. The producer registers what it
makes, any stage may drop, and the pose stage settles before it hands out a result: what lies before that result and was
not settled yet cannot come any more. Where no result comes for long, the detect stage tells of what was lost meanwhile.
Dropped frames that follow each other are kept as one span, so that only frames on their way take memory.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from streampose.messages import Counts, Frame, Gap

NEWER = "newest wins"
UNFINISHED = "not finished when the run ended"


@dataclass(slots=True, eq=False)
class _Span:
    """A frame on its way, or dropped ones that follow each other: the time they cover, and why they were dropped.

    `last_s` is where the last of the frames `first` to `last` begins; `end_s` is None until what follows it is known.
    """

    first: int
    last: int
    start_s: float
    wall_start_s: float | None
    last_s: float
    wall_last_s: float | None
    end_s: float | None = None
    wall_end_s: float | None = None
    details: set[str] = field(default_factory=set)

    def takes(self, later: _Span) -> bool:
        """Whether `later` follows without a gap of the producer between them; takes it over if so."""
        if self.last + 1 != later.first or self.end_s != later.start_s:
            return False
        self.last, self.last_s, self.wall_last_s = later.last, later.last_s, later.wall_last_s
        self.end_s, self.wall_end_s = later.end_s, later.wall_end_s
        self.details |= later.details
        return True


class CameraLedger:
    """Shared by the threads of one camera's frames. Times in seconds of `time_s`."""

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self._lock = threading.Lock()  # guards all below: producer, detect and pose stage write here
        self._spans: list[_Span] = []  # decoded and not settled, by index
        self._frames = 0
        self._corrupt = 0
        self._dropped: Counter[str] = Counter()

    def decoded(self, frame: Frame) -> None:
        """The producer made `frame` and is about to hand it on."""
        with self._lock:
            self._close_last(frame.time_s, frame.wall_s)
            time_s, wall_s = frame.time_s, frame.wall_s
            self._spans.append(_Span(frame.index, frame.index, time_s, wall_s, time_s, wall_s))
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
            spans = self._spans
            at = next((at for at in reversed(range(len(spans))) if spans[at].first <= frame.index), None)
            if at is None or spans[at].first != frame.index or spans[at].details:
                return
            spans[at].details.add(detail)
            self._dropped[detail] += 1
            for later in (at + 1, at):
                before, after = spans[later - 1 : later], spans[later : later + 1]
                if before and after and before[0].details and after[0].details and before[0].takes(after[0]):
                    del spans[later]

    def lost(self, after: int, before: int) -> list[Gap]:
        """The gaps of the frames between these two indices, as far as their end is known. For the stage that hands
        the frames on, and knows that none of these will be."""
        with self._lock:
            lost = [s for s in self._spans if after < s.first and s.last < before and s.end_s is not None]
            if lost:
                self._spans = [s for s in self._spans if s not in lost]
            return self._gaps(lost, NEWER)

    def settle(self, frame: Frame) -> list[Gap]:
        """The gaps before `frame`, which has a result now. To be called for every result, in order."""
        with self._lock:
            passed = [span for span in self._spans if span.first < frame.index]
            self._spans = [span for span in self._spans if span.first > frame.index]
            return self._gaps(passed, NEWER)

    def finish(self) -> list[Gap]:
        """The gaps of what is left at the end."""
        with self._lock:
            passed, self._spans = self._spans, []
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

    def _gaps(self, spans: list[_Span], unsaid: str) -> list[Gap]:
        """One gap for each run of frames that follow each other without a gap of the producer between them.

        Where nobody said why a frame is missing, `unsaid` is the reason: a channel tells of the frame that gave way only
        after the newer one may already have been taken.
        """
        runs: list[_Span] = []
        for span in spans:
            if not span.details:
                span.details.add(unsaid)
                self._dropped[unsaid] += 1
            if not (runs and runs[-1].takes(span)):
                runs.append(span)
        return [self._gap(run) for run in runs]

    def _gap(self, run: _Span) -> Gap:
        return Gap(
            self.camera,
            "dropped",
            run.start_s,
            run.last_s if run.end_s is None else run.end_s,
            run.last - run.first + 1,
            run.wall_start_s,
            run.wall_last_s if run.end_s is None else run.wall_end_s,
            ", ".join(sorted(run.details)),
        )
