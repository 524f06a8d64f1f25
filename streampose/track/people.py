"""From tracks and filters to the people of a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.messages import Person
from streampose.track.smoother import COASTED, MEASURED, REJECTED, WORDS, Smoother, noise_var
from streampose.track.track import Bodies, Track


def describe(
    tracks: list[Track],
    bodies: Bodies,
    smoother: Smoother,
    seen: dict[int, npt.NDArray[Any] | None],
    discarded: set[int],
    time_s: float,
) -> tuple[Person, ...]:
    """The people of the frame at `time_s`, sorted by id: rows of `bodies` and `smoother` are `tracks`, oldest first.

    `seen` holds, by id, who was seen in this frame, with the pose (K, 3) where there is one; the poses of those in
    `discarded` were not used. Where smoothing is off a person seen has that pose, and its noise. People not confirmed are
    shown only when seen, those lost not at all.
    """
    present = [row for row, one in enumerate(tracks) if not one.lost and (one.confirmed or one.id in seen)]
    shown, rows = [tracks[row] for row in present], np.array(present, np.intp)
    poses = [seen.get(one.id) for one in shown]
    points = np.concatenate((smoother.mean[rows, :, 0], smoother.trust()[rows][..., None]), axis=2)
    states, unknown = smoother.state[rows], ~smoother.known[rows]
    std = np.where(unknown, np.inf, smoother.std()[rows])
    sizes = np.maximum(bodies.sizes[rows], 1.0)
    for index in np.flatnonzero(unknown.any(axis=1)).tolist():
        row, pose, joints = rows[index], poses[index], unknown[index]
        points[index, joints] = (*bodies.mean[row, 0], 0.0) if pose is None else pose[joints]
    for index, (one, pose) in enumerate(zip(shown, poses, strict=True)):
        if pose is None:
            continue
        if not smoother.options.enabled:
            usable, used = pose[:, 2] >= smoother.options.min_score, one.id not in discarded
            points[index] = pose
            noise = np.sqrt(noise_var(pose[:, 2], sizes[index], smoother.spread, smoother.options))
            std[index] = np.where(unknown[index], np.inf, noise)
            states[index] = np.where(usable, MEASURED if used else REJECTED, COASTED)
        elif one.id in discarded:
            states[index, states[index] == COASTED] = REJECTED
    points = np.where(np.isfinite(points), points, 0.0)
    columns = zip(
        shown,
        bodies.boxes[rows].astype(np.float32),
        points.astype(np.float32),
        poses,
        std.astype(np.float32),
        states.tolist(),
        strict=True,
    )
    return tuple(
        Person(
            id=one.id,
            state=one.state(time_s),
            score=min(max(one.score, 0.0), 1.0),
            box=box,
            keypoints=keypoints,
            raw=None if pose is None else pose.astype(np.float32),
            std=deviations,
            joint_state=tuple(map(WORDS.__getitem__, words)),
        )
        for one, box, keypoints, pose, deviations, words in columns
    )
