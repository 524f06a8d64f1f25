"""The detect stage: takes what is waiting from all cameras, waits for none, and finds the people.

Runs in one thread. Each camera brings at most its share to a batch, in turn, so that a fast recording cannot starve a
live camera. Frames too old for their camera's `max_age` are dropped here, before anything dear is done with them.
Nothing is taken of a recording whose sinks have no room: it waits in its own channel, and holds up nobody else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

from streampose.messages import Array, Break, Control, Detections, Frame, Gap, Image
from streampose.pipeline.channel import Channel, ChannelClosed
from streampose.pipeline.lane import Lane
from streampose.pipeline.watchdog import Asked

log = logging.getLogger(__name__)
TOLD_EVERY_S = 10.0  # so often lost frames are told of while there is no result to tell of them
TOO_OLD_S = 5.0  # where for so long every frame was too old, somebody must see to it


class DetectsPeople(Protocol):
    """Boxes (N, 4) xyxy in pixels and scores (N,) of the people in each picture."""

    def __call__(self, images: Sequence[Image]) -> list[tuple[Array, Array]]: ...


Detected: TypeAlias = tuple[Lane, Detections | Control]


class DetectStage:
    """Lanes in, (lane, Detections or control message) out, each lane in its own order.

    `detectors` holds one detector for each input scale that a governor may choose; 1.0 is always there. `lanes` may
    grow and shrink while it runs (`add`; a lane goes when its channel is closed and empty). `finish` lets it end.
    """

    def __init__(self, detectors: Mapping[float, DetectsPeople], out: Channel[Detected], batch: int) -> None:
        self._detectors = detectors
        self._out = out
        self._batch = batch
        self._lanes: list[Lane] = []
        self._lock = threading.Lock()  # guards _lanes and _finishing: lanes are added from the main thread
        self._finishing = False
        self._ready = threading.Event()
        self.asked = Asked("detect")

    def add(self, lane: Lane) -> None:
        lane.frames.on_ready = self._ready.set
        for output in lane.outputs:
            output.when_taken(self._ready.set)
        with self._lock:
            self._lanes.append(lane)
        self._ready.set()

    def finish(self) -> None:
        """No lane will be added any more: end when the last one has ended."""
        self._finishing = True
        self._ready.set()

    def run(self) -> None:
        """The body of thread `detect`."""
        try:
            while True:
                self._ready.clear()
                taken = self._take()
                if taken:
                    self._work(taken)
                elif self._done():
                    return
                else:
                    self._ready.wait()
        finally:
            self._out.close()

    def _done(self) -> bool:
        with self._lock:
            return self._finishing and not self._lanes

    def _take(self) -> list[tuple[Lane, Frame | Control]]:
        """What waits, one item of each lane in turn, at most a batch of frames; who comes next begins the next batch."""
        with self._lock:
            lanes = deque(self._lanes)
        taken: list[tuple[Lane, Frame | Control]] = []
        frames = 0
        while lanes and frames < self._batch:
            lane = lanes.popleft()
            if lane.held():
                continue
            try:
                item = lane.frames.poll()
            except ChannelClosed:
                with self._lock:
                    self._lanes.remove(lane)
                continue
            if item is None:
                continue
            lanes.append(lane)
            taken.append((lane, item))
            if isinstance(item, Frame):
                frames += 1
                lane.begun += 1
        if lanes:
            with self._lock:
                at = self._lanes.index(lanes[0])
                self._lanes = self._lanes[at:] + self._lanes[:at]
        return taken

    def _work(self, taken: list[tuple[Lane, Frame | Control]]) -> None:
        now_s = time.monotonic()
        kept: list[tuple[Lane, Frame | Control]] = []
        for lane, item in taken:
            kept += [(lane, gap) for gap in _lost_before(lane, item)]
            if isinstance(item, Break) and not lane.old_said:
                lane.old_since_s = None  # what was between the segments is no time of frames
            if not isinstance(item, Frame) or _is_wanted(lane, item, now_s):
                kept.append((lane, item))
        scales = [_scale_due(lane, item) for lane, item in kept]
        found: dict[int, tuple[Array, Array]] = {}
        for scale, detector in self._detectors.items():
            chosen = [i for i, due in enumerate(scales) if due == scale]
            if chosen:
                images = [item.image for i in chosen if isinstance(item := kept[i][1], Frame)]
                with self.asked.call():
                    found.update(zip(chosen, detector(images), strict=True))
        for position, (lane, item) in enumerate(kept):
            if isinstance(item, Frame):
                boxes, scores = found.get(position, (None, None))
                self._out.put((lane, Detections(item, boxes, scores)))
            else:
                self._out.put((lane, item))


def _is_wanted(lane: Lane, frame: Frame, now_s: float) -> bool:
    """Whether the frame is young enough and, under a governor's frame rate, due; what is not is dropped and counted."""
    fps = lane.work.fps
    why = None
    if _is_too_old(lane, frame, now_s):
        why = "older than max_age"
    elif fps is not None and frame.time_s - lane.last_kept_s < 0.9 / fps:
        why = "frame rate lowered"
    if why is not None:
        lane.ledger.drop(frame, why)
        lane.begun -= 1
        return False
    lane.last_kept, lane.last_kept_s = frame.index, frame.time_s
    return True


def _is_too_old(lane: Lane, frame: Frame, now_s: float) -> bool:
    """Whether the frame is older than `max_age`; where all are for some seconds, says so once, and once when it is over."""
    captured_s = frame.arrival_s if frame.captured_s is None else frame.captured_s
    max_age_s = lane.max_age_s
    if max_age_s is None or now_s - captured_s <= max_age_s:
        if lane.old_said and lane.old_since_s is not None:
            log.warning("%s: is analysed again, after %.0f s", lane.camera, now_s - lane.old_since_s)
        lane.old_since_s, lane.old_said = None, False
        return False
    if lane.old_since_s is None:
        lane.old_since_s = now_s
    if not lane.old_said and now_s - lane.old_since_s >= TOO_OLD_S:
        lane.old_said = True
        log.warning(
            "%s: nothing is analysed: for %.0f s every frame was older than max_age, %.0f ms; the last came %.0f ms late "
            "and waited %.0f ms here: give it a faster network or a lighter stream (detect_url), or raise max_age",
            lane.camera, now_s - lane.old_since_s, max_age_s * 1e3,
            (frame.arrival_s - captured_s) * 1e3, (now_s - frame.arrival_s) * 1e3,
        )  # fmt: skip
    return True


def _lost_before(lane: Lane, item: Frame | Control) -> list[Gap]:
    """What must be told before `item` of frames that were dropped and no result tells of.

    Those that were taken before a gap of the source, so that gaps keep their order (who gave way in the channel just then
    may be told after it); and what a stretch without a result has come to, every `TOLD_EVERY_S`.
    """
    if isinstance(item, Gap):
        return lane.ledger.lost(lane.last_kept, lane.last_taken + 1)
    if not isinstance(item, Frame):
        return []
    lane.last_taken = item.index
    if item.time_s - max(lane.last_kept_s, lane.told_s) < TOLD_EVERY_S:
        return []
    lane.told_s = item.time_s
    return lane.ledger.lost(lane.last_kept, item.index)


def _scale_due(lane: Lane, item: Frame | Control) -> float | None:
    """The input scale at which people are looked for on this frame, None where they are not; between, the tracks carry their
    boxes. A segment begins with it, and so does each picture that has nothing to do with the others."""
    if isinstance(item, Break):
        lane.since_detection = 0
    if not isinstance(item, Frame):
        return None
    work = lane.work
    every = 1 if lane.stills else max(lane.detect_every, work.detect_every)
    due = lane.since_detection % every == 0
    lane.since_detection = 1 if due else lane.since_detection + 1
    return work.scale if due else None
