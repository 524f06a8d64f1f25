"""One conversion of a detector serves pictures of every size, and says for each what torch says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from streampose.errors import ModelError
from streampose.models import cache
from streampose.models import manifest as manifests
from streampose.models.open import open_runtime, takes_any_size
from streampose.runtime.select import choose
from tests.made_models import write_detector, write_pose_model

SIZES = ((128, 96), (96, 128), (160, 64))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "cache"))


def conversions() -> list[Path]:
    return sorted(cache.cache_folder().rglob("*.ir"))


def test_a_detector_is_converted_once_for_all_sizes(tmp_path: Path) -> None:
    manifest, weights = manifests.load(write_detector(tmp_path))
    rng = np.random.default_rng(4)
    for width, height in SIZES:
        pictures = rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
        wanted, got = (
            open_runtime(manifest, weights, choose("cpu", name, "fp32"), size=(width, height), batch_sizes=(1,))(
                pictures
            )[0]
            for name in ("torch", "openvino")
        )
        assert wanted.shape == (1, 5, width * height // 64 + width * height // 256 + width * height // 1024)
        assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert len(conversions()) == 1


def test_a_pose_network_has_its_size(tmp_path: Path) -> None:
    manifest, weights = manifests.load(write_pose_model(tmp_path))
    assert not takes_any_size(manifest, weights)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="the int8 extra is not installed")
def test_int8_is_calibrated_once_for_all_sizes(
    tmp_path: Path, short_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMPOSE_CALIBRATION", str(short_clip.parent))
    manifest, weights = manifests.load(write_detector(tmp_path))
    for width, height in SIZES[:2]:
        runtime = open_runtime(manifest, weights, choose("cpu", "openvino", "int8"), size=(width, height))
        (raw,) = runtime(np.full((1, height, width, 3), 128, np.uint8))
        assert runtime.precision == "int8"
        assert raw.shape[2] == width * height // 64 + width * height // 256 + width * height // 1024
    assert len(conversions()) == 1


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="the int8 extra is not installed")
def test_int8_starts_without_its_videos_once_it_is_calibrated(
    tmp_path: Path, short_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However well a network was cached, a start without the stick that they lay on was refused."""
    manifest, weights = manifests.load(write_detector(tmp_path))
    choice = choose("cpu", "openvino", "int8")
    pictures = {size: np.full((1, size[1], size[0], 3), 128, np.uint8) for size in SIZES[:2]}
    monkeypatch.setenv("STREAMPOSE_CALIBRATION", str(short_clip.parent))
    wanted = {size: open_runtime(manifest, weights, choice, size=size)(batch)[0] for size, batch in pictures.items()}
    monkeypatch.setenv("STREAMPOSE_CALIBRATION", str(tmp_path / "gone"))
    for size, batch in pictures.items():
        (raw,) = open_runtime(manifest, weights, choice, size=size)(batch)
        np.testing.assert_array_equal(raw, wanted[size])
    open_runtime(manifest, weights, choice, size=SIZES[2])
    assert len(conversions()) == 1
    other = manifest.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(ModelError, match=r"STREAMPOSE_CALIBRATION=.*gone: no video"):
        open_runtime(other, weights, choice, size=SIZES[0])
