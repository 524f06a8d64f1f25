"""Pictures and folders of pictures."""

from __future__ import annotations

import logging
import struct
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from streampose.errors import PermanentSourceError
from streampose.sources.barcode import read_code
from streampose.sources.base import Corrupt, Picture
from streampose.sources.images import ImageSource, natural_order, read_picture
from tests.media import picture

SUFFIXES = ["jpg", "JPEG", "png", "BMP", "tif", "TIFF", "webp", "ppm", "avif", "jp2", "tga"]


def save(path: Path, number: int, **options: object) -> None:
    PIL.Image.fromarray(picture(number)[:, :, ::-1]).save(path, **options)  # type: ignore[arg-type]


def watch(path: Path, only: list[str] | None = None) -> list[Picture | Corrupt]:
    source = ImageSource(path, only)
    source.open()
    items = list(source.frames(lambda: False))
    source.close()
    return items


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_common_kind_in_any_case(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"one.{suffix}"
    save(path, 7)
    (item,) = watch(path)
    assert isinstance(item, Picture)
    assert read_code(item.image) == (7, 0.0)
    assert np.abs(item.image.astype(int) - picture(7).astype(int)).mean() < 4
    assert (item.file, item.image.flags["C_CONTIGUOUS"]) == (path.name, True)


def test_a_folder_comes_in_natural_order_one_second_apart(tmp_path: Path) -> None:
    for number in (10, 2, 1, 33):
        save(tmp_path / f"img{number}.png", number)
    save(tmp_path / "IMG3.JPG", 3)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "inner").mkdir()
    save(tmp_path / "inner" / "img4.png", 4)
    source = ImageSource(tmp_path)
    info = source.open()
    items = [item for item in source.frames(lambda: False) if isinstance(item, Picture)]
    assert [item.file for item in items] == ["img1.png", "img2.png", "IMG3.JPG", "img10.png", "img33.png"]
    assert [item.time_s for item in items] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert (info.kind, info.live, info.frame_count, info.width, info.height) == ("images", False, 5, 192, 128)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    undo = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}  # how a camera that was held so stores it
    stored = PIL.Image.fromarray(picture(9)[:, :, ::-1])
    for method in undo.get(orientation, []):
        stored = stored.transpose(PIL.Image.Transpose(method))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "held.jpg"
    stored.save(path, exif=exif, quality=95)
    (item,) = watch(path)
    assert isinstance(item, Picture)
    assert read_code(item.image) == (9, 0.0)


def exif_of(*fields: tuple[int, int, int, bytes]) -> bytes:
    """EXIF with these fields: tag, type, count, and the four bytes of its value."""
    entries = [struct.pack("<HHI4s", *field) for field in sorted(fields)]
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


HELD = (0x0112, 3, 1, b"\6\0\0\0")  # turned by 90 degrees
MALFORMED = {
    "XResolution of text": (0x011A, 2, 4, b"abc\0"),
    "ImageWidth of text": (0x0100, 2, 4, b"abc\0"),
    "ImageWidth with a fraction": (0x0100, 11, 1, struct.pack("<f", 1.5)),
    "a negative Compression": (0x0103, 9, 1, struct.pack("<i", -1)),
    "Make of a number": (0x010F, 11, 1, struct.pack("<f", 1.5)),
    "an EXIF IFD of text": (0x8769, 2, 4, b"abc\0"),
}


@pytest.mark.parametrize("fault", MALFORMED)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_held_picture_with_a_malformed_field_is_read_and_turned(tmp_path: Path, suffix: str, fault: str) -> None:
    stored = PIL.Image.fromarray(picture(9)[:, :, ::-1]).transpose(PIL.Image.Transpose.ROTATE_90)
    stored.save(tmp_path / f"b.{suffix}", exif=exif_of(HELD, MALFORMED[fault]), quality=95)
    save(tmp_path / "c.png", 3)
    held, after = watch(tmp_path)
    assert isinstance(held, Picture)
    assert isinstance(after, Picture)
    assert (read_code(held.image), held.wall_s) == ((9, 0.0), None)


@pytest.mark.parametrize("fault", ["orientation", "offset", "cut"])
def test_a_fault_in_the_exif_is_as_none(tmp_path: Path, fault: str) -> None:
    exif = PIL.Image.Exif()
    exif.get_ifd(0x8769).update({0x9003: "2026:05:01 12:30:15", 0x9011: "+99:99"})
    data = {
        "orientation": exif_of((0x0112, 2, 4, b"abc\0")),
        "offset": exif.tobytes(),
        "cut": exif_of(HELD, MALFORMED["ImageWidth of text"])[:20],
    }[fault]
    save(tmp_path / "a.jpg", 5, exif=data)
    (item,) = watch(tmp_path)
    assert isinstance(item, Picture)
    assert (read_code(item.image), item.wall_s, item.wall_source) == ((5, 0.0), None, "none")


def test_a_tiff_is_turned_once_and_dated(tmp_path: Path) -> None:
    fields = ImageFileDirectory_v2()
    fields[0x0112] = 6
    fields[0x8769] = {0x9003: "2026:05:01 12:30:15", 0x9011: "+00:00"}
    stored = PIL.Image.fromarray(picture(9)[:, :, ::-1]).transpose(PIL.Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "a.tif", tiffinfo=fields)
    (item,) = watch(tmp_path)
    assert isinstance(item, Picture)
    assert read_code(item.image) == (9, 0.0)
    assert item.wall_s == datetime(2026, 5, 1, 12, 30, 15, tzinfo=UTC).timestamp()


def test_a_header_that_claims_more_than_the_memory_is_one_line(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(tmp_path / f"{name}.jp2", 1)
    data = bytearray((tmp_path / "b.jp2").read_bytes())
    assert data[36:40] == b"jp2h"
    data[35] = 1  # its length follows in 64 bits
    (tmp_path / "b.jp2").write_bytes(data)
    before, item, after = watch(tmp_path)
    assert isinstance(before, Picture)
    assert isinstance(after, Picture)
    assert item == Corrupt("b.jp2 cannot be decoded (larger than the memory, or damaged)", 1.0)


@settings(deadline=None)
@given(
    suffix=st.sampled_from(["jpg", "png", "gif", "bmp", "webp", "ppm", "tga", "tif", "jp2"]),
    spoilt=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_whatever_is_spoilt_is_one_line_or_a_picture(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, spoilt: list[tuple[float, int]]
) -> None:
    """Most of what matters is in the first bytes, so there most are spoilt."""
    folder = tmp_path_factory.mktemp("spoilt")
    for name in ("a", "b", "c"):
        save(folder / f"{name}.{suffix}", 1)
    bad = folder / f"b.{suffix}"
    data = bytearray(bad.read_bytes())
    for where, value in spoilt:
        data[int(where**4 * (len(data) - 1))] = value
    bad.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, item, after = watch(folder)
    assert isinstance(before, Picture)
    assert isinstance(after, Picture)
    assert isinstance(item, Picture) or "\n" not in item.what


@pytest.mark.parametrize(("offset", "hour"), [("+02:00", 10), ("-05:30", 17)])
def test_exif_time_is_the_wall_clock(tmp_path: Path, offset: str, hour: int) -> None:
    exif = PIL.Image.Exif()
    exif.get_ifd(0x8769).update({0x9003: "2026:05:01 12:30:15", 0x9011: offset, 0x9291: "25"})
    path = tmp_path / "dated.jpg"
    save(path, 1, exif=exif)
    (item,) = watch(path)
    assert isinstance(item, Picture)
    minute = 30 if offset == "+02:00" else 60
    expected = datetime(2026, 5, 1, hour, 0, 15, 250_000, tzinfo=UTC).timestamp() + minute * 60
    assert (item.wall_s, item.wall_source) == (expected, "container")


def test_without_exif_there_is_no_wall_clock(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    (item,) = watch(tmp_path / "a.png")
    assert isinstance(item, Picture)
    assert (item.wall_s, item.wall_source) == (None, "none")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("fault", ["cut", "text", "empty"])
def test_one_bad_picture_never_costs_the_others(tmp_path: Path, suffix: str, fault: str) -> None:
    for number in range(4):
        save(tmp_path / f"{number}.{suffix}", number)
    bad = tmp_path / f"1.{suffix}"
    bad.write_bytes({"cut": bad.read_bytes()[: bad.stat().st_size // 2], "text": b"not a picture", "empty": b""}[fault])
    items = watch(tmp_path)
    assert [isinstance(item, Corrupt) for item in items] == [False, True, False, False]
    assert isinstance(items[1], Corrupt)
    assert items[1].what.startswith(f"1.{suffix} cannot be decoded")
    assert str(tmp_path) not in items[1].what
    assert [item.time_s for item in items] == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_pixel_format_becomes_bgr(tmp_path: Path, mode: str) -> None:
    slope = np.linspace(0, 255, 64).astype(np.uint8)[None, :].repeat(32, axis=0)
    if mode == "I;16":
        PIL.Image.fromarray(slope.astype(np.uint16) * 257).save(tmp_path / "x.png")
    else:
        PIL.Image.fromarray(slope).convert("RGB").convert(mode).save(
            tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
        )
    image, _ = read_picture(next(tmp_path.iterdir()))
    assert (image.shape, image.dtype) == ((32, 64, 3), np.uint8)
    assert np.abs(image[:, :, 1].mean(axis=0) - slope[0]).mean() < {"1": 70, "P": 12}.get(
        mode, 2
    )  # 1 and P are dithered


@pytest.mark.parametrize("white", [1.0, 200.0, 255.0, 4000.0])
def test_floating_point_is_scaled_to_its_range(tmp_path: Path, white: float) -> None:
    slope = np.linspace(0, white, 64, dtype=np.float32)[None, :].repeat(32, axis=0)
    slope[0, :3] = (np.nan, np.inf, -np.inf)
    PIL.Image.fromarray(slope).save(tmp_path / "x.tif")
    image, _ = read_picture(tmp_path / "x.tif")
    assert image[0, :3, 0].tolist() == [0, 255, 0]
    expected = np.linspace(0, 200 if white == 200 else 255, 64)
    assert np.abs(image[1:].astype(float) - expected[None, :, None]).max() <= 1


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    ("suffix", "said"),
    [
        ("webp", "the first is taken"),
        ("png", "the first is taken; under a name with .apng it is a video"),
        ("gif", "the first is taken; given by its name it is a video"),
        ("tif", "taken"),
    ],
)
def test_a_file_of_several_pictures_is_said(
    tmp_path: Path, suffix: str, said: str, alone: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streampose")
    path = tmp_path / f"x.{suffix}"
    first, *others = (PIL.Image.fromarray(picture(number)[:, :, ::-1]) for number in range(3))
    first.save(path, save_all=True, append_images=others)
    save(tmp_path / "z.png", 4)
    for _ in range(2):
        watch(path if alone else tmp_path)
        watch(tmp_path, [path.name])
    (line,) = caplog.messages
    assert line.startswith(f"{path}: 3 pictures in it")
    assert line.endswith(said)


def test_many_files_of_several_pictures_are_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streampose")
    first, *others = (PIL.Image.fromarray(picture(number)[:, :, ::-1]) for number in range(3))
    for name in ("x.gif", "y.tif", "z.webp"):
        first.save(tmp_path / name, save_all=True, append_images=others)
    save(tmp_path / "a.png", 1)
    assert len(watch(tmp_path)) == 4
    assert caplog.messages == [f"{tmp_path}: x.gif and 2 more hold several pictures; the first of each is taken"]


def test_hidden_files_are_left_out_unless_they_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", 1)
    save(tmp_path / ".b.jpg", 2)
    (tmp_path / "._a.jpg").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")  # AppleDouble
    assert [item.file for item in watch(tmp_path) if isinstance(item, Picture)] == ["a.jpg"]
    assert len(watch(tmp_path)) == 1
    assert [item.file for item in watch(tmp_path, [".b.jpg"]) if isinstance(item, Picture)] == [".b.jpg"]


def test_a_picture_without_a_suffix_is_taken_where_it_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", 1)
    save(tmp_path / "photo", 2, format="PNG")
    assert [item.file for item in watch(tmp_path, ["photo"]) if isinstance(item, Picture)] == ["photo"]


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [("png", "RGBA"), ("png", "LA"), ("png", "P"), ("png", "RGB"), ("webp", "RGBA"), ("tif", "RGBA"), ("gif", "RGBA")],
)
def test_what_is_transparent_shows_white(tmp_path: Path, suffix: str, mode: str) -> None:
    """Only the left half is opaque."""
    stored = PIL.Image.new("RGBA", (64, 32), (10, 10, 10, 0))
    stored.paste((40, 40, 40, 255), (0, 0, 32, 32))
    if mode == "RGB":  # one colour stands for what is transparent
        stored.convert(mode).save(tmp_path / f"x.{suffix}", transparency=(10, 10, 10))
    else:
        (stored.quantize(4) if mode == "P" else stored.convert(mode)).save(tmp_path / f"x.{suffix}", lossless=True)
    image, _ = read_picture(tmp_path / f"x.{suffix}")
    assert np.abs(image[:, :32].astype(int) - 40).max() <= 2
    assert (image[:, 32:] == 255).all()


def test_a_tiff_torn_behind_its_first_page_is_a_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.tif"
    first, *others = (PIL.Image.fromarray(picture(number)) for number in range(2))
    first.save(path, save_all=True, append_images=others)
    data = bytearray(path.read_bytes())
    pages = int.from_bytes(data[4:8], "little")
    following = pages + 2 + 12 * int.from_bytes(data[pages : pages + 2], "little")
    data[following : following + 4] = (len(data) + 100).to_bytes(4, "little")
    path.write_bytes(data)
    assert len(watch(path)) == 1
    assert caplog.messages == []


def test_sizes_that_differ_begin_new_segments(tmp_path: Path) -> None:
    save(tmp_path / "1.png", 1)
    PIL.Image.new("RGB", (50, 60)).save(tmp_path / "2.png")
    jumps = [item.jump for item in watch(tmp_path) if isinstance(item, Picture)]
    assert jumps == ["", "the pictures differ in size"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.mkdir(), "holds no pictures"),
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("text"), "not a picture that can be decoded"),
    ],
)
def test_nothing_to_see_is_one_line(tmp_path: Path, make: object, says: str) -> None:
    path = tmp_path / "thing.png"
    make(path)  # type: ignore[operator]
    with pytest.raises(PermanentSourceError, match=says) as caught:
        ImageSource(path).open()
    assert "\n" not in str(caught.value)


def test_names_that_are_not_in_the_folder_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "1.png", 1)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(PermanentSourceError, match=r"holds none of the pictures 1\.PNG, notes\.txt$"):
        ImageSource(tmp_path, ["1.PNG", "notes.txt"]).open()
    for _ in range(2):
        assert [item.file for item in watch(tmp_path, ["1.png", "99.png"]) if isinstance(item, Picture)] == ["1.png"]
    assert caplog.messages == [f"{tmp_path} does not hold the pictures 99.png; the others are taken"]


def test_only_bad_pictures_are_an_error_at_open(tmp_path: Path) -> None:
    for name, said in (
        ("a.jpg", "a.jpg is not a picture"),
        ("b.jpg", "holds no picture that can be decoded .a.jpg: not"),
    ):
        (tmp_path / name).write_text("x")
        with pytest.raises(PermanentSourceError, match=said):
            ImageSource(tmp_path).open()


@given(st.lists(st.integers(0, 10_000), unique=True, max_size=30))
def test_numbers_sort_as_numbers(numbers: list[int]) -> None:
    paths = [Path(f"frame_{number}.png") for number in numbers]
    assert sorted(paths, key=natural_order) == [Path(f"frame_{number}.png") for number in sorted(numbers)]
