"""Who is who when people cross, with a detector that misses, trembles and doubles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from streampose.pose.skeleton import load_skeleton
from streampose.track.tracker import CameraTracker
from tests.track.figures import COCO, STANCE, box, make, pose, seeing, step

Paths = list[tuple[float, float, float, float]]  # x and y at the start, px; velocity in px/s
CROSSINGS: dict[str, Paths] = {
    "side by side, opposite": [(200, 300, 120, 0), (700, 330, -120, 0)],
    "diagonal": [(200, 250, 100, 20), (700, 350, -100, -15)],
    "overtaking": [(200, 300, 60, 0), (60, 318, 130, 0)],
    "a group meets one": [(200, 290, 90, 0), (110, 320, 90, 0), (760, 345, -110, 0)],
}


def play(paths: Paths, seed: int, fps: float, misses: float = 0.08) -> list[list[int | None]]:
    """The id of each person in each frame, None where nobody of the tracker's is there; those in front hide others."""
    tracker, rng, found = make(), np.random.default_rng(seed), []
    for n in range(round(5 * fps)):
        time_s = n / fps
        there = [box(x + vx * time_s, y + vy * time_s) for x, y, vx, vy in paths]
        seen = []
        for k, one in enumerate(there):
            front = [other for j, other in enumerate(there) if j != k and paths[j][1] > paths[k][1]]
            hidden = any(abs(other[0] - one[0]) < 24 for other in front)
            if not hidden and rng.random() >= misses:
                seen.append(one)
        boxes = [one + rng.normal(0, 3, 4) for one in seen]
        doubles = [one + rng.normal(0, 6, 4) for one in seen if rng.random() < 0.1]
        scores = [*rng.uniform(0.5, 0.9, len(boxes)), *rng.uniform(0.4, 0.6, len(doubles))]
        look = seeing(seen)

        def noisy(of: np.ndarray, look: Callable[[np.ndarray], np.ndarray] = look) -> np.ndarray:
            answer = look(of)
            answer[:, :2] += rng.normal(0, 2, (17, 2))
            return answer

        people = [p for p in step(tracker, time_s, [*boxes, *doubles], scores, noisy) if p.state == "confirmed"]
        ids: list[int | None] = []
        for one in there:
            centre = (one[:2] + one[2:]) / 2
            near = [p for p in people if np.abs((p.box[:2] + p.box[2:]) / 2 - centre).max() < 25]
            ids.append(near[0].id if len(near) == 1 else None)
        found.append(ids)
    return found


@pytest.mark.parametrize("fps", [10.0, 25.0])
@pytest.mark.parametrize("name", CROSSINGS)
def test_people_keep_their_ids_through_a_crossing(name: str, fps: float) -> None:
    """Before and after the crossing everybody has the same id, in nine of ten runs at least."""
    kept = total = 0
    for seed in range(10):
        found = play(CROSSINGS[name], seed, fps)
        for person in range(len(CROSSINGS[name])):
            before = [ids[person] for ids in found[round(fps) : round(1.5 * fps)] if ids[person] is not None]
            after = [ids[person] for ids in found[round(4.2 * fps) :] if ids[person] is not None]
            assert before
            assert after
            total += 1
            kept += set(before) == set(after) and len(set(before)) == 1
    assert kept >= 0.9 * total


def test_poses_decide_where_boxes_cannot() -> None:
    """Two people in almost the same box, one leaning left, one right, cross slowly: each keeps the id of the lean."""
    tracker = make(duplicate_iou=0.95)
    lean = {}
    for n in range(40):
        shift = 30 * np.cos(n / 39 * np.pi)
        left, right = box(400 - shift, 300), box(400 + shift, 303)

        def look(of: np.ndarray, left: np.ndarray = left, right: np.ndarray = right) -> np.ndarray:
            is_left = abs(of[1] - left[1]) < abs(of[1] - right[1])
            return pose(left if is_left else right, lean=-0.5 if is_left else 0.5)

        people = step(tracker, n / 10, [left, right], look=look)
        for person in people:
            nose, feet = person.keypoints[0, 0], person.keypoints[15:, 0].mean()
            lean.setdefault(person.id, []).append(np.sign(nose - feet))
    assert len(lean) == 2
    assert all(len(set(signs)) == 1 for signs in lean.values())


def test_somebody_behind_a_tree_keeps_the_id() -> None:
    """Out of sight for longer than lost_after: not reported any more, and known again on the other side."""
    tracker = make(lost_after_s=0.5, recall_s=2.0)
    ids = []
    for n in range(40):
        there = box(200 + 8 * n, 300)
        hidden = 15 <= n < 27
        people = step(tracker, n / 10, [] if hidden else [there], look=seeing([] if hidden else [there]))
        ids.append([person.id for person in people])
    assert ids[14] == [1]
    assert ids[25] == []
    assert ids[39] == [1]


def test_clothes_tell_two_people_apart_after_hiding() -> None:
    """Two people vanish behind a wall and come out the other way round; only their colours can say who is who."""
    red, blue = (20, 20, 200), (200, 40, 20)

    def picture(boxes: list[np.ndarray], colours: list[tuple[int, int, int]]) -> np.ndarray:
        image = np.full((720, 1280, 3), 90, np.uint8)
        for one, colour in zip(boxes, colours, strict=True):
            x1, y1, x2, y2 = one.astype(int)
            image[y1:y2, x1:x2] = colour
        return image

    tracker = make()
    first, second = box(400, 300), box(520, 300)

    def frame(n: int, boxes: list[np.ndarray], colours: list[tuple[int, int, int]]) -> dict[int, float]:
        proposal = tracker.propose(n / 10, np.array(boxes).reshape(-1, 4), np.full(len(boxes), 0.9), 1280, 720)
        poses = np.array([seeing(boxes)(of) for of in proposal.boxes], np.float32).reshape(-1, 17, 3)
        people = tracker.update(proposal, poses, picture(boxes, colours))
        return {person.id: float(person.box[0]) for person in people if person.state != "coasting"}

    for n in range(10):
        frame(n, [first, second], [red, blue])
    for n in range(10, 27):
        frame(n, [], [])
    for n in range(27, 32):
        found = frame(n, [first, second], [blue, red])
    assert set(found) == {1, 2}
    assert found[1] > found[2]


@pytest.mark.parametrize("name", ["coco17", "wholebody133", "limbs6"])
@pytest.mark.parametrize("same", [True, False])
def test_who_stood_behind_a_sign_is_known_again_by_the_clothes(name: str, same: bool) -> None:
    """Five seconds out of sight, where nothing is foreseen: the same clothes are the same person, others somebody new. They
    are told by shoulders, hips and knees wherever these stand in the skeleton; where it has none, the place alone tells."""
    skeleton = load_skeleton(name)
    tracker, there = CameraTracker(skeleton.sigmas, body=skeleton.body), box(400, 300)
    places = {joint: place for joint, place in zip(COCO.keypoints, STANCE, strict=True) if joint in skeleton.keypoints}
    stance = np.array([places.get(joint, (0.3 + 0.4 * (n % 2), (n + 0.5) / len(skeleton.keypoints)))
                       for n, joint in enumerate(skeleton.keypoints)])  # fmt: skip

    def frame(n: int, boxes: list[np.ndarray], colour: tuple[int, int, int]) -> list[int]:
        image = np.full((720, 1280, 3), 90, np.uint8)
        for x1, y1, x2, y2 in (one.astype(int) for one in boxes):
            image[y1:y2, x1:x2] = colour
        proposal = tracker.propose(n / 10, np.array(boxes).reshape(-1, 4), np.full(len(boxes), 0.9), 1280, 720)
        poses = np.zeros((len(proposal.boxes), len(stance), 3), np.float32)
        poses[..., :2] = there[:2] + stance * (there[2:] - there[:2])
        poses[..., 2] = 0.9 if boxes else 0.03
        return [p.id for p in tracker.update(proposal, poses, image) if p.state == "confirmed"]

    for n in range(10):
        before = frame(n, [there], (20, 20, 200))
    for n in range(10, 60):
        frame(n, [], (0, 0, 0))
    for n in range(60, 66):
        after = frame(n, [there], (20, 20, 200) if same else (200, 160, 20))
    assert len(before) == len(after) == 1
    assert (before == after) == (same or skeleton.body is None)


def test_without_clothes_nobody_is_known_again_after_long() -> None:
    """Five seconds later and no picture to look at: the place alone says nothing any more."""
    tracker = make()
    for n in range(10):
        (before,) = step(tracker, n / 10, [box(400, 300)])
    for n in range(10, 60):
        step(tracker, n / 10, [])
    for n in range(60, 66):
        (after,) = step(tracker, n / 10, [box(400, 300)])
    assert after.id > before.id


@pytest.mark.parametrize("fps", [1.0, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("speed", [0.5, 0.8, 1.0])
def test_walkers_are_followed_at_few_pictures_a_second(fps: float, speed: float) -> None:
    """Two who walk towards each other, in body heights per second: between pictures they leave their boxes."""
    tracker, ids = make(), []
    for n in range(round(3 * fps)):
        way = speed * 200 * n / fps
        there = [box(100 + way, 250), box(1180 - way, 470)]
        people = step(tracker, n / fps, there, look=seeing(there))
        ids.append([person.id for person in people])
    assert ids == [[1, 2]] * len(ids)
    assert [person.state for person in people] == ["confirmed", "confirmed"]
    np.testing.assert_allclose([person.box for person in people], there, atol=30)


@pytest.mark.parametrize("every_s", [0.5, 1.0, 2.0, 4.0])
def test_who_stands_is_one_person_however_rare_the_pictures_are(every_s: float) -> None:
    """Boxes that tremble by a tenth of their width are no walk that leads away within seconds."""
    for seed in range(3):
        tracker, rng = make(), np.random.default_rng(seed)
        for n in range(40):
            there = box(400 + rng.normal(0, 8), 300)
            people = step(tracker, n * every_s, [there], look=seeing([there]))
            assert [person.id for person in people] == [1]
        assert people[0].state == "confirmed"


def test_a_newcomer_who_is_gone_is_not_the_next_one_elsewhere() -> None:
    """A body height away in a twenty-fifth of a second: nobody moves like that."""
    tracker = make()
    (first,) = step(tracker, 0.0, [box(300, 300)])
    people = step(tracker, 0.04, [box(500, 300)], look=seeing([box(500, 300)]))
    assert first.id not in {person.id for person in people if person.state != "coasting"}
    assert 2 in {person.id for person in people}


@pytest.mark.parametrize("fps", [25, 10])
@pytest.mark.parametrize("beside", [0.3, 0.4, 0.6])
def test_who_is_found_beside_somebody_missed_does_not_take_the_id(fps: int, beside: float) -> None:
    tracker, known, other = make(), box(400, 360), box(400 + beside * 200, 360)
    for frame in range(2 * fps):
        (first,) = step(tracker, frame / fps, [known])
    people = step(tracker, 2.0, [other], look=seeing([known, other]))
    assert first.id not in {person.id for person in people if person.box[0] > known[0] + 20}
    for frame in range(1, 4):
        people = step(tracker, 2.0 + frame / fps, [known, other], look=seeing([known, other]))
    assert first.id in {person.id for person in people if abs(person.box[0] - known[0]) < 20}


@pytest.mark.parametrize("change", ["stops", "turns", "starts"])
@pytest.mark.parametrize(("fps", "detect"), [(25, 4), (25, 10), (25, 25)])
def test_between_two_detections_the_box_goes_with_the_skeleton(fps: int, detect: int, change: str) -> None:
    """A walker who stops just after a detection; the pose of every frame shows it."""
    tracker, speed = make(), 140.0
    after = {"stops": 0.0, "turns": -speed, "starts": speed}[change]
    before = 0.0 if change == "starts" else speed
    changes_s = detect * round(2.0 * fps / detect) / fps
    for frame in range(int(4 * fps)):
        time_s = frame / fps
        x = 400 + before * min(time_s, changes_s) + after * max(time_s - changes_s, 0.0)
        here = box(x, 300.0)
        (person,) = step(tracker, time_s, [here] if frame % detect == 0 else None, look=seeing([here]))
        if frame > fps:
            off = abs(float(person.box[[0, 2]].mean()) - x)
            assert off < 0.2 * 200, (time_s, off)
    assert person.id == 1


@pytest.mark.parametrize("fps", [5, 10, 25])
def test_who_falls_is_the_same_person(fps: int) -> None:
    """About the feet, in half a second: the box lies down, and overlaps the standing one little."""
    tracker, height, feet = make(), 240.0, np.array([500.0, 500.0])
    for frame in range(int(4 * fps)):
        angle = float(np.clip((frame / fps - 2.0) / 0.5, 0.0, 1.0)) ** 2 * np.pi / 2
        along, across = np.array([np.sin(angle), -np.cos(angle)]), np.array([np.cos(angle), np.sin(angle)])
        points = feet + (1 - STANCE[:, 1:]) * height * along + (STANCE[:, :1] - 0.5) * 0.4 * height * across
        fallen = np.concatenate((points, np.full((17, 1), 0.9)), axis=1).astype(np.float32)
        found = np.concatenate((points.min(axis=0) - 8, points.max(axis=0) + 8)).astype(np.float32)
        people = step(tracker, frame / fps, [found], look=lambda of, fallen=fallen: fallen)
        assert {person.id for person in people if person.state != "tentative"} <= {1}
    assert [(person.id, person.state) for person in people] == [(1, "confirmed")]
