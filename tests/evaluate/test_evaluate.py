"""The figures of an evaluation against pycocotools, and the way of answers through far pictures and suppression."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from streampose.errors import DataError, StreamposeError, UsageError
from streampose.evaluate.answers import Answers, answer, answer_far, labelled_boxes, read_detections
from streampose.evaluate.contact_sheet import CAPTION_PX, TILE, contact_sheet
from streampose.evaluate.dataset import open_keypoint_set
from streampose.evaluate.evaluate import Evaluation, evaluate, score, verdicts
from streampose.evaluate.expect import check_expected
from streampose.evaluate.oks import suppress_by_oks
from streampose.evaluate.selection import Sample, apportion, select, spread
from streampose.messages import Array, Image
from streampose.pose.skeleton import load_skeleton
from streampose.train.holdout import image_name, kept_images
from streampose.train.pose_config import HoldoutSpec
from streampose.train.pose_data import split_people
from tests.evaluate.sets import LAYOUT, labels, person, write_folder, zip_folder

SKELETON = load_skeleton("coco17")


@pytest.fixture
def truth() -> dict[str, Any]:
    return labels(pictures=12, people=2)


@pytest.fixture
def samples(tmp_path: Path, truth: dict[str, Any]) -> Iterator[list[Sample]]:
    with open_keypoint_set(write_folder(tmp_path / "set", truth), joints=17) as data:
        yield select([data])


class Guess:
    """A pose network that knows the layout of made people, and errs by `error` of the box's height."""

    def __init__(self, error: float, seed: int = 0) -> None:
        self._error = error
        self._rng = np.random.default_rng(seed)

    def __call__(self, images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]:
        return [self._place(np.asarray(each, np.float64).reshape(-1, 4)) for each in boxes]

    def _place(self, boxes: Any) -> Array:
        joints = boxes[:, None, :2] + LAYOUT[None, :, None] * (boxes[:, None, 2:] - boxes[:, None, :2])
        height = (boxes[:, 3] - boxes[:, 1])[:, None, None]
        joints = joints + self._rng.normal(0, self._error, joints.shape) * height
        scores = self._rng.uniform(0.1, 1.0, (*joints.shape[:2], 1))
        return np.concatenate([joints, scores], axis=2).astype(np.float32)


def find_blocks(images: Sequence[Image]) -> list[tuple[Array, Array]]:
    """A detector of white blocks; boxes xyxy round the blocks' edges, scores by size."""
    found = []
    for image in images:
        bright = (image.min(axis=2) > 160).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(bright)
        rows = [row for row in stats[1:] if row[4] > 30]
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _ in rows], np.float32).reshape(-1, 4) - 0.5
        found.append((boxes, np.array([0.5 + min(h / 500, 0.5) for *_, h, _ in rows], np.float32)))
    return found


def coco_stats(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        gold = COCO()
        gold.dataset = {"info": {}, **truth}
        gold.createIndex()
        counted = COCOeval(gold, gold.loadRes(results), kind)
        counted.evaluate()
        counted.accumulate()
        counted.summarize()
    return counted.stats


def keypoint_results(found: Answers) -> list[dict[str, Any]]:
    return [
        {"image_id": int(i), "category_id": 1, "keypoints": k.reshape(-1).tolist(), "score": float(s)}
        for i, k, s in zip(found.image_ids, found.keypoints, found.scores, strict=True)
    ]


@pytest.mark.parametrize("error", [0.0, 0.02, 0.04])
def test_key_point_figures_are_those_of_pycocotools(samples: list[Sample], truth: dict[str, Any], error: float) -> None:
    found = answer(samples, Guess(error), SKELETON)
    ours = score(samples, found, SKELETON)
    expected = coco_stats(truth, keypoint_results(found), "keypoints")
    assert [ours.ap, ours.ap50, ours.ap75, ours.ap_medium, ours.ar] == pytest.approx(
        [expected[0], expected[1], expected[2], expected[3], expected[5]], abs=1e-6
    )
    assert 0.05 < ours.ap <= 1.0
    assert ours.people == sum(entry["num_keypoints"] > 0 for entry in truth["annotations"])


def test_box_figures_are_those_of_pycocotools(samples: list[Sample], truth: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)

    def shaky(_: Sequence[Sample], images: Sequence[Image]) -> list[tuple[Array, Array]]:
        found = find_blocks(images)
        return [(b + rng.normal(0, 3, b.shape).astype(np.float32), s) for b, s in found]

    found = evaluate(samples, Guess(0.02), SKELETON, boxes_of=shaky)
    assert found.boxes is not None
    rng = np.random.default_rng(3)
    results = [
        {"image_id": s.image.id, "category_id": 1, "bbox": [x1 + 0.5, y1 + 0.5, x2 - x1, y2 - y1], "score": float(v)}
        for start in range(0, len(samples), 8)
        for s, (boxes, scores) in zip(
            samples[start : start + 8],
            shaky([], [each.read() for each in samples[start : start + 8]]),
            strict=True,
        )
        for (x1, y1, x2, y2), v in zip(boxes.tolist(), scores, strict=True)
    ]
    expected = coco_stats(truth, results, "bbox")
    ours = found.boxes
    assert [ours["all"].ap, ours["all"].ap50, ours["all"].ar] == pytest.approx(
        [expected[0], expected[1], expected[8]], abs=1e-6
    )
    assert [ours["small"].ap, ours["medium"].ap] == pytest.approx([expected[3], expected[4]], abs=1e-6)
    assert 0.3 < ours["all"].ap < 1.0


def test_boxes_round_the_pixels_of_people_are_right_to_the_pixel(tmp_path: Path) -> None:
    """Half a pixel is what boxes between pixels and boxes on their centres differ by, and a tenth of these people."""
    boxes = [[20.0, 20.0, 8.0, 14.0], [150.0, 60.0, 12.0, 24.0]]
    people = [
        person(number, 1, (x, y, w, h)) for number, (x, y, w, h) in enumerate(boxes, -1)
    ]  # any whole number is an id
    image = {"id": 1, "file_name": "a.png", "width": 320, "height": 240}
    content = {"images": [image], "annotations": people, "categories": [{"id": 1, "name": "person"}]}
    with open_keypoint_set(write_folder(tmp_path / "set", content), joints=17) as data:
        found = evaluate(
            select([data]), Guess(0.0), SKELETON, boxes_of=lambda _, images: find_blocks(images), heights_px=[24]
        )
    assert found.boxes is not None
    assert found.boxes["all"].ap == pytest.approx(1.0)


def test_tall_people_are_measured_alone(samples: list[Sample]) -> None:
    class WrongForSmall(Guess):
        def _place(self, boxes: Any) -> Array:
            points = super()._place(boxes)
            points[boxes[:, 3] - boxes[:, 1] < 64] += 500
            return points

    found = evaluate(samples, WrongForSmall(0.0), SKELETON)
    assert found.keypoints is not None
    assert found.tall is not None
    assert found.tall.ap == pytest.approx(1.0)
    assert found.keypoints.ap < 0.9
    assert 0 < found.tall.people < found.keypoints.people


@pytest.mark.parametrize("with_detector", [False, True])
def test_far_answers_come_back_to_the_picture(samples: list[Sample], with_detector: bool) -> None:
    """Posed at 64 px in the far picture, each joint lies where the label is, within what the shrinking costs."""
    far = answer_far(samples, 64, Guess(0.0), SKELETON, find_blocks if with_detector else None)
    people = {person.id: person for sample in samples for person in sample.posed}
    assert set(far.persons.tolist()) == set(people)
    for who, points, box in zip(far.persons.tolist(), far.keypoints, far.boxes, strict=True):
        person = people[who]
        height = float(person.box[3] - person.box[1])
        tolerance = 0.02 + (2.0 * height / 64 if with_detector else 0.0)
        assert np.abs(box - person.box).max() < tolerance
        seen = person.keypoints[:, 2] > 0
        assert np.abs(points[seen, :2] - person.keypoints[seen, :2]).max() < tolerance
    result = evaluate(
        samples,
        Guess(0.0),
        SKELETON,
        boxes_of=lambda _, images: find_blocks(images),
        detector=find_blocks,
        heights_px=[64],
    )
    assert result.far_found[64] == 1.0
    assert result.far[64].ap > 0.7


def test_a_far_person_who_is_not_found_is_missed(samples: list[Sample]) -> None:
    def blind(images: Sequence[Image]) -> list[tuple[Array, Array]]:
        return [(np.zeros((0, 4), np.float32), np.zeros(0, np.float32)) for _ in images]

    far = answer_far(samples, 64, Guess(0.0), SKELETON, blind)
    assert len(far.image_ids) == 0
    assert score(samples, far, SKELETON).ap == 0.0


def test_of_two_like_answers_the_surer_stays() -> None:
    boxes = np.array([[0, 0, 60, 120], [1, 0, 61, 121], [200, 0, 260, 120]], np.float32)
    points = Guess(0.0)._place(boxes.astype(np.float64))
    kept = suppress_by_oks(points, np.array([0.5, 0.9, 0.7], np.float32), boxes, SKELETON.sigmas)
    assert kept.tolist() == [1, 2]


@pytest.mark.parametrize(("sides", "area"), [((60, 200), 150 * 200 * 1.5625), ((300, 120), 300 * 400 * 1.5625)])
def test_answers_are_alike_by_the_area_that_the_network_saw(sides: tuple[int, int], area: float) -> None:
    """All joints are off by what gives 0.9 of OKS there; a hundredth more or less decides."""
    boxes = np.array([[0, 0, *sides]] * 2, np.float32)
    apart = np.sqrt(-2 * np.log(0.9) * area) * 2 * SKELETON.sigmas
    for factor, count in ((0.99, 1), (1.01, 2)):
        points = np.zeros((2, 17, 3), np.float32)
        points[1, :, 0] = factor * apart
        assert len(suppress_by_oks(points, np.array([0.9, 0.5], np.float32), boxes, SKELETON.sigmas)) == count


def test_places_are_spread_from_the_first_to_the_last() -> None:
    assert [spread(7, count) for count in (0, 1, 3, 4, 7, 9)] == [
        [],
        [0],
        [0, 3, 6],
        [0, 2, 4, 6],
        [*range(7)],
        [*range(7)],
    ]
    assert spread(0, 3) == []
    assert len(set(spread(239, 120))) == 120


def test_selection_by_split_last_and_limit(tmp_path: Path, truth: dict[str, Any]) -> None:
    folder = write_folder(tmp_path / "set", truth)
    with open_keypoint_set(folder, joints=17) as one, open_keypoint_set(folder, joints=17) as two:
        chosen = select([one], split="val", last=4)
        assert [sample.image.id for sample in chosen] == [15, 17, 19, 21]
        assert [sample.image.id for sample in select([one], limit=3)] == [10, 16, 21]
        both = select([one, two])
        assert len({sample.image.id for sample in both}) == 24
        assert all(person.image.id == sample.image.id for sample in both for person in sample.people)
        with pytest.raises(UsageError, match="train, val"):
            select([one], split="test")


@given(st.integers(0, 400), st.lists(st.integers(0, 300), min_size=1, max_size=6))
def test_sets_give_their_part_to_a_picture(count: int, sizes: list[int]) -> None:
    parts = apportion(count, sizes)
    assert sum(parts) == min(count, sum(sizes))
    for part, size in zip(parts, sizes, strict=True):
        assert 0 <= part <= size
        assert abs(part - min(count, sum(sizes)) * size / max(sum(sizes), 1)) < 1


def test_the_last_of_two_sets_are_those_that_a_training_keeps(tmp_path: Path) -> None:
    folders = []
    for name, count in (("one", 13), ("two", 6)):
        content = labels(count)
        for image in content["images"]:
            image["source"] = name
        folders.append(write_folder(tmp_path / name, content))
    with open_keypoint_set(folders[0], joints=17) as one, open_keypoint_set(folders[1], joints=17) as two:
        sets = [one, two]
        kept = kept_images([list(each.images.values()) for each in sets], "", 300, 0.2)
        chosen = select(sets, last=int(0.2 * 19))
        assert {(sample.image.file, sample.image.source) for sample in chosen} == {
            (file, source) for part in kept for _, file, source in part
        }
        assert [len(part) for part in kept] == [2, 1]


@pytest.mark.parametrize("source", ["", "set"])
def test_two_exports_of_one_name_give_what_is_measured_and_never_what_is_trained(
    tmp_path: Path, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As CVAT exports each camera: `set` with pictures of the same names and ids from 1."""
    sets = []
    for camera, count in (("cam1", 10), ("cam2", 50)):
        content = labels(count, people=1)
        for image in content["images"]:
            del image["split"]
        sets.append(open_keypoint_set(write_folder(tmp_path / camera / "set", content), joints=17))
    holdout = HoldoutSpec(source=source)
    trained, measured = split_people(sets, holdout)
    chosen = select(sets, split=source or None, last=12)
    kept = kept_images([list(each.images.values()) for each in sets], source, 300, 0.2)
    assert [(s.data.path, s.image.file) for s in chosen] == [
        (data.path, image.file)
        for data, part in zip(sets, kept, strict=True)
        for image in data.images.values()
        if image_name(image) in part
    ]
    labelled = [sum(bool(sample.posed) for sample in chosen if sample.data is data) for data in sets]
    assert [len(part) for part in measured] == labelled
    out = {image_name(person.image) for part in measured for person in part}
    assert not out & {image_name(person.image) for part in trained for person in part}
    said = [record.getMessage() for record in caplog.records]
    assert (
        len([line for line in said if line.startswith("two sets are called set and have 10 pictures of one id")]) == 2
    )
    for data in sets:
        data.close()


def test_a_zip_is_the_same_set(tmp_path: Path, truth: dict[str, Any]) -> None:
    folder = write_folder(tmp_path / "set", truth)
    with open_keypoint_set(folder, joints=17) as one:
        first = evaluate(select([one]), Guess(0.03), SKELETON).as_dict()
    with open_keypoint_set(zip_folder(folder, tmp_path / "set.zip"), joints=17) as two:
        assert evaluate(select([two]), Guess(0.03), SKELETON).as_dict() == first


def test_published_boxes_from_a_file(tmp_path: Path, samples: list[Sample], truth: dict[str, Any]) -> None:
    rows = [
        {"image_id": e["image_id"], "category_id": 1, "bbox": e["bbox"], "score": 0.9} for e in truth["annotations"]
    ]
    rows.append({"image_id": 10, "category_id": 2, "bbox": [0, 0, 5, 5], "score": 1.0})
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(rows))
    found = evaluate(samples, Guess(0.0), SKELETON, boxes_of=read_detections(path, samples))
    assert found.boxes is not None
    assert found.boxes["all"].ap == pytest.approx(1.0)


def test_boxes_of_a_file_are_those_of_the_sets_own_category_of_people(tmp_path: Path, truth: dict[str, Any]) -> None:
    truth["categories"] = [{"id": 1, "name": "bicycle"}, {"id": 2, "name": "person"}]
    for entry in truth["annotations"]:
        entry["category_id"] = 2
    path = tmp_path / "boxes.json"
    own = [{**entry, "score": 0.9} for entry in truth["annotations"]]
    bicycle = {"image_id": 10, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 1.0}
    with open_keypoint_set(write_folder(tmp_path / "set", truth), joints=17) as data:
        samples = select([data])
        path.write_text(json.dumps([*own, bicycle]))
        boxes = [boxes for boxes, _ in read_detections(path, samples)(samples, [])]
        assert [len(each) for each in boxes] == [len(sample.people) for sample in samples]
        assert boxes[0][0].tolist() == samples[0].people[0].box.tolist()
        path.write_text(json.dumps([bicycle]))
        with pytest.raises(DataError, match=r"has no person's box \(category_id 2\) for any picture of the set"):
            read_detections(path, samples)


NAN, GOOD = float("nan"), {"image_id": 10, "bbox": [0, 0, 5, 5], "score": 1.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "entry 0 is no COCO result"),
        ({}, "not COCO results, a list"),
        ([GOOD, GOOD | {"bbox": [NAN, 0, 5, 5]}], "entry 1 .*a number is NaN or too large"),
        ([GOOD | {"bbox": [0, 0, 1e39, 5]}], "entry 0 .*a number is NaN or too large"),
        ([GOOD | {"bbox": [0, 0, -5, 5]}], "entry 0 .*a side is negative"),
        ([GOOD | {"score": NAN}], "entry 0 .*a number is NaN or too large"),
        ([GOOD | {"image_id": float("inf")}], "entry 0 is no COCO result"),
        ([GOOD | {"image_id": 1000}], r"no person's box \(category_id 1\) for any picture of the set"),
        ([], r"no person's box \(category_id 1\) for any picture of the set"),
    ],
)
def test_boxes_of_a_file_that_cannot_be_are_one_line(
    tmp_path: Path, samples: list[Sample], content: Any, message: str
) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"boxes\.json: .*{message}") as caught:
        read_detections(path, samples)
    assert "\n" not in str(caught.value)


def test_boxes_of_a_file_cannot_tell_pictures_of_one_id_apart(tmp_path: Path, truth: dict[str, Any]) -> None:
    """Pictures of two sets are numbered anew where they share ids, and the boxes would be those of others, or nobody's."""
    folder = write_folder(tmp_path / "set", truth)
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps([GOOD]))
    with open_keypoint_set(folder, joints=17) as one, open_keypoint_set(folder, joints=17) as two:
        with pytest.raises(UsageError, match="two of the sets share some; give one --data"):
            read_detections(path, select([one, two]))
        read_detections(path, select([one]))


def test_json_has_the_agreed_keys(samples: list[Sample]) -> None:
    clean = evaluate(samples, Guess(0.02), SKELETON).as_dict()
    assert {"AP", "AP50", "AR"} <= set(clean["keypoints"])
    assert clean["boxes"]["AP"] is None
    assert clean["boxes"]["AP50"] is None
    own = evaluate(samples, Guess(0.02), SKELETON, boxes_of=lambda _, images: find_blocks(images)).as_dict()
    assert 0 < own["boxes"]["AP"] <= 1
    assert 0 < own["keypoints"]["AP"] <= 1


def test_boxes_alone_can_be_measured(tmp_path: Path) -> None:
    truth = labels()
    for entry in truth["annotations"]:
        del entry["keypoints"]
    with open_keypoint_set(write_folder(tmp_path / "set", truth), joints=17, boxes_only=True) as data:
        chosen = select([data])
        with pytest.raises(UsageError, match="--boxes detector"):
            evaluate(chosen, Guess(0.0), SKELETON)
        found = evaluate(chosen, Guess(0.0), SKELETON, boxes_of=lambda _, images: find_blocks(images))
    assert isinstance(found, Evaluation)
    assert found.keypoints is None
    assert found.people == found.as_dict()["people"] == len(truth["annotations"])
    assert found.as_dict()["boxes"]["AP50"] > 0.9


def test_the_worst_come_first_on_the_sheet(samples: list[Sample]) -> None:
    class WrongOnce(Guess):
        def __call__(self, images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]:
            answers = super().__call__(images, boxes)
            answers[1][0, :, 0] += 25
            return answers

    judged = verdicts(samples, answer(samples[:4], WrongOnce(0.0), SKELETON, labelled_boxes), SKELETON)
    placed = [verdict for verdict in judged if verdict.keypoints is not None]
    assert placed[0].person.id == samples[1].posed[0].id
    assert placed[0].oks < 0.5 < placed[1].oks
    sheet = contact_sheet(placed[:3], SKELETON, columns=2)
    assert sheet.shape == (2 * (TILE[1] + CAPTION_PX + 4), 2 * (2 * TILE[0] + 8), 3)
    answer_half, label_half = sheet[: TILE[1], : TILE[0]], sheet[: TILE[1], TILE[0] : 2 * TILE[0]]
    assert not np.array_equal(answer_half, label_half)


def test_on_the_sheet_a_picture_has_the_name_by_which_it_is_found(tmp_path: Path, truth: dict[str, Any]) -> None:
    """Two sets share ids, so their pictures are numbered afresh."""
    folder = write_folder(tmp_path / "set", truth)
    with open_keypoint_set(folder, joints=17) as one, open_keypoint_set(folder, joints=17) as two:
        sheets = []
        for samples in (select([one]), select([one, two])):
            judged = verdicts(samples[:1], answer(samples[:1], Guess(0.0), SKELETON, labelled_boxes), SKELETON)
            sheets.append(contact_sheet(judged, SKELETON))
    assert np.array_equal(*sheets)


def test_on_the_sheet_a_long_file_name_keeps_its_end(tmp_path: Path, truth: dict[str, Any]) -> None:
    """It was cut off at the right, where names differ."""
    folder = write_folder(tmp_path / "set", truth)
    said = json.loads((folder / "annotations.json").read_text())
    sheets = []
    for end in ("a.jpg", "b.jpg"):
        picture = folder / "a camera of which the name is long" / ("recorded in the year of " * 4 + end)
        picture.parent.mkdir(exist_ok=True)
        (folder / said["images"][0]["file_name"]).rename(picture)
        said["images"][0]["file_name"] = str(picture.relative_to(folder))
        (folder / "annotations.json").write_text(json.dumps(said))
        with open_keypoint_set(folder, joints=17) as data:
            samples = select([data])[:1]
            judged = verdicts(samples, answer(samples, Guess(0.0), SKELETON, labelled_boxes), SKELETON)
            sheets.append(contact_sheet(judged[:1], SKELETON))
    first, second = (sheet[TILE[1] : TILE[1] + CAPTION_PX, : 2 * TILE[0]] for sheet in sheets)
    assert not np.array_equal(first, second)
    assert (first[:, -4:] == 32).all()  # nothing runs over the edge


def test_expected_figures() -> None:
    assert check_expected("AP", 0.7431, 74.4, 0.3).endswith("holds")
    with pytest.raises(StreamposeError, match=r"AP 71\.20, expected 74\.4 ± 0\.3") as caught:
        check_expected("AP", 0.712, 74.4, 0.3)
    assert caught.value.exit_code == 1
    with pytest.raises(StreamposeError):
        check_expected("AP", float("nan"), 74.4, 0.3)
