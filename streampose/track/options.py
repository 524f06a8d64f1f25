"""What can be set of identity and smoothing; all times are seconds of camera time, all lengths relative to the person."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TrackOptions:
    """Identity over time.

    Detections from `high_threshold` on are sure, those from `low_threshold` on may carry a person seen just before,
    those from `new_threshold` on may begin a track. A track is confirmed by `confirm_after` sightings that span at
    least `confirm_after_s`, with 1 at once; it is coasting while unseen and not reported any more after `lost_after_s`.
    For `recall_s` longer it is remembered, so that somebody who comes out from behind a tree keeps the id (after two
    seconds by the clothes).
    Time before somebody looks in vain is no absence: frames on which neither detection nor this person's pose was due.
    `pose_every`: each person's pose is asked for on every N-th frame, the others coast; where that is rarer than the
    detector looks, poses are taken of detected people in turn. For `carry_s` a pose of
    `min_carry_score` or more carries a person whom the detector misses; a new person's pose has at least
    `min_pose_score` (mean of the surer half).
    """

    high_threshold: float = 0.4
    low_threshold: float = 0.1
    new_threshold: float = 0.45
    confirm_after: int = 3
    confirm_after_s: float = 0.2
    lost_after_s: float = 1.0
    recall_s: float = 6.0
    tentative_lost_s: float = 0.25
    pose_every: int = 1
    carry_s: float = 0.6
    min_pose_score: float = 0.2
    min_carry_score: float = 0.4
    duplicate_iou: float = 0.6
    duplicate_oks: float = 0.8

    @property
    def confirm_span_s(self) -> float:
        """What the sightings that confirm must span; one alone spans nothing."""
        return self.confirm_after_s if self.confirm_after > 1 else 0.0


@dataclass(frozen=True, slots=True)
class SmoothOptions:
    """The Kalman filter of each key point and its backward pass.

    `acceleration`: how far a joint's velocity strays in one second, in body heights per second (the standard deviation
    of its mean acceleration over a second). `noise`: standard deviation of a point of score 1, in body heights, for a
    joint of average OKS sigma. `gate`: Mahalanobis distance beyond which a point is rejected; `reinitialise_after`
    successive rejections start the joint afresh. A joint not measured for `coast_s` counts as missing: its score is 0.
    Offline, gaps in a track up to `bridge_s`, and those through which it coasted, are filled; tracks never confirmed go
    where `drop_unconfirmed`.
    """

    enabled: bool = True
    offline: bool = False
    acceleration: float = 1.2
    noise: float = 0.01
    gate: float = 4.0
    min_score: float = 0.1
    coast_s: float = 0.5
    reinitialise_after: int = 3
    bridge_s: float = 2.5
    drop_unconfirmed: bool = True
