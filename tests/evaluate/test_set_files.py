"""Where a set's annotations and pictures are found, in the layouts that annotation tools write."""

from __future__ import annotations

import json
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampose.errors import DataError
from streampose.evaluate.dataset import KeypointSet, open_keypoint_set
from streampose.evaluate.set_files import SetFiles
from tests.evaluate.sets import labels, picture

Name = Callable[[str], str]
LAYOUTS: dict[str, tuple[str, Name, Name]] = {
    # where the JSON lies, what it calls a picture, where the picture lies
    "CVAT": ("annotations/person_keypoints_default.json", lambda name: name, lambda name: f"images/default/{name}"),
    "Label Studio": ("result.json", lambda name: f"images/{name}", lambda name: f"images/{name}"),
    "Label Studio on Windows": ("result.json", lambda name: f"images\\{name}", lambda name: f"images/{name}"),
    "Label Studio's uploads": ("result.json", lambda name: f"../../upload/7/{name}", lambda name: f"images/{name}"),
    "Roboflow": ("train/_annotations.coco.json", lambda name: name, lambda name: f"train/{name}"),
    "COCO": ("annotations/person_keypoints_val2017.json", lambda name: name, lambda name: f"val2017/{name}"),
    "from the JSON": ("annotations/a.json", lambda name: f"../pics/{name}", lambda name: f"pics/{name}"),
    "a folder of its own": ("mine/set.json", lambda name: f"./pics/{name}", lambda name: f"mine/pics/{name}"),
    "another machine": ("set.json", lambda name: f"C:\\work\\pics\\{name}", lambda name: f"data/pics/{name}"),
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


def pack(root: Path, target: Path, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root).as_posix())
    return target


def check(data: KeypointSet, truth: dict[str, Any]) -> None:
    """Every picture is the very one: bright where its people's boxes are, and nowhere else."""
    with data:
        assert len(data.people) == len(truth["annotations"]) > 3
        for image in data.images.values():
            boxes = [entry["bbox"] for entry in truth["annotations"] if entry["image_id"] == image.id]
            assert (data.read(image) == picture(boxes)).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tools_zip_is_read_as_it_was_exported(tmp_path: Path, layout: str) -> None:
    _, truth = write(tmp_path / "export", layout)
    (tmp_path / "export" / "__MACOSX").mkdir()
    (tmp_path / "export" / "__MACOSX" / "._result.json").write_bytes(b"\0")
    (tmp_path / "export" / "README.dataset.txt").write_text("exported")
    data = open_keypoint_set(pack(tmp_path / "export", tmp_path / "mine.ZIP"), joints=17)
    assert {image.source for image in data.images.values()} == {"mine"}
    assert [image.file for image in data.images.values()] == [entry["file_name"] for entry in truth["images"]]
    check(data, truth)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_export_unpacked_is_read_by_its_json_and_folder(tmp_path: Path, layout: str) -> None:
    place, truth = write(tmp_path / "export", layout)
    check(open_keypoint_set(place, joints=17, images=tmp_path / "export"), truth)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_folder_of_the_pictures_themselves_may_be_named(tmp_path: Path, layout: str) -> None:
    place, truth = write(tmp_path / "export", layout)
    folder = (tmp_path / "export" / LAYOUTS[layout][2]("0.png")).parent
    check(open_keypoint_set(place, joints=17, images=folder), truth)


@pytest.mark.parametrize("layout", ["COCO", "CVAT", "from the JSON"])
def test_a_json_in_annotations_finds_its_pictures_beside_that_folder(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, truth = write(tmp_path / "export", layout)
    check(open_keypoint_set(place, joints=17), truth)
    monkeypatch.chdir(place.parent)
    check(open_keypoint_set(place.name, joints=17), truth)


def test_pictures_beside_a_json_in_annotations_come_before_copies_elsewhere(tmp_path: Path) -> None:
    place, truth = write(tmp_path / "export", "CVAT")
    for file in (tmp_path / "export" / "images" / "default").iterdir():
        (place.parent / file.name).write_bytes(file.read_bytes())
        file.write_bytes(b"another picture")
    check(open_keypoint_set(place, joints=17), truth)


def test_pictures_behind_a_link_are_found_and_a_circle_of_links_ends(tmp_path: Path) -> None:
    place, truth = write(tmp_path / "export", "COCO")
    (tmp_path / "export" / "val2017").rename(tmp_path / "elsewhere")
    (tmp_path / "export" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "export")
    check(open_keypoint_set(place, joints=17), truth)


def test_a_folder_with_annotations_json_is_searched_and_a_lone_json_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, truth = write(tmp_path / "export", "CVAT")
    lone = place.rename(tmp_path / "export" / "annotations.json")
    check(open_keypoint_set(tmp_path / "export", joints=17), truth)
    with pytest.raises(DataError, match=r"image 10: 0\.png is missing"):
        open_keypoint_set(lone, joints=17)  # it could lie at the top of a disk
    monkeypatch.chdir(tmp_path / "export")
    data = open_keypoint_set(".", joints=17)
    assert {image.source for image in data.images.values()} == {"export"}
    check(data, truth)


def test_pictures_that_lie_in_two_folders_are_a_fault(tmp_path: Path) -> None:
    place, truth = write(tmp_path / "export", "CVAT")
    other = tmp_path / "export" / "images" / "other"
    other.mkdir()
    for file in (tmp_path / "export" / "images" / "default").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    packed = pack(tmp_path / "export", tmp_path / "mine.zip")
    with pytest.raises(DataError) as caught:
        open_keypoint_set(packed, joints=17)
    assert str(caught.value) == f"{packed}: its pictures could be those of any of images/default, images/other"
    (other / "0.png").unlink()  # then the other folder alone has all
    check(open_keypoint_set(place, joints=17, images=tmp_path / "export"), truth)


def test_where_pictures_are_taken_from_is_said_when_another_place_was_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place, truth = write(tmp_path / "export", "CVAT")
    check(open_keypoint_set(place, joints=17, images=tmp_path / "export"), truth)
    assert f"{place}: its pictures are taken from {tmp_path / 'export' / 'images' / 'default'}" in caplog.text


def test_one_missing_picture_is_not_taken_from_another_part(tmp_path: Path) -> None:
    _, _ = write(tmp_path / "export", "Roboflow")
    valid = tmp_path / "export" / "valid"
    valid.mkdir()
    (tmp_path / "export" / "train" / "1.png").rename(valid / "1.png")
    with pytest.raises(DataError, match=r"mine\.zip: image 11: 1\.png is missing$"):
        open_keypoint_set(pack(tmp_path / "export", tmp_path / "mine.zip"), joints=17)


def test_a_picture_is_not_taken_for_one_whose_name_ends_alike(tmp_path: Path) -> None:
    place, _ = write(tmp_path / "export", "CVAT")
    folder = tmp_path / "export" / "images" / "default"
    (folder / "1.png").rename(folder / "11.png")
    with pytest.raises(DataError, match=r"image 11: 1\.png is missing$"):
        open_keypoint_set(place, joints=17, images=tmp_path / "export")


def test_a_zip_written_on_windows_or_with_a_dot_before_each_name(tmp_path: Path) -> None:
    _, truth = write(tmp_path / "export", "Label Studio on Windows")
    for name, form in (("a.zip", lambda path: path.replace("/", "\\")), ("b.zip", lambda path: f"./{path}")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in sorted((tmp_path / "export").rglob("*.*")):
                info = zipfile.ZipInfo("x")
                info.filename = form(file.relative_to(tmp_path / "export").as_posix())
                archive.writestr(info, file.read_bytes())
        check(open_keypoint_set(tmp_path / name, joints=17), truth)


def pack_as_macos(root: Path, target: Path) -> Path:
    """Names in UTF-8 that are not said to be."""

    class Entry(zipfile.ZipInfo):
        def _encodeFilenameFlags(self) -> tuple[bytes, int]:
            return self.filename.encode(), self.flag_bits & ~0x800

    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.writestr(Entry(file.relative_to(root).as_posix()), file.read_bytes())
    return target


@pytest.mark.parametrize("lying", ["NFC", "NFD"])
@pytest.mark.parametrize("named", ["NFC", "NFD"])
def test_a_name_with_an_umlaut_is_found_in_whatever_form_it_is_written(tmp_path: Path, named: Any, lying: Any) -> None:
    place, truth = write(tmp_path / "export", "CVAT")
    folder = (tmp_path / "export" / "images" / "default").rename(tmp_path / "export" / "images" / "tmp")
    for number, image in enumerate(truth["images"]):
        (folder / image["file_name"]).rename(folder / unicodedata.normalize(lying, f"Süd {number}.png"))
        image["file_name"] = unicodedata.normalize(named, f"Süd {number}.png")
    folder.rename(folder.with_name(unicodedata.normalize(lying, "Tür")))
    place.write_text(json.dumps(truth, ensure_ascii=False))
    check(open_keypoint_set(place, joints=17), truth)
    check(open_keypoint_set(pack(tmp_path / "export", tmp_path / "mine.zip"), joints=17), truth)
    check(open_keypoint_set(pack_as_macos(tmp_path / "export", tmp_path / "mac.zip"), joints=17), truth)


def test_a_zip_with_several_jsons_or_with_none(tmp_path: Path) -> None:
    place, truth = write(tmp_path / "export", "Roboflow")
    other = tmp_path / "export" / "valid" / "_annotations.coco.json"
    other.parent.mkdir()
    other.write_text("{}")
    with pytest.raises(DataError) as caught:
        open_keypoint_set(pack(tmp_path / "export", tmp_path / "mine.zip"), joints=17)
    names = "train/_annotations.coco.json, valid/_annotations.coco.json"
    advice = "each is a set: name one, as mine.zip/train/_annotations.coco.json"
    assert str(caught.value).endswith(f"mine.zip: has 2 JSON files ({names}); {advice}")
    check(open_keypoint_set(tmp_path / "mine.zip" / "train" / "_annotations.coco.json", joints=17), truth)
    check(open_keypoint_set(tmp_path / "mine.zip" / "train", joints=17), truth)
    with pytest.raises(DataError, match=r"mine\.zip/valid: the JSON needs the lists"):
        open_keypoint_set(tmp_path / "mine.zip" / "valid", joints=17)
    with pytest.raises(DataError, match=r"mine\.zip/tarin: no annotations\.json in it, and no other JSON$"):
        open_keypoint_set(tmp_path / "mine.zip" / "tarin", joints=17)
    with pytest.raises(DataError, match=r"yours\.zip/train: no such file; a set is"):
        open_keypoint_set(tmp_path / "yours.zip" / "train", joints=17)
    place.rename(place.with_name("annotations.json"))
    check(open_keypoint_set(pack(tmp_path / "export", tmp_path / "one.zip"), joints=17), truth)
    with zipfile.ZipFile(tmp_path / "bare.zip", "w") as archive:
        archive.writestr("a.png", b"")
    with pytest.raises(DataError, match=r"bare\.zip: no annotations\.json in it, and no other JSON$"):
        open_keypoint_set(tmp_path / "bare.zip", joints=17)


def spoilt(path: Path, name: str, change: Callable[[bytearray, zipfile.ZipInfo], None]) -> None:
    """Change the bytes of the zip `path`, told where the entry `name` begins."""
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(name)
    content = bytearray(path.read_bytes())
    change(content, entry)
    path.write_bytes(content)


def encrypted(content: bytearray, entry: zipfile.ZipInfo) -> None:
    central = content.rindex(entry.filename.encode()) - 46
    content[central + 8] |= 1
    content[entry.header_offset + 6] |= 1


def of_unknown_method(content: bytearray, entry: zipfile.ZipInfo) -> None:
    central = content.rindex(entry.filename.encode()) - 46
    content[central + 10] = content[entry.header_offset + 8] = 97


def damaged(content: bytearray, entry: zipfile.ZipInfo) -> None:
    start = entry.header_offset + 30 + len(entry.filename)
    content[start : start + 12] = b"\xff" * 12


@pytest.mark.parametrize("change", [encrypted, of_unknown_method, damaged])
@pytest.mark.parametrize("name", ["result.json", "images/1.png"])
def test_what_cannot_be_unpacked_is_one_line(tmp_path: Path, name: str, change: Callable[..., None]) -> None:
    write(tmp_path / "export", "Label Studio")
    packed = pack(tmp_path / "export", tmp_path / "mine.zip", zipfile.ZIP_DEFLATED)
    spoilt(packed, name, change)
    with pytest.raises(DataError, match=r"mine\.zip: .*cannot be read \(.+\)$") as caught:  # noqa: PT012
        with open_keypoint_set(packed, joints=17) as data:
            for image in data.images.values():
                data.read(image)
    assert len(caught.value.lines) == 1


FOLDERS = st.lists(st.sampled_from(["a", "b", "..", ".", "c\\d", ""]), max_size=3)
CALLED = st.builds(
    lambda folders, last: "/".join([*folders, last]), FOLDERS, st.sampled_from(["1.png", "2.png", "11.png"])
)
LYING = CALLED.map(lambda name: "/".join(part for part in name.split("/") if part not in ("", ".", "..", "c\\d")))


@settings(max_examples=60, deadline=None)
@given(st.lists(CALLED, min_size=1, max_size=4), st.sets(LYING, max_size=6))
def test_what_is_found_is_called_as_it_was_named(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], lying: set[str]
) -> None:
    packed = tmp_path_factory.getbasetemp() / "made.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("annotations.json", "{}")
        for name in lying:
            archive.writestr(f"x/{name}", name.rpartition("/")[2])
    files = SetFiles(packed)
    assert files.annotations() == b"{}"
    try:
        missing = files.find(names)
    except DataError as fault:
        assert "could be those of any of" in str(fault)  # noqa: PT017
    else:
        for name in set(names) - set(missing):
            assert files.read(name).decode() == name.replace("\\", "/").rpartition("/")[2]
        for name in missing:
            with pytest.raises(DataError, match="is missing"):
                files.read(name)
    finally:
        files.close()
