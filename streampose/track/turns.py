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
        """Whether the pose of the `person` with this id is asked for, on every `every`-th frame or the nearest step beside
        it that agrees with the detections, which vouch for boxes: poses more frequent than they are taken with each of
        them and in steps as equal as can be after; rarer ones are taken of detected people, in turn."""
        if self._since >= self._interval:  # this interval is longer than the last: nobody knows how long
            return self._since % self.every == 0
        if self._since == 0:
            turns = (self.every + self._interval // 2) // self._interval
            return self.every < self._interval or (self._detections + person) % turns == 0
        poses = (self._interval + (self.every - 1) // 2) // self.every
        return self.every < self._interval and (
            self._since * poses // self._interval > (self._since - 1) * poses // self._interval
        )
