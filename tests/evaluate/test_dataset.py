"""Where a set's annotations and pictures are found, in the layouts that annotation tools write, and what sets are called."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.errors import DataError
from streampose.evaluate.dataset import open_keypoint_set, set_names
from tests.evaluate.sets import labels, picture

LAYOUTS: dict[str, tuple[str, Callable[[str], str], Callable[[str], str]]] = {
    # where the JSON lies, what it calls a picture, where the picture lies
    "CVAT": ("annotations/person_keypoints_default.json", lambda name: name, lambda name: f"images/default/{name}"),
    "Label Studio": ("result.json", lambda name: f"images/{name}", lambda name: f"images/{name}"),
    "Label Studio on Windows": ("result.json", lambda name: f"images\\{name}", lambda name: f"images/{name}"),
    "Roboflow": ("train/_annotations.coco.json", lambda name: name, lambda name: f"train/{name}"),
    "COCO": ("annotations/person_keypoints_val2017.json", lambda name: name, lambda name: f"val2017/{name}"),
    "a folder of its own": ("mine/set.json", lambda name: f"./pics/{name}", lambda name: f"mine/pics/{name}"),
}


def write(root: Path, layout: str, pictures: int = 3) -> tuple[Path, dict[str, Any]]:
    """The JSON of a made set of so many pictures below `root`, and what it says."""
    place, called, lies = LAYOUTS[layout]
    truth = labels(pictures)
    for image in truth["images"]:
        file = root / lies(image["file_name"])
        file.parent.mkdir(parents=True, exist_ok=True)
        boxes = [entry["bbox"] for entry in truth["annotations"] if entry["image_id"] == image["id"]]
        cv2.imwrite(str(file), picture(boxes))
        image["file_name"] = called(image["file_name"])
        del image["split"]
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text(json.dumps(truth))
    return root / place, truth


def pack(root: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(root).as_posix())
    return target


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tools_zip_is_read_as_it_was_exported(tmp_path: Path, layout: str) -> None:
    _, truth = write(tmp_path / "export", layout)
    (tmp_path / "export" / "__MACOSX").mkdir()
    (tmp_path / "export" / "__MACOSX" / "._result.json").write_bytes(b"\0")
    (tmp_path / "export" / "README.dataset.txt").write_text("exported")
    with open_keypoint_set(pack(tmp_path / "export", tmp_path / "mine.zip"), joints=17) as data:
        assert len(data.people) == len(truth["annotations"])
        for person in data.people:
            seen = data.read(person.image)
            x, y = ((person.box[:2] + person.box[2:]) / 2).astype(int)
            assert seen[y, x].min() == 255, "the very picture: its block is where its box is"
            assert seen[-1, -1].max() == 0
            assert person.image.source == "mine"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tools_export_unpacked_is_read_by_its_json_and_folder(tmp_path: Path, layout: str) -> None:
    place, truth = write(tmp_path / "export", layout)
    with open_keypoint_set(place, joints=17, images=tmp_path / "export") as data:
        assert len({data.read(image).tobytes() for image in data.images.values()}) == len(truth["images"])


@pytest.mark.parametrize("layout", ["COCO", "CVAT"])
def test_a_json_in_annotations_finds_its_pictures_beside_that_folder(tmp_path: Path, layout: str) -> None:
    place, _ = write(tmp_path / "export", layout)
    with open_keypoint_set(place, joints=17) as data:
        assert all(data.read(image).shape == (240, 320, 3) for image in data.images.values())


def test_a_folder_with_annotations_json_is_searched_and_a_lone_json_is_not(tmp_path: Path) -> None:
    place, _ = write(tmp_path / "export", "CVAT")
    lone = place.rename(tmp_path / "export" / "annotations.json")
    with open_keypoint_set(tmp_path / "export", joints=17) as data:
        assert {image.file for image in data.images.values()} == {f"images/default/{i}.png" for i in range(3)}
    with pytest.raises(DataError, match=r"image 10: 0\.png is missing"):
        open_keypoint_set(lone, joints=17)  # it could lie at the top of a disk


def test_a_picture_that_lies_there_twice_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "export", "CVAT")
    again = tmp_path / "export" / "images" / "other"
    again.mkdir()
    (again / "1.png").write_bytes((tmp_path / "export" / "images" / "default" / "1.png").read_bytes())
    packed = pack(tmp_path / "export", tmp_path / "mine.zip")
    with pytest.raises(DataError) as caught:
        open_keypoint_set(packed, joints=17)
    assert str(caught.value) == (
        f"{packed}: image 11: 1.png lies there 2 times (images/default/1.png, images/other/1.png)"
    )


def test_a_picture_is_not_taken_for_one_whose_name_ends_alike(tmp_path: Path) -> None:
    place, _ = write(tmp_path / "export", "CVAT")
    folder = tmp_path / "export" / "images" / "default"
    (folder / "1.png").rename(folder / "11.png")
    with pytest.raises(DataError, match=r"image 11: 1\.png is missing$"):
        open_keypoint_set(place, joints=17, images=tmp_path / "export")


def test_a_zip_with_several_jsons_or_with_none(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        (tmp_path / "export" / part).mkdir(parents=True)
        (tmp_path / "export" / part / "_annotations.coco.json").write_text("{}")
    packed = pack(tmp_path / "export", tmp_path / "mine.zip")
    with pytest.raises(DataError, match=r"mine\.zip: has 2 JSON files \(train/.*, valid/.*\).*unpack it and name one$"):
        open_keypoint_set(packed, joints=17)
    with zipfile.ZipFile(tmp_path / "bare.zip", "w") as archive:
        archive.writestr("a.png", b"")
    with pytest.raises(DataError, match=r"bare\.zip: no annotations\.json in it, and no other JSON$"):
        open_keypoint_set(tmp_path / "bare.zip", joints=17)


def test_sets_are_called_apart() -> None:
    paths = [Path("monday/instances_default.json"), Path("tuesday/instances_default.json"), Path("coco-1.zip")]
    assert set_names(paths) == ["monday/instances_default", "tuesday/instances_default", "coco-1"]
    assert set_names([Path("a.zip"), Path("a.json")]) == ["a.zip", "a.json"]
    assert set_names([Path("a.zip"), Path.cwd() / "a.zip"]) == ["a", "a"]


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(lambda parts: Path(*parts).with_suffix(".zip"))


@given(st.lists(PATHS, max_size=6))
def test_names_are_one_where_the_path_is_one_and_no_longer_than_they_must_be(paths: list[Path]) -> None:
    names = set_names(paths)
    assert len(set(names)) == len(set(paths))
    for path, name in zip(paths, names, strict=True):
        assert str(path.absolute().with_suffix("")).endswith(f"/{name}")
        if "/" in name:
            shorter = name.partition("/")[2]
            assert (
                sum(f"/{each.absolute().with_suffix('').as_posix()}".endswith(f"/{shorter}") for each in set(paths)) > 1
            )
