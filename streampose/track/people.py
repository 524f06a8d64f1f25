"""From tracks and filters to the people of a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.messages import Person
from streampose.track import track
from streampose.track.smoother import COASTED, REJECTED, WORDS, Smoother
from streampose.track.track import Track

UNKNOWN_STD = 0.5  # body heights: a joint that was never seen is somewhere about the body


def describe(
    tracks: list[Track],
    seen: dict[int, npt.NDArray[Any] | None],
    discarded: set[int],
    smoother: Smoother,
    time_s: float,
) -> tuple[Person, ...]:
    """The people of the frame at `time_s`, sorted by id: the rows of `smoother` are those of `tracks`.

    `seen` holds, by id, who was seen in this frame, with the pose (K, 3) where there is one; the poses of those in
    `discarded` were not used. People not confirmed are shown only when seen, those lost not at all.
    """
    shown = sorted(
        (one.id, row) for row, one in enumerate(tracks) if not one.lost and (one.confirmed or one.id in seen)
    )
    rows = [row for _, row in shown]
    points = np.concatenate((smoother.mean[rows, :, 0, :], smoother.trust()[rows][..., None]), axis=2)
    std, states, unknown = smoother.std()[rows], smoother.state[rows], ~smoother.known[rows]
    boxes = track.boxes([tracks[row] for row in rows]).astype(np.float32)
    poses = [seen.get(id_) for id_, _ in shown]
    for index, (id_, row) in enumerate(shown):
        one, pose = tracks[row], poses[index]
        if unknown[index].any():
            points[index, unknown[index]] = (*one.mean[0], 0.0) if pose is None else pose[unknown[index]]
            std[index, unknown[index]] = UNKNOWN_STD * one.size
        if pose is not None and id_ in discarded:
            states[index, states[index] == COASTED] = REJECTED
        if pose is not None and not smoother.options.enabled:
            points[index] = pose
    points = np.where(np.isfinite(points), points, 0.0).astype(np.float32)
    std = std.astype(np.float32)
    return tuple(
        Person(
            id=id_,
            state=tracks[row].state(time_s),
            score=min(max(tracks[row].score, 0.0), 1.0),
            box=boxes[index],
            keypoints=points[index],
            raw=None if pose is None else np.asarray(pose, np.float32),
            std=std[index],
            joint_state=tuple(map(WORDS.__getitem__, states[index].tolist())),
        )
        for index, ((id_, row), pose) in enumerate(zip(shown, poses, strict=True))
    )
