"""The second reading of a recording: joins each frame, decoded again, with its result smoothed offline.

A backward pass needs the future, so a recording is read twice: once for the networks, whose results are kept without
their pictures, and once more, after smoothing, for drawing and writing. Decoding twice is cheap beside the networks, and
the memory in use does not grow with the pictures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from streampose.messages import Control, End, Frame, Gap, Person, PoseResult
from streampose.pipeline.lane import Lane

log = logging.getLogger(__name__)
UNKNOWN = "no result in the first reading"


class KeptResults:
    """The sink of the first reading: the results of one recording without their pictures."""

    name = "keep"
    newest_only = False

    def __init__(self) -> None:
        self.people: list[tuple[int, float, tuple[Person, ...]]] = []
        self.detected: dict[int, bool] = {}

    def write(self, message: PoseResult | Control) -> None:
        if isinstance(message, PoseResult):
            self.people.append((message.frame.index, message.frame.time_s, message.people))
            self.detected[message.frame.index] = message.detected

    def close(self) -> None:
        """Nothing to close: what is kept is in memory."""

    def outputs(self) -> tuple[str, ...]:
        return ()


class Replay:
    """The body of thread `replay:gate`: frames in, results of `people` by frame index out.

    A frame that the first reading did not reach (it was interrupted) ends the replay by `stop`; it is not counted. One that
    lacks a result although later ones have theirs is dropped: a gap of the record, counted and said. `error`: what ended
    the first reading early; the record ends with it, for what comes after is missing.
    """

    def __init__(
        self,
        lane: Lane,
        people: Mapping[int, tuple[Person, ...]],
        detected: Mapping[int, bool],
        stop: Callable[[], None],
        error: str | None = None,
    ) -> None:
        self._lane = lane
        self._people = people
        self._detected = detected
        self._stop = stop
        self._error = error

    def run(self) -> None:
        beyond = unknown = 0
        reached = max(self._people, default=-1)
        try:
            while True:
                item = self._lane.frames.get()
                if isinstance(item, Frame):
                    people = self._people.get(item.index)
                    if people is None and item.index < reached:
                        unknown += 1
                        self._lane.ledger.drop(item, UNKNOWN)
                        continue
                    self._put_out(self._lane.ledger.settle(item))
                    if people is None:
                        beyond += 1
                        self._stop()
                    else:
                        self._lane.put_out(PoseResult(item, people, self._detected[item.index]))
                elif isinstance(item, End):
                    self._put_out(self._lane.ledger.finish())
                    if unknown:
                        log.warning("%s: %d frames had %s; the record says where", self._lane.camera, unknown, UNKNOWN)
                    counts = self._lane.ledger.counts
                    counts = replace(counts, decoded=counts.decoded - beyond)
                    self._lane.put_out(replace(item, counts=counts, error=self._error or item.error))
                else:
                    self._lane.put_out(item)
        finally:
            for output in self._lane.outputs:
                output.close()

    def _put_out(self, gaps: Iterable[Gap]) -> None:
        for gap in gaps:
            self._lane.put_out(gap)
