"""Annotated pictures: one for each, under its name, never on top of another or of the original."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from made_results import make_info, make_person, make_result

from streampose.errors import SinkError
from streampose.messages import Break
from streampose.sinks.draw import DrawSkeleton
from streampose.sinks.paths import Names
from streampose.sinks.pictures import PicturesSink


def test_one_for_each_in_its_own_format(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    sink = PicturesSink(tmp_path / "{camera}", "shop", skeleton)
    sink.write(Break("shop", 0, make_info(url=str(tmp_path / "in"), kind="images")))
    names = ["a.jpg", "a.png", "a.bmp", "B.JPG", "sub/a.jpeg", "c.tiff"]
    for index, name in enumerate(names):
        sink.write(make_result(index, file=name, people=[make_person()], size=(100 + index, 80)))
    sink.close()
    expected = {"a.jpg": b"\xff\xd8", "a.png": b"\x89P", "a.bmp.png": b"\x89P", "B.JPG": b"\xff\xd8",
                "sub/a.jpeg": b"\xff\xd8", "c.tiff.png": b"\x89P"}  # fmt: skip
    made = {str(p.relative_to(tmp_path / "shop")): p.read_bytes()[:2] for p in (tmp_path / "shop").rglob("*.*")}
    assert made == expected
    picture = cv2.imread(str(tmp_path / "shop" / "a.bmp.png"))
    assert picture.shape == (80, 102, 3)
    assert np.unique(picture).size > 5
    assert sink.outputs() == (str(tmp_path / "shop"),)


def test_the_original_is_never_replaced(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    before = (tmp_path / "a.png").read_bytes()
    for url in (tmp_path, tmp_path / "a.png"):
        sink = PicturesSink(tmp_path, "x", skeleton)
        sink.write(Break("x", 0, make_info(url=str(url), kind="images")))
        with pytest.raises(SinkError, match="this is the picture itself; choose another folder"):
            sink.write(make_result(0, file="a.png"))
    assert (tmp_path / "a.png").read_bytes() == before


def test_names_cannot_leave_the_folder(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    sink = PicturesSink(tmp_path / "out", "x", skeleton)
    sink.write(make_result(0, file="../../evil.jpg"))
    sink.write(make_result(1, file="/etc/other.png"))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["evil.jpg", "other.png"]


def test_an_unwritable_folder_is_one_line(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    (tmp_path / "out").write_text("")
    sink = PicturesSink(tmp_path / "out", "x", skeleton)
    with pytest.raises(SinkError, match="is a file, not a folder") as caught:
        sink.write(make_result(0, file="a.jpg"))
    assert "\n" not in str(caught.value)
    assert sink.outputs() == ()


def test_a_name_that_is_too_long_is_one_line(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    sink = PicturesSink(tmp_path, "x", skeleton)
    with pytest.raises(SinkError, match="the name is too long; choose a shorter one"):
        sink.write(make_result(0, file="x" * 248 + ".bmp"))


def test_a_name_as_long_as_can_be_is_kept(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    sink = PicturesSink(tmp_path, "x", skeleton)
    sink.write(make_result(0, file="x" * 251 + ".png"))
    assert [path.name for path in tmp_path.iterdir()] == ["x" * 251 + ".png"]


def test_a_picture_of_the_source_keeps_its_name_before_one_that_would_take_it(
    tmp_path: Path, skeleton: DrawSkeleton
) -> None:
    names = ["a.bmp", "a.bmp.png", "sub/a.bmp"]
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(tmp_path / "in" / name), np.zeros((8, 8, 3), np.uint8))
    sink = PicturesSink(tmp_path / "out", "x", skeleton)
    sink.write(Break("x", 0, make_info(url=str(tmp_path / "in"), kind="images")))
    for index, name in enumerate(names):
        sink.write(make_result(index, file=name, size=(100 + index, 80)))
    widths = {
        str(p.relative_to(tmp_path / "out")): cv2.imread(str(p)).shape[1] for p in (tmp_path / "out").rglob("*.png")
    }
    assert widths == {"a.bmp-2.png": 100, "a.bmp.png": 101, "sub/a.bmp.png": 102}


def test_a_camera_that_was_changed_fills_a_folder_of_its_own(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    names = Names()
    for number in range(3):
        PicturesSink(tmp_path / "{camera}", "gate", skeleton, names=names).close()  # ended before a picture came
        sink = PicturesSink(tmp_path / "{camera}", "gate", skeleton, names=names)
        for index in range(2 + number):
            sink.write(make_result(index))
    counts = {folder.name: len(list(folder.iterdir())) for folder in tmp_path.iterdir()}
    assert counts == {"gate": 2, "gate-2": 3, "gate-3": 4}
