"""Which source an address means."""

from __future__ import annotations

import inspect
import re
import urllib.parse
from pathlib import Path

import PIL.Image
import pytest

from streampose.annotate import recorded
from streampose.config import CameraConfig
from streampose.errors import PermanentSourceError
from streampose.sources.images import ImageSource
from streampose.sources.libav import VideoOptions
from streampose.sources.open import is_live, kind_of, open_source
from streampose.sources.synthetic import SyntheticSource
from streampose.sources.video import VideoSource
from tests.media import write_video


@pytest.mark.parametrize(
    ("url", "kind", "live"),
    [
        ("rtsp://cam/1", "stream", True), ("RTSPS://cam/1", "stream", True), ("rtmp://cam/live/x", "stream", True),
        ("http://cam/mjpg/video.cgi", "stream", True), ("https://host/live.m3u8", "stream", True),
        ("http://host/clip.mp4?token=x", "stream", False), ("udp://239.0.0.1:1234", "stream", True),
        (0, "webcam", True), ("0", "webcam", True), ("/dev/video2", "webcam", True),
        ("clip.mp4", "video", False), ("file:///tmp/clip.mkv", "video", False), ("scan.gif", "video", False),
        ("picture.JPG", "images", False), ("/tmp/a.b/picture.webp", "images", False),
        ("test:people", "synthetic", False), ("test:people?live=1", "synthetic", True),
    ],
)  # fmt: skip
def test_kinds(url: str | int, kind: str, live: bool) -> None:
    assert (kind_of(url), is_live(url)) == (kind, live)


def test_each_kind_has_its_source(tmp_path: Path) -> None:
    assert isinstance(open_source("rtsp://cam/1", transport="udp", tap=None), VideoSource)
    assert isinstance(open_source(0), VideoSource)
    assert isinstance(open_source(str(tmp_path), skip="nonkey"), ImageSource)
    assert isinstance(open_source("test:people?people=1"), SyntheticSource)


def test_the_limits_are_those_of_the_configuration_whoever_opens() -> None:
    camera, options = CameraConfig(url="rtsp://cam/1"), VideoOptions()
    asked = inspect.signature(open_source).parameters
    for configured, name in ((camera.open_timeout, "open_timeout_s"), (camera.read_timeout, "read_timeout_s")):
        assert configured == getattr(options, name) == asked[name].default


@pytest.mark.parametrize("url", ["a clip.mp4", "a%20clip.mp4", "100%25.mp4", "100%.mp4", "a%20b.mp4"])
def test_a_file_url_is_its_path(url: str, tmp_path: Path) -> None:
    """Percent-encoded, as a browser gives it, or as it is; a file that is named with a % goes before."""
    name = url if url.startswith("a%20b") else urllib.parse.unquote(url)
    write_video(tmp_path / name, frames=3)
    source = open_source(f"file://{tmp_path}/{url}")
    info = source.open()
    assert (info.frame_count, info.url) == (3, str(tmp_path / name))
    source.close()


def test_a_file_url_of_a_picture_and_of_a_folder_is_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "the yard").mkdir()
    PIL.Image.new("RGB", (64, 48)).save(tmp_path / "the yard" / "one.jpg")
    monkeypatch.chdir(tmp_path)
    yard = f"{tmp_path}/the%20yard"
    for url in (f"file://{yard}/one.jpg", f"file://{yard}", "file://the%20yard", f"file://localhost{yard}"):
        source = open_source(url)
        assert (kind_of(url), source.open().frame_count) == ("images", 1)
        source.close()
        assert recorded(url).exists()
    assert kind_of("file://0") == "video", "no webcam"


@pytest.mark.parametrize("name", ["12:30.mp4", "test:people", "0", "foo://b.mp4"])
def test_a_file_goes_before_what_its_name_could_mean(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    write_video(tmp_path / "a.mp4", frames=3)
    Path("a.mp4").rename(name)
    assert (kind_of(name), is_live(name)) == ("video", False)
    source = open_source(name)
    assert source.open().frame_count == 3
    source.close()
    with pytest.raises(PermanentSourceError, match="not known"):
        kind_of("foo://a.mp4")


@pytest.mark.parametrize(
    ("name", "form", "pictures", "kind"),
    [
        ("one.gif", "GIF", 1, "images"), ("moving.GIF", "GIF", 3, "video"),
        ("one.apng", "PNG", 1, "images"), ("moving.apng", "PNG", 3, "video"),
        ("photo", "JPEG", 1, "images"), ("photo.png~", "PNG", 1, "images"), ("scan.2024", "TIFF", 3, "images"),
        ("moving", "GIF", 3, "video"), ("moving.webp", "WEBP", 3, "images"),
    ],
)  # fmt: skip
def test_a_picture_that_does_not_move_is_none_of_the_videos(
    name: str, form: str, pictures: int, kind: str, tmp_path: Path
) -> None:
    first, *others = (PIL.Image.new("RGB", (64, 48), colour) for colour in ("red", "green", "blue")[:pictures])
    more = {"save_all": True, "append_images": others} if others else {}
    first.save(tmp_path / name, form, **more)
    assert kind_of(str(tmp_path / name)) == kind
    source = open_source(str(tmp_path / name))
    info = source.open()
    source.close()
    assert (info.kind, info.width, info.height) == (kind, 64, 48)


@pytest.mark.parametrize("name", ["clip", "clip.rec", "clip.mjpeg"])
def test_a_video_is_one_whatever_its_name(name: str, tmp_path: Path) -> None:
    if name.endswith(".mjpeg"):  # one picture after the other
        PIL.Image.new("RGB", (64, 48)).save(tmp_path / "one.jpg")
        (tmp_path / name).write_bytes((tmp_path / "one.jpg").read_bytes() * 3)
    else:
        write_video(tmp_path / "a.mp4", frames=3)
        (tmp_path / "a.mp4").rename(tmp_path / name)
    assert kind_of(str(tmp_path / name)) == "video"


@pytest.mark.parametrize("name", ["IMG_1.HEIC", "b.dng", "c.Cr2"])
def test_a_picture_of_a_format_that_is_not_read_is_no_video_of_one_frame(name: str, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=1)
    path = (tmp_path / "a.mp4").rename(tmp_path / name)
    said = f"{path}: {path.suffix.lower()} is not read; convert it to JPEG"
    with pytest.raises(PermanentSourceError, match=f"^{re.escape(said)}$"):
        open_source(str(path))
    (tmp_path / "folder.heic").mkdir()
    assert kind_of(str(tmp_path / "folder.heic")) == "images"


def test_a_folder_goes_before_a_webcam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert kind_of("2024") == "webcam"
    Path("2024").mkdir()
    assert (kind_of("2024"), is_live("2024")) == ("images", False)
    assert isinstance(open_source("2024"), ImageSource)
    assert kind_of(2024) == "webcam"


def test_an_unknown_scheme_is_one_clear_line() -> None:
    with pytest.raises(PermanentSourceError, match=r"scheme gopher:// is not known; known are .*rtsp") as caught:
        open_source("gopher://user:secret@host/x")
    assert "secret" not in str(caught.value)


def test_a_plain_name_stays_as_it_was_given(short_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(short_clip.parent)
    source = open_source(short_clip.name)
    assert source.open().url == short_clip.name
    source.close()
