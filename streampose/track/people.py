"""From tracks and filters to the people of a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.messages import Person
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
    trust, std = smoother.trust(), smoother.std()
    people = []
    for row, track in sorted(enumerate(tracks), key=lambda item: item[1].id):
        if track.lost or not (track.confirmed or track.id in seen):
            continue
        pose = seen.get(track.id)
        points = np.concatenate((smoother.mean[row, :, 0, :], trust[row][:, None]), axis=1)
        spread = std[row].copy()
        state = smoother.state[row].copy()
        unknown = ~smoother.known[row]
        if unknown.any():
            points[unknown] = (*track.mean[0], 0.0) if pose is None else pose[unknown]
            spread[unknown] = UNKNOWN_STD * track.size
        if pose is not None and track.id in discarded:
            state[state == COASTED] = REJECTED
        if pose is not None and not smoother.options.enabled:
            points = pose
        people.append(
            Person(
                id=track.id,
                state=track.state(time_s),
                score=float(np.clip(track.score, 0.0, 1.0)),
                box=track.box.astype(np.float32),
                keypoints=np.nan_to_num(points).astype(np.float32),
                raw=None if pose is None else np.asarray(pose, np.float32),
                std=spread.astype(np.float32),
                joint_state=tuple(WORDS[s] for s in state),
            )
        )
    return tuple(people)
