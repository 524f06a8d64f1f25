"""Loading for the pipeline: what comes out works, and a second start needs neither torch nor ultralytics."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streampose.errors import ConfigError, ModelError
from streampose.models import cache
from streampose.models.load import load_detector, load_pose
from tests.made_models import INPUT, write_detector, write_pose_model

PICTURE = np.random.default_rng(5).integers(0, 256, (120, 160, 3), dtype=np.uint8)
BOXES = np.array([[10, 10, 60, 110], [80, 20, 130, 119], [-20, 40, 30, 160]], np.float32)


@pytest.fixture(scope="module", autouse=True)
def places(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("places")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMPOSE_CACHE", str(folder / "cache"))
        patch.setenv("STREAMPOSE_WEIGHTS", str(folder / "weights"))
        write_pose_model(folder / "weights")
        write_pose_model(folder / "weights", "tiny_small", spec=INPUT.model_copy(update={"width": 32, "height": 64}))
        write_detector(folder / "weights")
        yield folder


def test_both_networks_work(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        pose = load_pose("tiny", device="cpu", precision="fp32", batch_sizes=(1, 2))
        detector = load_detector("tiny_detector", size=128, threshold=0.01, device="cpu", precision="fp32")
        found = detector([PICTURE, PICTURE])
    assert "tiny 64x96: openvino on cpu, fp32, batches of 1/2" in caplog.text
    assert "tiny_detector 128x96: openvino on cpu" in caplog.text
    (points,) = pose([PICTURE], [BOXES])
    assert points.shape == (3, 17, 3)
    assert np.isfinite(points).all()
    assert len(found) == 2
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-3)


SECOND_START = """
import sys
import numpy as np
from streampose.models.load import load_detector, load_pose
picture = np.zeros((120, 160, 3), np.uint8)
load_detector("tiny_detector", size=128, device="cpu", precision="fp32")([picture])
pose = load_pose("tiny", device="cpu", precision="fp32", batch_sizes=(1, 2))
pose([picture], [np.array([[10, 10, 60, 110]], np.float32)])
heavy = {"torch", "ultralytics", "scipy", "matplotlib", "onnx", "nncf", "pandas"} & set(sys.modules)
assert not heavy, heavy
"""


def test_a_second_start_imports_no_torch() -> None:
    load_pose("tiny", device="cpu", precision="fp32", batch_sizes=(1, 2))
    load_detector("tiny_detector", size=128, device="cpu", precision="fp32")([PICTURE])
    done = subprocess.run(
        [sys.executable, "-c", SECOND_START], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_damaged_cache_entries_are_made_again(caplog: pytest.LogCaptureFixture) -> None:
    pose = load_pose("tiny", device="cpu", precision="fp32", batch_sizes=(1,))
    (wanted,) = pose([PICTURE], [BOXES])
    for path in (cache.cache_folder() / "openvino").iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    (again,) = load_pose("tiny", device="cpu", precision="fp32", batch_sizes=(1,))([PICTURE], [BOXES])
    assert "damaged cache entry" in caplog.text
    np.testing.assert_allclose(again, wanted, atol=1e-3)


def test_a_blob_that_openvino_does_not_take_back_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    load_pose("tiny", device="cpu", precision="fp32", batch_sizes=(1,))
    for path in (cache.cache_folder() / "openvino").iterdir():
        cache.write(path, b"whole, but no compiled network")
    (points,) = load_pose("tiny", device="cpu", precision="fp32", batch_sizes=(1,))([PICTURE], [BOXES])
    assert "compiled again" in caplog.text
    assert np.isfinite(points).all()


def test_small_people_have_their_own_network() -> None:
    pose = load_pose("tiny", device="cpu", precision="fp32", batch_sizes=(1,), small="tiny_small", small_below_px=60)
    small_only = load_pose("tiny_small", device="cpu", precision="fp32", batch_sizes=(1,))
    large_only = load_pose("tiny", device="cpu", precision="fp32", batch_sizes=(1,))
    boxes = np.array([[10, 10, 60, 110], [80, 20, 100, 60]], np.float32)
    (both,) = pose([PICTURE], [boxes])
    np.testing.assert_allclose(both[0], large_only([PICTURE], [boxes[:1]])[0][0], atol=1e-3)
    np.testing.assert_allclose(both[1], small_only([PICTURE], [boxes[1:]])[0][0], atol=1e-3)


def test_the_wrong_kind_of_model_is_said(places: Path) -> None:
    with pytest.raises(ModelError, match="is a detect model"):
        load_pose("tiny_detector")
    with pytest.raises(ConfigError, match="precision"):
        load_pose("tiny", runtime="onnx", precision="int8")
    with pytest.raises(ConfigError, match="threshold"):
        load_detector("tiny_detector", threshold=1.5, device="cpu")
