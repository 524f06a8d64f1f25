"""Whose pose is asked for in a frame, where poses are rarer than frames: people take turns, in step with detections."""

from __future__ import annotations


class Turns:
    """The turns of one camera's people, each on every `every`-th frame; told of every frame by `count`."""

    def __init__(self, every: int) -> None:
        self.every = every
        self._detections = 0
        self._since = 0  # frames since the last detection
        self._interval = 1  # frames from one detection to the next, as it was last

    def count(self, detected: bool) -> None:
        """Another frame, in which detection was due or not."""
        if detected:
            self._interval = self._since + 1 if self._detections else 1
            self._detections, self._since = self._detections + 1, 0
        else:
            self._since += 1

    def is_due(self, person: int) -> bool:
        """Whether the pose of the `person` with this id is asked for. Detections vouch for boxes, so poses rarer than they
        are taken of detected people, in turn; poses more frequent than they are taken with each detection and in equal
        steps after."""
        interval = max(self._interval, self._since + 1)
        if self.every < interval:
            return self._since % self.every == 0
        return self._since == 0 and (self._detections + person) % -(-self.every // interval) == 0
