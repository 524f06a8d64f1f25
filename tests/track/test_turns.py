"""Whose pose is due: as often as asked or the nearest step that agrees with detections, and evenly."""

from __future__ import annotations

import itertools

import pytest

from streampose.track.turns import Turns

EVERY = range(1, 9)


def due(pose_every: int, detect_every: int, person: int) -> list[int]:
    """The frames in which the pose of `person` is asked for, from the second detection on."""
    turns, frames = Turns(pose_every), []
    for frame in range(40 * detect_every):
        turns.count(frame % detect_every == 0)
        if frame >= detect_every and turns.is_due(person):
            frames.append(frame)
    return frames


@pytest.mark.parametrize("detect_every", EVERY)
@pytest.mark.parametrize("pose_every", EVERY)
def test_poses_are_taken_in_even_steps_near_what_was_asked(pose_every: int, detect_every: int) -> None:
    for person in (1, 2, 3):
        frames = due(pose_every, detect_every, person)
        steps = [after - before for before, after in itertools.pairwise(frames)]
        mean = (frames[-1] - frames[0]) / len(steps)
        assert max(steps) - min(steps) <= 1  # frames are whole
        assert pose_every / 1.6 < mean < pose_every * 1.6
        if pose_every % detect_every == 0 or detect_every % pose_every == 0:
            assert set(steps) == {pose_every}


@pytest.mark.parametrize(("pose_every", "detect_every"), [(2, 1), (6, 2), (8, 4)])
def test_people_take_turns_where_poses_are_rarer_than_detections(pose_every: int, detect_every: int) -> None:
    shares = [set(due(pose_every, detect_every, person)) for person in range(1, pose_every // detect_every + 1)]
    assert not set.intersection(*shares)
    assert sum(map(len, shares)) == len(set.union(*shares))


def test_every_nth_frame_until_the_next_detection_is_known() -> None:
    turns = Turns(3)
    turns.count(True)
    asked = [0]
    for frame in range(1, 10):
        turns.count(False)
        asked += [frame] if turns.is_due(1) else []
    assert asked == [0, 3, 6, 9]
