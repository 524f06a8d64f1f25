"""Reading box sets, completing their labels, and what is wrong with a set in one line."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from streampose.errors import DataError
from streampose.evaluate.dataset import LabelledImage, open_keypoint_set
from streampose.train.detector_data import BoxPicture, read_set, split_held_out, with_guesses


def coco(pictures: int = 2, **changes: Any) -> dict[str, Any]:
    images = [
        {"id": i, "file_name": f"{i:03}.png", "width": 64, "height": 48, "split": "val2017"} for i in range(pictures)
    ]
    people = [
        {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "bbox": [10, 5, 20, 30]} for i in range(pictures)
    ]
    return {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]} | changes


def write_folder(path: Path, data: dict[str, Any]) -> Path:
    path.mkdir(exist_ok=True)
    (path / "annotations.json").write_text(json.dumps(data))
    for image in data["images"]:
        cv2.imwrite(str(path / image["file_name"]), np.full((48, 64, 3), 90, np.uint8))
    return path


def test_a_folder_and_a_zip_read_the_same(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", coco())
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    one, other = read_set(folder), read_set(tmp_path / "set.zip")
    assert [p.key for p in one] == [p.key for p in other]  # guesses are kept by it
    cv2.imwrite(str(folder / "001.png"), np.full((48, 64, 3), 91, np.uint8))
    assert len({p.key for p in read_set(folder)}) == 2
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.decode(), b.decode())
        assert a.boxes.tolist() == b.boxes.tolist() == [[9.5, 4.5, 29.5, 34.5]]  # COCO's edges, our pixel centres


def test_boxes_are_cut_to_the_picture_and_crowds_are_ignored(tmp_path: Path) -> None:
    data = coco(1)
    data["annotations"] += [
        {"id": 7, "image_id": 0, "iscrowd": 1, "bbox": [0, 0, 64, 10]},
        {"id": 8, "image_id": 0, "iscrowd": 0, "bbox": [50, 40, 40, 40]},
    ]
    (picture,) = read_set(write_folder(tmp_path / "set", data))
    assert picture.boxes.tolist() == [[9.5, 4.5, 29.5, 34.5], [49.5, 39.5, 63.5, 47.5]]
    assert picture.ignored.tolist() == [[-0.5, -0.5, 63.5, 9.5]]


def test_other_things_than_people_are_left_out(tmp_path: Path) -> None:
    data = coco(1, categories=[{"id": 1, "name": "person"}, {"id": 3, "name": "car"}])
    other = {"id": 7, "image_id": 0, "category_id": 3, "iscrowd": 0, "bbox": [1, 1, 20, 20]}
    data["annotations"].append(other)
    (picture,) = read_set(write_folder(tmp_path / "set", data))
    assert len(picture.boxes) == 1
    only_cars = coco(1, categories=data["categories"], annotations=data["annotations"][1:])
    with pytest.raises(DataError, match="no annotated person"):
        read_set(write_folder(tmp_path / "cars", only_cars))
    data["annotations"] += [other | {"id": 8, "category_id": [1]}, other | {"id": 9, "category_id": "car"}]
    with pytest.raises(DataError) as caught:
        read_set(write_folder(tmp_path / "odd", data))
    assert [line.split(": ", 1)[1] for line in caught.value.lines] == [
        "annotation 8: category_id [1] is no whole number of 64 bits",
        "annotation 9: category_id 'car' is no whole number of 64 bits",
    ]


@pytest.mark.parametrize("form", [str, float, lambda number: f" {number}.0 "], ids=["text", "float", "text of a float"])
def test_ids_and_flags_are_whole_numbers_in_whatever_form(tmp_path: Path, form: Callable[[int], Any]) -> None:
    data = coco(2, categories=[{"id": form(1), "name": "person"}, {"id": form(3), "name": "car"}])
    data["annotations"] += [
        {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 64, 10]},
        {"id": 3, "image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9]},
    ]
    for image in data["images"]:
        image |= {key: form(image[key]) for key in ("id", "width", "height")}
    for entry in data["annotations"]:
        entry |= {key: form(entry[key]) for key in ("id", "image_id", "category_id", "iscrowd") if key in entry}
    one, two = read_set(write_folder(tmp_path / "set", data))
    assert (len(one.boxes), len(one.ignored), len(two.boxes), len(two.ignored)) == (1, 0, 1, 1)


def test_a_picture_is_read_as_it_is_stored(tmp_path: Path) -> None:
    """Labels are of the stored pixels, whatever a camera wrote about its orientation."""
    folder = write_folder(tmp_path / "set", coco(1))
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24] = 250
    exif = Image.Exif()
    exif[0x112] = 3
    Image.fromarray(picture).save(folder / "000.png", format="JPEG", exif=exif)
    (read,) = read_set(folder)
    assert read.decode()[:20].mean() > 200


def turned_jpeg(file: Path, picture: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(picture).save(file, format="JPEG", quality=95, exif=exif)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_picture_labelled_upright_is_read_upright(
    tmp_path: Path, orientation: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The size that the JSON gives says which way its labels lie."""
    upright = np.zeros((64, 48, 3), np.uint8)
    upright[:20, :30] = 250
    back = {
        5: cv2.transpose(upright),
        6: np.rot90(upright),
        7: cv2.transpose(upright[::-1, ::-1]),
        8: np.rot90(upright, 3),
    }
    data = coco(1)
    folder = write_folder(tmp_path / "set", data)
    turned_jpeg(folder / "000.png", back[orientation], orientation)
    (stored,) = read_set(folder)
    assert stored.decode().shape == (48, 64, 3)
    data["images"][0].update(width=48, height=64)
    (folder / "annotations.json").write_text(json.dumps(data))
    (read,) = read_set(folder)
    assert np.abs(read.decode().astype(int) - upright).mean() < 3
    assert not caplog.records
    Image.fromarray(back[orientation]).save(folder / "000.png")
    with pytest.raises(DataError, match=r"000\.png is 64x48, its annotation says 48x64"):
        [each.decode() for each in read_set(folder)]


def test_a_turn_that_the_size_cannot_confirm_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_folder(tmp_path / "set", coco(4))
    for number, orientation in enumerate((1, 2, 3, 6)):
        turned_jpeg(folder / f"00{number}.png", np.zeros((48, 64, 3), np.uint8), orientation)
    with open_keypoint_set(folder, joints=0) as data:
        for image in [*data.images.values()] * 2:
            data.read(image)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{folder}: EXIF turns or mirrors 2 pictures, which is not applied: labels are taken to be of the stored pixels"
    )


def test_people_of_a_picture_that_is_listed_twice_are_in_one(tmp_path: Path) -> None:
    data = coco(1)
    data["images"].append(data["images"][0] | {"id": 8})
    data["annotations"] += [
        {"id": 5, "image_id": 8, "iscrowd": 0, "bbox": [11, 6, 20, 30]},  # the same person
        {"id": 6, "image_id": 8, "iscrowd": 0, "bbox": [45, 5, 10, 30]},
        {"id": 7, "image_id": 8, "iscrowd": 0, "bbox": [14, 5, 20, 30]},  # who stands before her, of the same entry
    ]
    (picture,) = read_set(write_folder(tmp_path / "set", data))
    assert picture.boxes.tolist() == [[9.5, 4.5, 29.5, 34.5], [44.5, 4.5, 54.5, 34.5], [13.5, 4.5, 33.5, 34.5]]


def test_a_teacher_box_gives_way_to_the_sets_own(tmp_path: Path) -> None:
    data = coco(1)
    data["annotations"] += [
        {"id": 5, "image_id": 0, "iscrowd": 0, "bbox": [12, 6, 20, 30], "from": "teacher"},  # the same person
        {"id": 6, "image_id": 0, "iscrowd": 0, "bbox": [45, 5, 10, 30], "from": "teacher"},  # another
    ]
    (picture,) = read_set(write_folder(tmp_path / "set", data))
    assert picture.boxes.tolist() == [[9.5, 4.5, 29.5, 34.5], [44.5, 4.5, 54.5, 34.5]]


BROKEN = {
    "nan": (lambda d: d["annotations"][0].update(bbox=[1, 2, float("nan"), 4]), "annotation 0: a number is NaN"),
    "area": (lambda d: d["annotations"][1].update(bbox=[1, 2, 0, 4]), "annotation 1: box .* has no width or height"),
    "twice": (lambda d: d["images"][1].update(id=0), "image 0: id given twice"),
    "annotation twice": (
        lambda d: d["annotations"][1].update(id=d["annotations"][0]["id"]),
        "annotation 0: id given twice",
    ),
    "outside": (lambda d: d["annotations"][1].update(bbox=[90, 90, 10, 10]), "lies outside its 64x48 image"),
    "no box": (lambda d: d["annotations"][0].pop("bbox"), r"annotation 0: needs bbox \[x, y, w, h\]$"),
    "short box": (lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), r"annotation 0: needs bbox"),
    "box of words": (lambda d: d["annotations"][0].update(bbox=["a", 2, 3, 4]), "annotation 0: needs bbox"),
    "no width": (lambda d: d["images"][0].pop("width"), "lacks a good id, file_name, width or height"),
    "a list": (lambda d: d["annotations"].append([1]), "1 annotations are no objects"),
    "orphan": (lambda d: d["annotations"][0].update(image_id=99), "annotation 0: no image 99 in this set"),
    "half an id": (lambda d: d["annotations"][0].update(image_id=0.5), "annotation 0: no image 0.5 in this set"),
    "endless id": (lambda d: d["images"][0].update(id=2**64), "image .* lacks a good id"),
    "its own endless id": (lambda d: d["annotations"][0].update(id=2**64), "1 annotations are no objects"),
    "crowd of words": (lambda d: d["annotations"][0].update(iscrowd="no"), "annotation 0: iscrowd 'no' is no whole"),
    "category without id": (lambda d: d["categories"][0].pop("id"), "category person: id None is no whole number"),
    "nobody": (lambda d: d.update(annotations=[]), "no annotated person"),
    "size": (lambda d: d["images"][0].update(width=100), "is 64x48, its annotation says 100x48"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_wrong_with_a_set_is_one_line_each(tmp_path: Path, fault: str) -> None:
    change, message = BROKEN[fault]
    data = coco()
    change(data)
    write_folder(tmp_path / "set", data)
    with pytest.raises(DataError, match=message) as raised:
        [picture.decode() for picture in read_set(tmp_path / "set")]
    assert all(line.startswith(str(tmp_path / "set")) for line in str(raised.value).splitlines())


def test_files_that_are_missing_or_no_sets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; a set is a folder or zip"):
        read_set(tmp_path / "nothing.zip")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(DataError, match="not a zip"):
        read_set(tmp_path / "text.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"annotations\.json: no such file"):
        read_set(tmp_path / "empty")
    folder = write_folder(tmp_path / "set", coco())
    (folder / "001.png").unlink()
    with pytest.raises(DataError, match=r"image 1: 001\.png is missing"):
        read_set(folder)
    (folder / "annotations.json").write_text('{"images": []}')
    with pytest.raises(DataError, match="COCO format"):
        read_set(folder)
    (folder / "001.png").write_bytes(b"no picture")
    (folder / "annotations.json").write_text(json.dumps(coco()))
    with pytest.raises(DataError, match="does not decode as a picture"):
        read_set(folder)[1].decode()


def test_a_json_has_its_pictures_in_a_folder_of_their_own(tmp_path: Path) -> None:
    """As COCO itself is laid out; key points of any number are no matter for boxes."""
    data = coco()
    data["annotations"][0]["keypoints"] = [1, 2, 2]
    for image in data["images"]:
        del image["split"]
    folder = write_folder(tmp_path / "pictures", data)
    (folder / "annotations.json").rename(tmp_path / "people.json")
    pictures = read_set(tmp_path / "people.json", folder)
    assert [picture.decode().shape for picture in pictures] == [(48, 64, 3)] * 2
    assert {picture.source for picture in pictures} == {"people"}
    (source,) = {picture.source for picture in read_set(write_folder(tmp_path / "v1.2", data))}
    assert source == "v1.2"
    whole = write_folder(tmp_path / "whole", coco())  # a folder's pictures are its own
    assert len(read_set(whole, tmp_path / "elsewhere")) == 2


def one(source: str, number: int) -> BoxPicture:
    empty = np.zeros((0, 4), np.float32)
    image = LabelledImage(number, f"{number:012}.png", 64, 48, source)
    return BoxPicture(Path(source), image, b"", np.array([[0, 0, 20, 40]], np.float32), empty)


def test_the_last_val_pictures_and_whole_sources_are_kept_out() -> None:
    pictures = [one("val2017", n) for n in (5, 900, 30, 41)] + [one("train2017", 999), one("camera", 1)]
    training, held, unseen = split_held_out([pictures], "val2017", 2, 1.0, ["camera"])
    assert [p.image.id for p in held] == [900, 41]
    assert [p.source for p in unseen] == ["camera"]
    assert [p.image.id for p in training] == [5, 30, 999]
    assert [p.image.id for p in split_held_out([pictures], "val2017", 3, 0.5, ())[1]] == [900, 41]
    assert [p.image.id for p in split_held_out([pictures], "", 1, 1.0, ())[1]] == [999]
    apart = [[one("a", n) for n in range(20)], [one("b", n) for n in range(100, 110)], [one("camera", 500)]]
    _, held, unseen = split_held_out(apart, "", 3, 0.2, ["camera"])
    assert [(p.source, p.image.id) for p in held] == [("a", 18), ("a", 19), ("b", 109)]
    assert [p.source for p in unseen] == ["camera"]
    with pytest.raises(DataError, match=r"no picture is of moon, .*; the sets have camera, train2017, val2017"):
        split_held_out([pictures], "moon", 1, 1.0, ())
    with pytest.raises(DataError, match=r"no picture is of mars, moon, which the recipe keeps out of the training \("):
        split_held_out([pictures], "val2017", 1, 1.0, ["camera", "moon", "mars"])  # they would be trained on unnoticed


def test_guesses_become_labels_or_doubts() -> None:
    boxes = np.array([[1, 1, 21, 41], [30, 0, 50, 40], [40, 5, 60, 45]], np.float32)
    completed = with_guesses(one("web", 1), boxes, np.array([0.9, 0.8, 0.3], np.float32), sure=0.5, background=0.2)
    assert completed.boxes.tolist() == [[0, 0, 20, 40], [30, 0, 50, 40]]
    assert completed.ignored.tolist() == [[40, 5, 60, 45]]
    assert completed.background == 0.2


def test_a_label_that_nobody_sees_is_doubted() -> None:
    crowd = one("web", 1)  # its label, 20x40, is taken for a box around two people
    boxes = np.array([[0, 0, 7, 40], [11, 0, 18, 40]], np.float32)
    completed = with_guesses(crowd, boxes, np.array([0.9, 0.3], np.float32), sure=0.5, background=0.2, check=True)
    assert completed.boxes.tolist() == [[0, 0, 7, 40]]
    assert completed.ignored.tolist() == [[0, 0, 20, 40], [11, 0, 18, 40]]
    nothing = with_guesses(crowd, boxes[:0], np.zeros(0, np.float32), sure=0.5, background=0.2, check=True)
    assert nothing.boxes.shape == (0, 4)
    assert nothing.ignored.tolist() == [[0, 0, 20, 40]]
