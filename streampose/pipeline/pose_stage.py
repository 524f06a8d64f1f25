"""The pose stage: key points for every person, then, per camera, identity and smoothing; results go to the sinks.

Runs in one thread. The tracker lives here because the boxes of a frame without detection come from the tracks and a box
that cuts a person off is widened from that person's own key points: both need the pose of the frame before.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from streampose.messages import Array, Break, Control, Detections, End, Gap, Image, Person, PoseResult
from streampose.pipeline.channel import Channel
from streampose.pipeline.detect_stage import Detected
from streampose.pipeline.governor import Effort
from streampose.pipeline.lane import Lane
from streampose.pipeline.watchdog import Asked
from streampose.track.tracker import CameraTracker


class EstimatesPose(Protocol):
    """Key points (N, K, 3) x, y, score for the boxes (N, 4) of each picture."""

    def __call__(self, images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]: ...


class PoseStage:
    """(lane, Detections or control message) in, `PoseResult` or control message out, each lane in its own order."""

    def __init__(self, estimator: EstimatesPose, inbox: Channel[Detected], batch: int) -> None:
        self._estimator = estimator
        self._inbox = inbox
        self._batch = batch
        self._lanes: set[Lane] = set()
        self.asked = Asked("pose")

    def run(self) -> None:
        """The body of thread `pose`; ends with ChannelClosed when the detect stage has ended."""
        try:
            while True:
                self._work(deque(self._inbox.get_batch(self._batch)))
        finally:
            for lane in self._lanes:
                for output in lane.outputs:
                    output.close()

    def _work(self, pending: deque[Detected]) -> None:
        """Everything in `pending`, in rounds of at most one frame of each camera, since a track needs its last pose."""
        while pending:
            round_: list[tuple[Lane, Detections]] = []
            later: deque[Detected] = deque()
            busy: set[Lane] = set()
            for lane, item in pending:
                if lane in busy:
                    later.append((lane, item))
                elif isinstance(item, Detections):
                    busy.add(lane)
                    round_.append((lane, item))
                else:
                    self._control(lane, item)
            if round_:
                self._round(round_)
            pending = later

    def _round(self, round_: list[tuple[Lane, Detections]]) -> None:
        for lane, _ in round_:
            if lane.stills:
                lane.tracker.reset()
        with self.asked.call():
            people = analyse(self._estimator, [(lane.tracker, detections) for lane, detections in round_])
        now_s = time.monotonic()
        for (lane, detections), found in zip(round_, people, strict=True):
            frame = detections.frame
            self._lanes.add(lane)
            for gap in lane.ledger.settle(frame):
                lane.put_out(gap)
            captured_s = frame.arrival_s if frame.captured_s is None else frame.captured_s
            lane.age.add(now_s - captured_s)
            governor = lane.governor
            if governor is not None:
                change = governor.observe(now_s - captured_s, frame.time_s)
                if change is not None:
                    lane.effort = governor.settings
                    lane.tracker.pose_every_at_least(lane.effort.pose_every)
                    lane.put_out(change)
            lane.put_out(PoseResult(frame, found, detections.boxes is not None))
            lane.done += 1
            lane.frames.on_ready()  # the next frame may have waited for this count

    def _begin_segment(self, lane: Lane, segment: Break) -> None:
        lane.tracker.reset()
        if lane.keeps_all and not segment.info.live:
            lane.governor, lane.effort = None, Effort()
            lane.tracker.pose_every_at_least(1)
        if lane.governor is not None:
            lane.governor.forget()

    def _control(self, lane: Lane, message: Control) -> None:
        self._lanes.add(lane)
        if isinstance(message, Break):
            self._begin_segment(lane, message)
        elif isinstance(message, Gap) and message.cause == "stalled" and lane.governor is not None:
            lane.governor.away(message.end_s - message.start_s)
        if isinstance(message, End):
            for gap in lane.ledger.finish():
                lane.put_out(gap)
            lane.put_out(replace(message, counts=lane.ledger.counts))
            for output in lane.outputs:
                output.close()
            self._lanes.discard(lane)
        else:
            lane.put_out(message)


def analyse(estimator: EstimatesPose, frames: Sequence[tuple[CameraTracker, Detections]]) -> list[tuple[Person, ...]]:
    """The people of one frame each of several cameras: propose boxes, pose them all in one go, associate, smooth."""
    proposals = [
        tracker.propose(d.frame.time_s, d.boxes, d.scores, d.frame.width, d.frame.height) for tracker, d in frames
    ]
    keypoints = estimator([d.frame.image for _, d in frames], [proposal.boxes for proposal in proposals])
    return [
        tracker.update(proposal, points, detections.frame.image)
        for (tracker, detections), proposal, points in zip(frames, proposals, keypoints, strict=True)
    ]
