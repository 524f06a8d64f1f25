"""Bad data of a pose training: one line each, before anything is trained."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from streampose.cli.main import app
from streampose.errors import DataError
from streampose.evaluate.dataset import open_keypoint_set
from streampose.pose.skeleton import load_skeleton
from streampose.train.detector_data import read_set, split_held_out
from streampose.train.pose import PoseTraining
from streampose.train.pose_data import open_sets, split_people
from tests.evaluate.sets import zip_folder
from tests.train.small_recipe import quiet, recipe_for
from tests.train.stick_people import stick_set, write_annotations

FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing picture": (lambda c: c["images"][0].update(file_name="gone.png"), "gone.png is missing"),
    "nan": (lambda c: c["annotations"][0]["keypoints"].__setitem__(0, float("nan")), "annotation 1: a number is NaN"),
    "outside": (lambda c: c["annotations"][0].update(bbox=[300, 5, 20, 20]), "lies outside its 100x120 image"),
    "flat box": (lambda c: c["annotations"][0].update(bbox=[5, 5, 20, 0]), "has no width or height"),
    "joint count": (lambda c: c["annotations"][0].update(keypoints=[1, 1, 2] * 5), "5 key points, the skeleton has 6"),
    "no key points": (lambda c: c["annotations"][0].pop("keypoints"), "needs bbox"),
    "id twice": (lambda c: c["annotations"][1].update(id=1), "annotation 1: id given twice"),
    "image id twice": (lambda c: c["images"][1].update(id=1), "image 1: id given twice"),
    "no such image": (lambda c: c["annotations"][0].update(image_id=77), "no image 77"),
    "of two sizes": (
        lambda c: c["images"].append(c["images"][0] | {"id": 9, "width": 50}),
        "image 9: 1.png is image 1 too, and of another size there",
    ),
    "visibility": (lambda c: c["annotations"][0]["keypoints"].__setitem__(2, 5), "visibility must be 0, 1 or 2"),
    "scores": (lambda c: c["annotations"][0].update(scores=[0.5]), "scores must be 6 numbers"),
    "empty": (lambda c: (c["annotations"].clear(), c["images"].clear()), "no annotated person"),
    "not coco": (lambda c: c.pop("images"), "COCO format"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_data_is_one_line_each(tmp_path: Path, fault: str) -> None:
    change, message = FAULTS[fault]
    content = stick_set(tmp_path / "set", 3)
    change(content)
    write_annotations(tmp_path / "set", content)
    with pytest.raises(DataError, match=message) as caught:
        PoseTraining(recipe_for(tmp_path), quiet)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(str(tmp_path / "set")) for line in lines)


def test_a_picture_that_does_not_decode_and_one_of_another_size(tmp_path: Path) -> None:
    stick_set(tmp_path / "set", 3)
    (tmp_path / "set" / "2.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"2\.png does not decode"):
        PoseTraining(recipe_for(tmp_path), quiet)
    (tmp_path / "set" / "2.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2\.png does not decode"):
        PoseTraining(recipe_for(tmp_path), quiet)


def test_pictures_of_two_sets_stay_apart_whatever_their_ids(tmp_path: Path) -> None:
    stick_set(tmp_path / "one", 10)
    stick_set(tmp_path / "two", 5, seed=1)
    recipe = recipe_for(
        tmp_path, data=[tmp_path / "one", tmp_path / "two"], holdout={"heights": [30]}, measure_trained=False
    )
    training = PoseTraining(recipe, quiet)
    assert len(training.store) == 12
    for crops in training.views.values():  # a fifth of each set, those of the highest ids
        assert [person.image.source for person in crops.people] == ["one", "one", "two"]
        assert [person.image.file for person in crops.people] == ["9.png", "10.png", "5.png"]
        assert len({person.image.id for person in crops.people}) == 3


def test_a_picture_that_is_listed_twice_is_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in a JSON that joins the exports of two people who labelled the same pictures."""
    content = stick_set(tmp_path / "set", 10)
    content["images"] += [
        {**image, "id": image["id"] + 100, "file_name": f"./{image['file_name']}"} for image in content["images"]
    ]
    content["annotations"] += [
        {**entry, "id": entry["id"] + 100, "image_id": entry["image_id"] + 100} for entry in content["annotations"]
    ]
    content["annotations"][0]["keypoints"] = [0] * 18  # the first had not labelled her yet
    write_annotations(tmp_path / "set", content)
    recipe = recipe_for(tmp_path, holdout={"heights": []}, measure_trained=False)
    (data,) = sets = open_sets(recipe, load_skeleton("limbs6"))
    trained, measured = ([person.image.file for person in part] for (part,) in split_people(sets, recipe.holdout))
    data.close()
    assert measured == ["9.png", "10.png"], "each person once"
    assert not set(trained) & set(measured)
    assert len(trained) == 8
    assert len(data.images) == 10
    said, more = [record.getMessage() for record in caplog.records]
    assert more == f"{tmp_path / 'set'}: leaves out 10 people who are in another entry of their picture"
    assert said.startswith(f"{tmp_path / 'set'}: lists 10 pictures more than once (1.png as 1 and 101); each is one, ")


def grown_exports(folder: Path) -> list[Path]:
    """march.zip with 10 pictures, and april.zip with these and 10 more; the last one was taken anew, under its old name."""
    content = stick_set(folder / "task", 20)
    (folder / "task").rename(folder / "april")
    cut = {key: [each for each in content[key] if each["id"] <= 10] for key in ("images", "annotations")}
    shutil.copytree(folder / "april", folder / "march")
    write_annotations(folder / "march", content | cut)
    other = cv2.imread(str(folder / "april" / "10.png"))
    cv2.imwrite(str(folder / "april" / "10.png"), 255 - other)
    return [zip_folder(folder / name, folder / f"{name}.zip") for name in ("march", "april")]


def test_what_one_export_keeps_no_other_of_the_task_trains_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """march keeps its pictures 9 and 10, april 17 to 20; april's 9 is march's, its 10 is another."""
    paths = grown_exports(tmp_path)
    recipe = recipe_for(tmp_path, data=paths, holdout={"heights": []})
    sets = open_sets(recipe, load_skeleton("limbs6"))
    trained, measured = split_people(sets, recipe.holdout)
    assert [[person.image.id for person in part] for part in measured] == [[9, 10], [17, 18, 19, 20]]
    assert [[person.image.id for person in part] for part in trained] == [
        [*range(1, 9)],
        [*range(1, 9), *range(10, 17)],
    ]
    for each in sets:
        each.close()
    training, held, unseen = split_held_out([read_set(path) for path in paths], "", 300, 0.2, ())
    assert sorted(picture.image.id for picture in held) == [9, 10, 17, 18, 19, 20]
    assert not {picture.key for picture in training} & {picture.key for picture in held}
    assert (len(training), unseen) == (23, [])
    said = "1 pictures of april are not trained on: their files are held out too, under another id or source"
    assert [record.getMessage() for record in caplog.records] == [said] * 2
    training, _, unseen = split_held_out([read_set(path) for path in paths], "march", 0, 0.2, ["april"])
    assert (len(unseen), [picture.image.id for picture in training]) == (20, [10])


def test_a_set_laid_out_as_coco_wholebody_is_trained_on_and_measured(tmp_path: Path) -> None:
    content = stick_set(tmp_path / "set", 8)
    parts = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
    first = []
    for entry in content["annotations"]:
        points = np.array(entry["keypoints"]).reshape(6, 3)
        whole = np.resize(points, (133, 3))
        whole[:, 0] += np.arange(133) / 50
        whole[112:] = 0.0  # no right hand is to be seen
        first.append(whole)
        entry["num_keypoints"] = 17
        for (name, count), end in zip(parts.items(), np.cumsum(list(parts.values())), strict=True):
            entry[name] = whole[end - count : end].reshape(-1).tolist()
            entry[name.replace("_kpts", "") + "_valid"] = bool(whole[end - 1, 2])
    write_annotations(tmp_path / "set", content)
    with open_keypoint_set(tmp_path / "set", joints=133) as data:
        for person, points in zip(data.people, first, strict=True):
            assert np.allclose(person.keypoints, points)
            assert person.labelled == 112
    with open_keypoint_set(tmp_path / "set", joints=17) as data:  # a network of 17 is measured on its part
        assert np.allclose(data.people[0].keypoints, first[0][:17])

    recipe = recipe_for(tmp_path, skeleton="wholebody133", samples=64, measure_trained=False)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    train = ["train", "pose", str(tmp_path / "recipe.yaml")]
    model = tmp_path / "whole.safetensors"
    for words in (
        train,
        [*train, "--export", str(model), "--licence", "MIT"],
        ["eval", "--data", str(tmp_path / "set"), "--model", str(model.with_suffix(".yaml")), "--runtime", "torch"],
    ):
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert "8 people in 8 pictures, labelled boxes" in done.output
    del content["annotations"][0]["face_kpts"]
    write_annotations(tmp_path / "set", content)
    with pytest.raises(DataError, match="annotation 1: 17 key points, the skeleton has 133"):
        open_keypoint_set(tmp_path / "set", joints=133)


def test_unlabelled_people_alone_are_refused(tmp_path: Path) -> None:
    content = stick_set(tmp_path / "set", 3)
    for annotation in content["annotations"]:
        annotation["keypoints"] = [0, 0, 0] * 6
    write_annotations(tmp_path / "set", content)
    recipe = recipe_for(tmp_path)
    with pytest.raises(DataError, match=r"^nobody in \S+set has a labelled key point \(all v = 0\)$"):
        PoseTraining(recipe, quiet)
    stick_set(tmp_path / "other", 3)
    recipe = recipe_for(tmp_path, data=[tmp_path / "set", tmp_path / "other"], holdout={"sources": ["other"]})
    with pytest.raises(DataError, match="no labelled person is left to train on; hold out fewer pictures"):
        PoseTraining(recipe, quiet)
