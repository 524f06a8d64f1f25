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
from streampose.models import calibrate
from streampose.models import manifest as manifests
from streampose.models.calibrate import calibration_folder, calibration_pictures
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
    monkeypatch.setattr(calibrate, "calibration_folder", lambda: None)
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


def test_the_named_folder_comes_first(short_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert calibration_folder() == short_clip.parent
    monkeypatch.setenv("STREAMPOSE_CALIBRATION", str(tmp_path))
    found = calibration_folder()
    assert found is not None
    assert found.name == "samples"
