"""Bad data of a pose training: one line each, before anything is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streampose.errors import DataError
from streampose.train.pose import PoseTraining
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


def test_unlabelled_people_alone_are_refused(tmp_path: Path) -> None:
    content = stick_set(tmp_path / "set", 3)
    for annotation in content["annotations"]:
        annotation["keypoints"] = [0, 0, 0] * 6
    write_annotations(tmp_path / "set", content)
    with pytest.raises(DataError, match="no labelled person is left"):
        PoseTraining(recipe_for(tmp_path), quiet)
