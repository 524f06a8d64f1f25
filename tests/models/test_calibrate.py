"""Int8: ranges taken from people in a real clip, and a network that is still the same network, nearly."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from streampose.detect import letterbox
from streampose.errors import ModelError
from streampose.messages import Image
from streampose.models import calibrate
from streampose.models import manifest as manifests
from streampose.models.calibrate import calibration_pictures, calibration_videos, evenly, spread_frames
from streampose.models.convert import to_openvino
from streampose.models.networks import network_of
from streampose.models.open import model_key
from streampose.runtime.openvino_runtime import shared_core
from tests.made_models import write_detector, write_pose_model


@pytest.fixture(autouse=True)
def _places(short_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPOSE_CALIBRATION", str(short_clip.parent))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="the int8 extra is not installed")
def test_a_network_calibrated_on_people_of_a_clip(tmp_path: Path) -> None:
    manifest, weights = manifests.load(write_pose_model(tmp_path))
    pictures = calibration_pictures(manifest, 64, 96, count=8)
    assert np.shape(pictures) == (8, 96, 64, 3)
    assert np.std(pictures) > 10
    model = to_openvino(network_of(manifest, weights), manifest.input, 64, 96)
    quantised = calibrate.quantise(model, pictures)
    assert any(node.get_type_name() == "FakeQuantize" for node in quantised.get_ops())
    wanted, got = (
        shared_core().compile_model(m, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([np.stack(pictures)])[0]
        for m in (model, quantised)
    )
    assert np.corrcoef(wanted.ravel(), got.ravel())[0, 1] > 0.9


def test_frames_for_a_detector_have_its_shape(tmp_path: Path) -> None:
    manifest, _ = manifests.load(write_detector(tmp_path))
    assert np.shape(calibration_pictures(manifest, 128, 96, count=5)) == (5, 96, 128, 3)
    assert np.shape(calibration_pictures(manifest, 128, 64, count=5)) == (5, 64, 128, 3)


def test_a_detector_of_any_size_sees_every_frame_at_its_own_shape(tmp_path: Path, short_clip: Path) -> None:
    manifest, _ = manifests.load(write_detector(tmp_path))
    with av.open(str(short_clip)) as container:
        stream = container.streams.video[0]
        wanted = letterbox.plan(stream.width, stream.height, 128).size
    pictures = calibration_pictures(manifest, 128, 128, count=5, any_size=True)
    assert {picture.shape for picture in pictures} == {(wanted[1], wanted[0], 3)}
    assert 1 <= len(pictures) <= 5


def test_without_videos_or_without_nncf_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, _ = manifests.load(write_pose_model(tmp_path))
    monkeypatch.setattr(calibrate, "calibration_videos", list)
    with pytest.raises(ModelError, match="STREAMPOSE_CALIBRATION"):
        calibration_pictures(manifest, 64, 96)
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ModelError, match=r"pip install 'streampose\[int8\]'"):
        calibrate.quantise(None, np.zeros((1, 96, 64, 3), np.uint8))


def test_other_videos_make_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a second set of videos would give the network that was calibrated on the first one."""
    manifest, weights = manifests.load(write_pose_model(tmp_path))
    first = [model_key(manifest, weights, 64, 96, precision) for precision in ("int8", "fp32")]
    (tmp_path / "videos").mkdir()
    monkeypatch.setenv("STREAMPOSE_CALIBRATION", str(tmp_path / "videos"))
    (tmp_path / "videos" / "none.mp4").symlink_to("gone.mp4")
    (tmp_path / "videos" / "a.mp4").write_bytes(b"no video")
    second = [model_key(manifest, weights, 64, 96, precision) for precision in ("int8", "fp32")]
    assert first[0] != second[0]
    assert first[1] == second[1]
    (tmp_path / "videos" / "a.mp4").write_bytes(b"no video either")
    assert model_key(manifest, weights, 64, 96, "int8") != second[0]
    with pytest.raises(ModelError, match=r"a\.mp4: cannot be read to calibrate on \(Invalid data"):
        calibration_pictures(manifest, 64, 96)


def test_what_is_named_is_taken_and_nothing_else(
    short_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert calibration_videos() == [short_clip]
    monkeypatch.setenv("STREAMPOSE_CALIBRATION", str(short_clip))
    assert calibration_videos() == [short_clip]
    manifest, _ = manifests.load(write_pose_model(tmp_path))
    for wrong in (tmp_path, tmp_path / "gone", tmp_path / "tiny.yaml"):
        monkeypatch.setenv("STREAMPOSE_CALIBRATION", str(wrong))
        with pytest.raises(ModelError, match=f"STREAMPOSE_CALIBRATION={wrong}: no video, nor a folder with any"):
            calibration_pictures(manifest, 64, 96)
    monkeypatch.delenv("STREAMPOSE_CALIBRATION")
    assert {path.parent.name for path in calibration_videos()} == {"samples"}


def second_of(frame: Image) -> int:
    """Which frame of such a video it is."""
    return int((frame[16, :, 1] > 128).sum())


def write_counting(path: Path, frames: int, gop: int) -> Path:
    """A video of one frame a second, as many columns of it bright as its number, with a key frame at every `gop`-th."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1, options={"x264-params": f"keyint={gop}:scenecut=0"})
        stream.width, stream.height, stream.pix_fmt = 608, 32, "yuv420p"
        for number in range(frames):
            picture = np.zeros((32, 608, 3), np.uint8)
            picture[:, :number] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize(
    ("gop", "seen"),
    [
        (7, [0, 56, 119, 175, 238, 294, 357, 420, 476, 539]),
        (90, list(range(0, 600, 60))),
        (1000, list(range(0, 600, 60))),
    ],
)
def test_a_long_video_is_seen_evenly_to_its_end(suffix: str, gop: int, seen: list[int], tmp_path: Path) -> None:
    """By the key frames before, or where these are too rare, by the frames between."""
    frames = list(spread_frames([write_counting(tmp_path / f"long{suffix}", 600, gop)], 10))
    np.testing.assert_allclose([second_of(frame) for frame in frames], seen, atol=3)  # AVI has no times of B frames


@pytest.mark.parametrize(("frames", "count", "seen"), [(280, 200, 200), (230, 50, 46), (7, 10, 7), (14, 10, 10)])
def test_a_short_video_is_seen_evenly_to_its_end(frames: int, count: int, seen: int, tmp_path: Path) -> None:
    """With the step rounded down, of 280 frames the last 80 were never looked at."""
    found = list(spread_frames([write_counting(tmp_path / "short.mp4", frames, 90)], count))
    assert len(found) == seen
    np.testing.assert_allclose([second_of(frame) for frame in found], np.arange(seen) * frames / seen, atol=3)


def test_a_video_whose_name_reads_as_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(list(spread_frames([write_counting(tmp_path / "12:30.mp4", 20, 5).relative_to(tmp_path)], 4))) == 4


def test_of_many_videos_some_are_seen(tmp_path: Path) -> None:
    """However many there are; each gave a frame at least, and all were decoded to their ends."""
    videos = [write_counting(tmp_path / f"{number:02}.mp4", 30 * number + 1, 10) for number in range(20)]
    videos[1].write_bytes(b"no video, and not among those chosen")
    assert len(list(spread_frames(videos, 8))) == 8
    assert len(list(spread_frames(videos[2:5], 8))) == 8


def test_a_recording_that_was_cut_off_says_no_length(tmp_path: Path) -> None:
    """Its header was never completed: it was taken for one of no frames, of which all are looked at."""
    whole = write_counting(tmp_path / "whole.mkv", 600, 7)
    content = whole.read_bytes()
    duration = content.index(bytes.fromhex("448988"))  # an EBML float of eight bytes
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(content[: duration + 3] + bytes(8) + content[duration + 11 : len(content) * 3 // 4])
    with av.open(str(cut)) as container:
        assert not container.duration
    seconds = [second_of(frame) for frame in spread_frames([cut], 10)]
    assert 8 <= len(seconds) <= 10
    assert seconds == sorted(set(seconds))
    assert seconds[-1] > 300


def test_of_many_things_few_are_held() -> None:
    assert evenly(range(7), 10) == list(range(7))
    assert evenly(range(11), 3) == [0, 5, 10]
    assert evenly(iter([]), 3) == []
    for count in (100, 10_000):
        found = evenly(range(count), 4)
        steps = np.diff(found)
        assert len(found) == 4
        assert found[0] == 0
        assert found[-1] > 0.8 * count
        assert steps.max() - steps.min() <= count / (4 * 4)
