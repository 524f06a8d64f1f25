"""The life of a track in seconds, its ids, and what the tracker asks for and says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampose.track.options import SmoothOptions
from streampose.track.smoother import joint_spread, noise_var
from streampose.track.tracker import CameraTracker
from tests.track.figures import HEIGHT, SIGMAS, WIDTH, box, make, nobody, pose, seeing, step

RATES = [5.0, 10.0, 60.0]


@pytest.mark.parametrize("fps", RATES)
def test_a_life_is_counted_in_seconds(fps: float) -> None:
    """Confirmed after confirm_after_s, gone after lost_after_s, to within a frame, whatever the rate."""
    tracker = make(confirm_after=2, confirm_after_s=0.4, lost_after_s=1.0, carry_s=0.0)
    confirmed_s = gone_s = None
    for n in range(round(4 * fps)):
        time_s = n / fps
        seen = time_s < 2.0 - 1e-9
        people = step(tracker, time_s, [box(300, 300)] if seen else [], look=pose if seen else nobody)
        if confirmed_s is None and people and people[0].state == "confirmed":
            confirmed_s = time_s
        if not seen and people:
            assert people[0].state == "coasting"
        if time_s > 1 and gone_s is None and not people:
            gone_s = time_s
    assert confirmed_s == pytest.approx(0.4, abs=1 / fps)
    last_s = (np.ceil(2.0 * fps - 1e-9) - 1) / fps
    assert gone_s == pytest.approx(last_s + 1.0, abs=1.01 / fps)


@pytest.mark.parametrize("fps", [5, 25])
@pytest.mark.parametrize("sightings", [1, 2, 3, 10])
def test_so_many_sightings_confirm_that_last_long_enough(sightings: int, fps: int) -> None:
    tracker = make(confirm_after=sightings)
    states = [step(tracker, n / fps, [box(300, 300)])[0].state for n in range(12)]
    first = 0 if sightings == 1 else max(sightings - 1, fps // 5)
    assert states == ["tentative"] * first + ["confirmed"] * (12 - first)


def test_a_single_sighting_is_never_confirmed() -> None:
    tracker = make()
    assert [p.state for p in step(tracker, 0.0, [box(300, 300)])] == ["tentative"]
    assert all(not step(tracker, 0.1 * n, [], look=nobody) for n in range(1, 10))


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=25), st.sets(st.integers(0, 24), max_size=3)
)
@settings(max_examples=40, deadline=None)
def test_ids_are_never_used_again(frames: list[list[int]], resets: set[int]) -> None:
    """Whoever comes and goes, and across resets: an id that was gone for good does not come back, and none is doubled."""
    tracker = make()
    before_reset: set[int] = set()
    seen: set[int] = set()
    for n, places in enumerate(frames):
        if n in resets:
            tracker.reset()
            before_reset |= seen
        people = step(tracker, 0.1 * n, [box(100 + 200 * place, 300) for place in sorted(set(places))])
        ids = [person.id for person in people]
        assert ids == sorted(set(ids))
        assert not before_reset & set(ids)
        seen |= set(ids)


@given(st.permutations(range(5)), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_order_of_detections_does_not_matter(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    straight, mixed = make(), make()
    places = rng.uniform((100, 200), (1100, 500), (5, 2))
    for n in range(8):
        boxes = [box(x + 6 * n, y) for x, y in places + rng.normal(0, 2, places.shape)]
        scores = rng.uniform(0.05, 0.95, 5)
        one = step(straight, 0.1 * n, boxes, list(scores))
        other = step(mixed, 0.1 * n, [boxes[k] for k in order], [scores[k] for k in order])
        assert [(p.id, p.state) for p in one] == [(p.id, p.state) for p in other]
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a.keypoints, b.keypoints)
            np.testing.assert_array_equal(a.box, b.box)


BAD = st.sampled_from([0.0, -50.0, 1e5, np.nan, np.inf, -np.inf, 300.0, 301.0])


@given(
    st.lists(st.tuples(BAD, BAD, BAD, BAD, st.sampled_from([0.0, 0.3, 0.9, np.nan])), max_size=4),
    st.sampled_from([0.9, 0.0, np.nan]),
    st.floats(-1.0, 50.0),
)
@settings(max_examples=60, deadline=None)
def test_bad_boxes_scores_and_times_do_no_harm(
    rows: list[tuple[float, float, float, float, float]], score: float, dt: float
) -> None:
    tracker = make()
    for n in range(4):
        step(tracker, 0.1 * n, [box(300, 300)])
    for n in range(3):
        people = step(
            tracker, 0.3 + dt * (n + 1), [np.array(r[:4]) for r in rows], [r[4] for r in rows], lambda b: pose(b, score)
        )
        for person in people:
            assert np.isfinite(person.box).all()
            assert np.isfinite(person.keypoints).all()
            assert (person.std >= 0).all()
            assert 0 <= person.score <= 1
            assert ((person.keypoints[:, 2] >= 0) & (person.keypoints[:, 2] <= 1)).all()


def test_nobody_at_all() -> None:
    tracker = make()
    proposal = tracker.propose(0.0, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), WIDTH, HEIGHT)
    assert proposal.boxes.shape == (0, 4)
    assert tracker.update(proposal, np.zeros((0, 17, 3), np.float32)) == ()
    assert step(tracker, 0.1, None) == ()


def test_a_wrong_number_of_poses_is_refused() -> None:
    tracker = make()
    proposal = tracker.propose(0.0, box(300, 300)[None], np.array([0.9], np.float32), WIDTH, HEIGHT)
    with pytest.raises(ValueError, match="2 poses for 1 proposed boxes"):
        tracker.update(proposal, np.zeros((2, 17, 3), np.float32))


def test_time_that_goes_back_stands_still() -> None:
    tracker = make()
    for n in range(5):
        step(tracker, 0.1 * n, [box(300 + 10 * n, 300)])
    (before,) = step(tracker, 0.5, [box(350, 300)])
    (after,) = step(tracker, 0.2, [box(350, 300)])
    assert after.id == before.id
    np.testing.assert_allclose(after.keypoints[:, :2], before.keypoints[:, :2], atol=5)


def test_a_long_gap_ends_the_track_and_the_next_is_somebody_new() -> None:
    tracker = make()
    for n in range(5):
        (before,) = step(tracker, 0.1 * n, [box(300, 300)])
    (after,) = step(tracker, 60.0, [box(900, 300)])
    assert after.id > before.id


def test_without_detection_the_pose_carries_on() -> None:
    """Detection on every fourth frame of a walk: the person is proposed, posed and confirmed in between."""
    tracker = make()
    for n in range(40):
        there = box(200 + 8 * n, 300)
        people = step(tracker, n / 15, [there] if n % 4 == 0 else None, look=seeing([there]))
        if n > 12:
            assert [person.state for person in people] == ["confirmed"]
            assert set(people[0].joint_state) == {"measured"}
            np.testing.assert_allclose(people[0].box, there, atol=8)


@pytest.mark.parametrize("every", [5, 8])
def test_detection_and_pose_may_both_be_rare(every: int) -> None:
    """Nobody new is given up between two detections, be they farther apart than a missed newcomer lives."""
    tracker = make(pose_every=every)
    states = []
    for n in range(8 * every):
        there = box(200 + 3 * n, 300)
        people = step(tracker, n / 10, [there] if n % every == 0 else None, look=seeing([there]))
        states.append([(person.id, person.state) for person in people])
    assert states[0] == [(1, "tentative")]
    assert states[4 * every] == [(1, "confirmed")]
    assert {number for people in states for number, _ in people} == {1}


SPARSE = [(1, 4, 4), (1, 4, 1), (2, 4, 4), (1, 3, 3), (10, 16, 16), (5, 8, 1)]


@pytest.mark.parametrize(("fps", "detect", "every"), SPARSE)
def test_time_in_which_nobody_looked_is_no_absence(fps: int, detect: int, every: int) -> None:
    """Detections further apart than lost_after: somebody who stands there is one person, confirmed, and coasts between."""
    tracker = make(pose_every=every)
    there = box(300, 300)
    for n in range(10 * detect):
        people = step(tracker, n / fps, [there] if n % detect == 0 else None)
        assert {person.id for person in people} <= {1}
        if n > 3 * detect:
            carried = (fps, every) == (5, 1)  # at lower rates the pose of the frame before says nothing any more
            assert [person.state for person in people] == ["confirmed" if n % detect == 0 or carried else "coasting"]
            np.testing.assert_allclose(people[0].box, there, atol=8)


@pytest.mark.parametrize(("fps", "detect", "every"), SPARSE)
def test_walkers_too_are_followed_where_nobody_looks_for_long(fps: int, detect: int, every: int) -> None:
    """A third of a box's width from one detection to the next, and no guess of the way before the second."""
    tracker = make(pose_every=every)
    found = set()
    for n in range(10 * detect):
        there = box(300 + 27 * n / detect, 300)
        people = step(tracker, n / fps, [there] if n % detect == 0 else None, look=seeing([there]))
        found |= {person.id for person in people}
    assert found == {1}


@pytest.mark.parametrize(("fps", "detect", "every"), SPARSE)
def test_who_is_looked_for_in_vain_is_absent_from_then_on(fps: int, detect: int, every: int) -> None:
    """However rare detection is: gone for good when it has missed somebody twice, and a newcomer when it has once."""
    tracker = make(pose_every=every, recall_s=0.0)
    for n in range(5 * detect):
        step(tracker, n / fps, [box(300, 300)] if n % detect == 0 else None)
    assert [person.state for person in step(tracker, 5 * detect / fps, [], look=nobody)] == ["coasting"]
    for n in range(5 * detect + 1, 6 * detect):
        step(tracker, n / fps, None, look=nobody)
    assert not step(tracker, 6 * detect / fps, [], look=nobody)
    (newcomer,) = step(tracker, 7 * detect / fps, [box(300, 300)])
    assert (newcomer.id, newcomer.state) == (2, "tentative")
    step(tracker, 8 * detect / fps, [], look=nobody)
    assert [person.id for person in step(tracker, 9 * detect / fps, [box(300, 300)])] == [3]


def test_a_pose_that_shows_nobody_is_a_look_in_vain() -> None:
    """Where detection is rare but poses are not, who has gone is not reported for longer than lost_after."""
    tracker = make()
    for n in range(21):
        step(tracker, n / 10, [box(300, 300)] if n % 20 == 0 else None)
    gone_s = next(n / 10 for n in range(21, 40) if not step(tracker, n / 10, None, look=nobody))
    assert gone_s == pytest.approx(2.0 + 1.1)


def test_a_person_the_detector_misses_is_carried_for_a_while() -> None:
    tracker = make(carry_s=0.5)
    states = []
    for n in range(30):
        there = box(200 + 5 * n, 300)
        people = step(tracker, 0.1 * n, [there] if n < 10 else [], look=seeing([there]))
        states.append(people[0].state if people else "gone")
    assert states[10:15] == ["confirmed"] * 5
    assert states[17] == "coasting"
    assert states[-1] == "gone"


def test_the_pose_of_somebody_else_carries_nobody() -> None:
    """Who is hidden behind another coasts, for the pose found in the predicted box is the other's."""
    tracker = make()
    front, behind = box(400, 300), box(520, 300)
    for n in range(10):
        step(tracker, 0.1 * n, [front, behind], look=seeing([front, behind]))
    for n in range(10, 14):
        moving = box(520 - 22 * (n - 9), 300)
        people = step(tracker, 0.1 * n, [front, moving], look=seeing([front, moving]))
    people = step(tracker, 1.4, [front], look=lambda _: pose(front))
    assert [(person.id, person.state) for person in people] == [(1, "confirmed"), (2, "coasting")]


def test_pose_every_third_frame_is_staggered_and_said() -> None:
    tracker = make(pose_every=3)
    boxes = [box(150 + 180 * k, 300) for k in range(6)]
    asked = []
    for n in range(24):
        proposal = tracker.propose(n / 30, np.array(boxes), np.full(6, 0.9, np.float32), WIDTH, HEIGHT)
        people = tracker.update(proposal, np.array([pose(b) for b in proposal.boxes]).reshape(-1, 17, 3))
        asked.append(len(proposal.boxes))
        if n > 8:
            posed = [p for p in people if p.raw is not None]
            assert len(posed) == len(proposal.boxes)
            assert all(set(p.joint_state) == {"measured"} for p in posed)
            assert all(set(p.joint_state) == {"coasted"} for p in people if p.raw is None)
            assert [p.state for p in people] == ["confirmed"] * 6
    assert asked[9:] == [2] * 15


@pytest.mark.parametrize(("detect", "every"), [(2, 2), (3, 3), (4, 2), (4, 4), (2, 4), (2, 3), (3, 1)])
def test_everybody_is_posed_in_turn_however_rare_detection_is(detect: int, every: int) -> None:
    """People who turn, so that an old pose soon says nothing of them: whoever is only posed between detections is lost."""
    tracker = make(pose_every=every)
    posed: dict[int, int] = {}
    for n in range(96):
        boxes = [box(150 + 180 * k + 3 * n, 300) for k in range(4)]
        turned = [np.roll(pose(b), 4 * (n // 6), axis=0) for b in boxes]
        look = lambda b, boxes=boxes, turned=turned: turned[int(np.argmin([abs(b - o).sum() for o in boxes]))]  # noqa: E731
        people = step(tracker, n / 15, boxes if n % detect == 0 else None, look=look)
        for person in people:
            posed[person.id] = posed.get(person.id, 0) + (person.raw is not None)
    steps = detect * -(-every // detect) if every >= detect else every
    assert sorted(posed) == [1, 2, 3, 4]
    assert all(count >= 0.8 * 96 / steps if every >= detect else count >= 0.5 * 96 / steps for count in posed.values())


def test_pose_every_can_be_raised_and_goes_back() -> None:
    tracker = make()
    boxes = np.array([box(150 + 180 * k, 300) for k in range(4)])
    counts = {}
    for n in range(40):
        tracker.pose_every_at_least(4 if 10 <= n < 30 else 1)
        proposal = tracker.propose(n / 30, boxes, np.full(4, 0.9, np.float32), WIDTH, HEIGHT)
        tracker.update(proposal, np.array([pose(b) for b in proposal.boxes]).reshape(-1, 17, 3))
        counts[n] = len(proposal.boxes)
    assert counts[9] == 4
    assert counts[20] == 1
    assert counts[39] == 4


def test_a_box_that_cuts_the_body_is_widened() -> None:
    """Once the whole body is known, a box of the upper half is proposed with the legs."""
    tracker = make()
    whole = box(400, 300)
    for n in range(10):
        step(tracker, 0.1 * n, [whole])
    half = whole.copy()
    half[3] = whole[1] + 0.55 * (whole[3] - whole[1])
    proposal = tracker.propose(1.0, half[None], np.array([0.8], np.float32), WIDTH, HEIGHT)
    assert proposal.boxes.shape == (1, 4)
    assert proposal.boxes[0, 3] == pytest.approx(whole[3], abs=0.06 * 200)
    np.testing.assert_allclose(proposal.boxes[0, :3], half[:3], atol=4)


def test_two_boxes_on_one_person_give_one_skeleton() -> None:
    """A full and a half box, and a shifted one that suppression lets pass: the same pose, hence one person."""
    tracker = make()
    whole = box(400, 300)
    half, shifted = whole.copy(), whole + np.array([12, 25, 12, 25], np.float32)
    half[3] -= 90
    for n in range(10):
        people = step(tracker, 0.1 * n, [whole, half, shifted], [0.9, 0.8, 0.7], look=lambda _: pose(whole))
        assert len(people) == 1


@pytest.mark.parametrize("part", [0.35, 0.5])
def test_a_box_of_head_and_shoulders_gives_nobody_of_its_own(part: float) -> None:
    """The network places the joints a little otherwise in the smaller box, and leaves out those beyond it."""
    tracker, rng = make(), np.random.default_rng(0)
    whole = box(400, 300)
    cut = whole.copy()
    cut[3] = whole[1] + part * (whole[3] - whole[1])

    def look(of: np.ndarray) -> np.ndarray:
        seen = pose(whole) + rng.normal(0, 3, (17, 3)) * np.array([1, 1, 0])
        seen[seen[:, 1] > of[3] + 20, 2] = 0.05
        return seen.astype(np.float32)

    for n in range(20):
        assert len(step(tracker, n / 10, [whole, cut], [0.8, 0.6], look)) == 1


@pytest.mark.parametrize("height", [100.0, 130.0])
def test_a_child_in_front_of_an_adult_is_somebody(height: float) -> None:
    """The child's box lies in the adult's, but the poses are not the same."""
    tracker = make()
    adult, child = box(400, 300), box(400, 400 - height / 2, height)
    for n in range(10):
        people = step(tracker, n / 10, [adult, child], look=seeing([adult, child]))
    assert [person.state for person in people] == ["confirmed", "confirmed"]


def test_a_redundant_skeleton_is_not_taken() -> None:
    """Of two known people in overlapping boxes whose poses come out the same, one keeps the pose, the other coasts."""
    tracker = make()
    left, right = box(400, 300), box(460, 300)
    for n in range(10):
        step(tracker, 0.1 * n, [left, right], look=seeing([left, right]))
    people = step(tracker, 1.0, [left, right], look=lambda _: pose(left))
    assert [person.state for person in people] == ["confirmed", "confirmed"]
    measured = {person.id: set(person.joint_state) for person in people}
    assert measured == {1: {"measured"}, 2: {"rejected"}}
    np.testing.assert_allclose(people[1].keypoints[:, :2], pose(right)[:, :2], atol=6)


def test_weak_detections_carry_people_and_begin_none() -> None:
    tracker = make(high_threshold=0.5, new_threshold=0.5, low_threshold=0.1)
    assert not any(step(tracker, 0.1 * n, [box(300, 300)], [0.3]) for n in range(5))
    for n in range(5, 10):
        step(tracker, 0.1 * n, [box(300, 300)], [0.8])
    (person,) = step(tracker, 1.0, [box(302, 300)], [0.2])
    assert person.state == "confirmed"
    assert person.score == pytest.approx(0.2)


@pytest.mark.parametrize(("fps", "detect"), [(10, 6), (1, 1)])
def test_a_weak_detection_never_harms_however_rare_detection_is(fps: int, detect: int) -> None:
    """The person is there in every picture, only the detector is unsure: for a while in turn, then always."""
    tracker, there = make(), box(300, 300)
    for n in range(20 * detect):
        turn = n // detect
        score = 0.3 if turn > 12 or (turn > 3 and turn % 2 == 0) else 0.7
        people = step(tracker, n / fps, [there] if n % detect == 0 else None, [score], seeing([there]))
        assert [person.id for person in people] == [1]
        if turn > 2:
            assert people[0].state == "confirmed"


def test_a_weak_detection_is_nobody_whom_detection_has_missed_for_long() -> None:
    tracker = make(carry_s=0.0)
    for n in range(10):
        step(tracker, n / 10, [box(300, 300)])
    for n in range(10, 17):
        step(tracker, n / 10, [])
    (person,) = step(tracker, 1.7, [box(300, 300)], [0.3])
    assert person.state == "coasting"


def test_smoothing_can_be_off() -> None:
    tracker = CameraTracker(SIGMAS, smooth=SmoothOptions(enabled=False))
    rng = np.random.default_rng(0)
    for n in range(6):
        seen = pose(box(300, 300)) + rng.normal(0, 3, (17, 3)).astype(np.float32) * np.array([1, 1, 0], np.float32)
        if n == 5:
            seen[9, 0] += 60
            seen[3, 2] = 0.05
        (person,) = step(tracker, 0.1 * n, [box(300, 300)], look=lambda _, seen=seen: seen)
        np.testing.assert_array_equal(person.keypoints, seen)
        unmeasured = {joint: state for joint, state in enumerate(person.joint_state) if state != "measured"}
        assert unmeasured == ({3: "coasted"} if n == 5 else {}), "below the least score of a measurement"
        noise = noise_var(seen[:, 2], np.array(200.0), joint_spread(SIGMAS), SmoothOptions())
        np.testing.assert_allclose(person.std, np.sqrt(noise), rtol=0.1)
    (person,) = step(tracker, 0.6, [], look=nobody)
    assert set(person.joint_state) == {"coasted"}


@pytest.mark.parametrize("score", [0.9, 0.48])
def test_a_pose_of_few_joints_shows_who_is_there(score: float) -> None:
    """Three sure joints are many of six: detection misses somebody whom the pose shows plainly."""
    tracker = CameraTracker(np.full(6, 0.08))
    for n in range(25):
        found = box(300, 300)[None][: n < 10]
        proposal = tracker.propose(0.04 * n, found, np.full(len(found), 0.9, np.float32), WIDTH, HEIGHT)
        points = pose(box(300, 300), score)[[5, 6, 9, 10, 15, 16]]
        (person,) = tracker.update(proposal, np.repeat(points[None], len(proposal.boxes), axis=0))
        assert person.state == "confirmed" or n < 10


def test_another_skeleton_is_tracked_as_well() -> None:
    tracker = CameraTracker(np.full(6, 0.08))
    for n in range(6):
        proposal = tracker.propose(0.1 * n, box(300, 300)[None], np.array([0.9], np.float32), WIDTH, HEIGHT)
        points = pose(proposal.boxes[0])[[5, 6, 9, 10, 15, 16]]
        (person,) = tracker.update(proposal, points[None], np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert person.state == "confirmed"
    assert person.keypoints.shape == (6, 3)
