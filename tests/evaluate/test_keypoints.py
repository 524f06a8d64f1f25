"""OKS-AP against pycocotools, and re-imaged people against the geometry they promise."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from streampose.errors import DataError
from streampose.evaluate.dataset import open_keypoint_set
from streampose.evaluate.keypoints import measure, person_scores, prepare_crops, score_keypoints
from streampose.evaluate.reimage import reimage_person
from streampose.models.manifest import InputSpec, OutputSpec
from streampose.pose.skeleton import load_skeleton
from tests.train.stick_people import COLOURS, stick_set

LIMBS = load_skeleton("limbs6")
SPEC = InputSpec(width=96, height=128)


def colour_network(crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Finds a joint by its colour: a pose network that is right wherever it sees."""
    small = crops[:, ::4, ::4].astype(np.float32)
    away = np.abs(small[:, None] - np.array(COLOURS, np.float32)[None, :, None, None]).sum(-1)
    return np.exp(-((away / 120) ** 2)).astype(np.float32)


def test_a_network_that_sees_colours_scores_high_and_far_is_worse(tmp_path: Path) -> None:
    stick_set(tmp_path, 10)
    with open_keypoint_set(tmp_path, joints=6) as data:
        near = measure(prepare_crops(data, data.people, SPEC), colour_network, OutputSpec(kind="heatmap"), LIMBS)
        far = prepare_crops(data, data.people, SPEC, person_height=24)
        again = prepare_crops(data, data.people, SPEC, person_height=24)
        assert (far.crops == again.crops).all()
        assert near.ap > 0.5
        assert measure(far, colour_network, OutputSpec(kind="heatmap"), LIMBS).ap < near.ap - 0.1


def test_key_points_are_taken_by_their_names(tmp_path: Path) -> None:
    """The same set with its joints in another order and spelt otherwise; with names that clash; with words of its own."""
    content = stick_set(tmp_path, 3)
    with open_keypoint_set(tmp_path, joints=6, names=LIMBS.keypoints) as data:
        truth = np.stack([person.keypoints for person in data.people])
    order = [5, 3, 1, 0, 4, 2]
    names = [LIMBS.keypoints[at] for at in order]

    def stored(called: list[str]) -> Path:
        changed = json.loads(json.dumps(content))
        changed["categories"] = [{"id": 1, "name": "Person", "keypoints": called}]
        for each in changed["annotations"]:
            each["keypoints"] = np.reshape(each["keypoints"], (6, 3))[order].ravel().tolist()
            each["category_id"] = 1
        (tmp_path / "annotations.json").write_text(json.dumps(changed))
        return tmp_path

    with open_keypoint_set(
        stored([name.replace("_", " ").title() for name in names]), joints=6, names=LIMBS.keypoints
    ) as data:
        assert (np.stack([person.keypoints for person in data.people]) == truth).all()
    with pytest.raises(DataError, match="key point 1 is called right_foot, and head in the skeleton; all have to be"):
        open_keypoint_set(stored([*names[:5], "thumb"]), joints=6, names=LIMBS.keypoints)
    with open_keypoint_set(stored(list("abcdef")), joints=6, names=LIMBS.keypoints) as data:
        assert (np.stack([person.keypoints for person in data.people]) == truth[:, order]).all()


def test_people_are_those_of_a_category_called_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = stick_set(tmp_path, 4)

    def people(*names: str) -> int:
        content["categories"] = [{"id": number, "name": name} for number, name in enumerate(names)]
        for number, each in enumerate(content["annotations"]):
            each["category_id"] = number % len(names)
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        with open_keypoint_set(tmp_path, joints=6) as data:
            return len(data.people)

    assert people("Pedestrian", "car") == 2
    assert people("worker") == 4
    assert not caplog.records
    assert people("worker", "guest") == 4
    assert "no category is called person; all are taken for people: worker, guest" in caplog.text


def test_figures_are_pycocotools(tmp_path: Path) -> None:
    content = stick_set(tmp_path, 30)
    rng = np.random.default_rng(5)
    with open_keypoint_set(tmp_path, joints=6) as data:
        truth = np.stack([person.keypoints for person in data.people])
        found = truth.copy()
        found[..., :2] += rng.normal(0, 4, found[..., :2].shape) * rng.uniform(0, 2, (30, 1, 1))
        found[..., 2] = rng.uniform(0, 1, (30, 6))
        ids = [person.image.id for person in data.people]
        ours = score_keypoints(data.people, ids, found, LIMBS)
        perfect = score_keypoints(data.people, ids, truth / (1, 1, 2), LIMBS)
    assert perfect.ap == pytest.approx(1.0)
    (tmp_path / "truth.json").write_text(json.dumps(content | {"info": {}}))
    coco = COCO(str(tmp_path / "truth.json"))
    scores = person_scores(found)
    results = [
        {"image_id": image, "category_id": 1, "keypoints": points.ravel().tolist(), "score": float(score)}
        for image, points, score in zip(ids, found, scores, strict=True)
    ]
    counted = COCOeval(coco, coco.loadRes(results), "keypoints")
    counted.params.kpt_oks_sigmas = LIMBS.sigmas.astype(float)
    counted.evaluate()
    counted.accumulate()
    counted.summarize()
    expected = [counted.stats[index] for index in (0, 1, 2, 5)]
    assert [ours.ap, ours.ap50, ours.ap75, ours.ar] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("height", [40, 64, 96])
@pytest.mark.parametrize("box", [[60, 50, 130, 230], [-40, 20, 60, 220], [250, 100, 400, 180]])
def test_re_imaging_keeps_geometry(height: int, box: list[int]) -> None:
    """A soft dot on a picture is found where the map says, also for boxes that leave it."""
    dot = np.clip((np.array(box[:2]) + np.array(box[2:])) / 2, 30, (270, 210)) + (3.3, -2.7)
    yy, xx = np.mgrid[:240, :300]
    image = np.repeat((200 * np.exp(-((xx - dot[0]) ** 2 + (yy - dot[1]) ** 2) / 128))[..., None], 3, 2)
    far, affine = reimage_person(image.astype(np.uint8), np.array(box, np.float32), height, seed=1)
    corners = affine[:, :2] @ np.array(box, float).reshape(2, 2).T
    assert corners[1, 1] - corners[1, 0] == pytest.approx(height, rel=0.03)
    light = np.clip(far[..., 0].astype(float) - 40, 0, None)
    py, px = np.mgrid[: far.shape[0], : far.shape[1]]
    seen = np.array([(light * px).sum(), (light * py).sum()]) / light.sum()
    assert np.abs(seen - (affine[:, :2] @ dot + affine[:, 2])).max() < 0.35


def test_what_lies_around_a_flat_box_stays_a_picture() -> None:
    """64 pixels high it would be 88,000 wide, and no JPEG."""
    box = np.array([0, 1078, 1000, 1079.4], np.float32)
    far, affine = reimage_person(np.zeros((1080, 1920, 3), np.uint8), box, 64, seed=1)
    assert far.shape[1] == 65_500
    assert affine[0, 0] == pytest.approx(65_500 / 1500, rel=0.01)
    assert affine[1, 1] == pytest.approx(affine[0, 0], rel=0.02)


def test_re_imaging_is_the_same_for_the_same_person_only() -> None:
    image = np.full((100, 80, 3), 128, np.uint8)
    box = np.array([20, 20, 50, 90], np.float32)
    first, again, other = (reimage_person(image, box, 40, seed)[0] for seed in (7, 7, 8))
    assert (first == again).all()
    assert (first != other).any()
