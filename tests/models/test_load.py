"""Loading for the pipeline: what comes out works, and a second start needs neither torch nor ultralytics."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from streampose.build_models import load_models
from streampose.config import validate
from streampose.errors import ConfigError, ModelError
from streampose.models import cache
from streampose.models.check import check_file
from streampose.models.export import export
from streampose.models.load import load_detector, load_pose
from streampose.models.manifest import InputSpec, Manifest, OutputSpec, onnx_data, save, sha256_of
from streampose.models.resolve import resolve
from streampose.track.association import iou
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
import av
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


def simcc_model(folder: Path, batch: int | str = "batch") -> Path:
    """A SimCC pose model in ONNX that sees brightness: every joint lies where rows and columns are brightest.

    Where `batch` is a number, it is in the shapes that the model goes through, too.
    """
    value, node = helper.make_tensor_value_info, helper.make_node
    nodes, outputs = [], []
    for name, axes, size in (("x", [1, 2], 48), ("y", [1, 3], 64)):
        nodes += [
            node("ReduceMean", ["input"], [f"{name}1"], axes=axes, keepdims=0),
            node("Unsqueeze", [f"{name}1", "last"], [f"{name}2"]),
            node("Tile", [f"{name}2", "twice"], [f"{name}3"]),
            node("Reshape", [f"{name}3", "flat"], [f"{name}4"]),
            node("Tile", [f"{name}4", "joints"], [f"simcc_{name}"]),
        ]
        outputs.append(value(f"simcc_{name}", TensorProto.FLOAT, [batch, 17, 2 * size]))
    flat = [batch if isinstance(batch, int) else 0, 1, -1]
    constants = {"last": [2], "twice": [1, 1, 2], "flat": flat, "joints": [1, 17, 1]}
    graph = helper.make_graph(
        nodes,
        "brightness",
        [value("input", TensorProto.FLOAT, [batch, 3, 64, 48])],
        outputs,
        [numpy_helper.from_array(np.array(numbers, np.int64), name) for name, numbers in constants.items()],
    )
    path = folder / "brightness.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(path))
    manifest = Manifest(
        name="brightness",
        task="pose",
        architecture={},
        weights=path.name,
        sha256=sha256_of(path),
        input=InputSpec(width=48, height=64, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
        output=OutputSpec(kind="simcc", peak=2.0),
        licence="none: made by a test",
    )
    save(manifest, path.with_suffix(".yaml"))
    return path


def with_data_beside(path: Path, name: str = "beside.data") -> Path:
    """The ONNX model in `path` with its constants in a file of their own; its manifest has no hash of that yet."""
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location=name, size_threshold=0)
    manifest = path.with_suffix(".yaml")
    facts = yaml.safe_load(manifest.read_text())
    save(Manifest.model_validate(facts | {"sha256": sha256_of(path)}), manifest)
    return manifest


def test_the_data_of_an_onnx_model_is_held_to_its_hash(tmp_path: Path) -> None:
    path = simcc_model(tmp_path)
    manifest = with_data_beside(path)
    with pytest.raises(
        ModelError, match=r"some of it is in beside\.data, of which brightness\.yaml has no hash"
    ) as caught:
        resolve(path, "pose")
    assert "\n" not in str(caught.value)
    data = tmp_path / "beside.data"
    manifest.write_text(f"{manifest.read_text()}sha256_bin: {sha256_of(data)}\n")
    assert resolve(path, "pose")[1] == path
    before = data.read_bytes()
    data.write_bytes(before[:-1] + b"\x7f")
    with pytest.raises(ModelError, match=r"beside\.data: sha256 is"):
        resolve(path, "pose")
    with pytest.raises(ModelError, match=r"cannot be read \(Is a directory\)"):
        onnx_data(tmp_path)
    data.unlink()
    with pytest.raises(ModelError, match=r"beside\.data: the weights that brightness\.yaml names are missing"):
        resolve(path, "pose")


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(("batch", "sizes"), [("batch", (1, 4)), (1, (1,)), (2, (2,))])
@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_a_simcc_model_in_onnx_with_a_manifest(
    runtime: str, batch: int | str, sizes: tuple[int, ...], apart: bool, tmp_path: Path
) -> None:
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[60:63, 90:93] = 255
    boxes = np.array([[60, 20, 120, 100], [70, 30, 130, 110]], np.float32)
    path = simcc_model(tmp_path, batch)
    if apart:
        name = "x" * 140
        manifest = with_data_beside(path, name)
        manifest.write_text(f"{manifest.read_text()}sha256_bin: {sha256_of(tmp_path / name)}\n")
    assert check_file(path)["gives"] == "(1, 17, 96), (1, 17, 128) by openvino"
    pose = load_pose(path, device="cpu", runtime=runtime, precision="fp32")
    assert pose.networks[0].runtime.batch_sizes == sizes
    (points,) = pose([picture], [boxes])
    assert points.shape == (2, 17, 3)
    assert np.abs(points[..., :2] - [91, 61]).max() < 2.5  # a pixel of the small input is two of the picture


@pytest.mark.slow
def test_a_detector_of_one_size_sees_pictures_of_any(tmp_path: Path) -> None:
    """The shipped one, exported for squares: the same people as the network itself finds at that scale."""
    root = Path(__file__).parents[2]
    shipped = root / "weights/yolov8n_person.yaml"
    with av.open(str(root / "samples/cctv.mp4")) as clip:
        picture = next(clip.decode(video=0)).to_ndarray(format="bgr24")
    asked = {"device": "cpu", "precision": "fp32", "threads": 1}
    wanted, scores = load_detector(shipped, size=384, runtime="openvino", **asked)([picture])[0]
    assert len(wanted) >= 3
    record = export(*resolve(shipped, "detect"), "onnx", tmp_path, (384, 384))
    assert record["size"] == [384, 384]
    (file,) = tmp_path.glob("*.onnx")
    for runtime in ("openvino", "onnx"):
        detector = load_detector(file, runtime=runtime, **asked)
        assert detector.input_shape(768, 576) == (384, 384)
        boxes, found = detector([picture])[0]
        sure = scores > 0.5
        assert iou(wanted[sure], boxes).max(axis=1).min() > 0.9
        assert (found > 0.5).sum() == pytest.approx(sure.sum(), abs=1)
    with pytest.raises(ConfigError, match=r"detect\.size: 640; .* takes 384x384 and nothing else"):
        load_detector(file, size=640, runtime="openvino", **asked)
    camera = {"url": "rtsp://10.0.0.2/x", "max_age": "500ms"}  # of which the governor may lower the resolution
    detect = {"model": str(file)}
    config = {"cameras": {"gate": camera}, "device": "cpu", "runtime": "openvino", "precision": "fp32"}
    assert list(load_models(validate({**config, "detect": detect})).detectors) == [1.0]
    with pytest.raises(ConfigError, match=r"detect\.size: 512; .* takes 384x384 and nothing else"):
        load_models(validate({**config, "detect": {**detect, "size": 512}}))


def squares_model(
    folder: Path, *, turned: bool = False, sides: Sequence[int | str] = ("h", "w"), foreign: bool = False
) -> Path:
    """A detector in ONNX with one answer for each square of 32 pixels, its mean as score, no box; its manifest.

    `sides` are height and width of its input; `foreign` puts an operation into it that ONNX Runtime alone has.
    """
    weight = np.zeros((5, 3, 32, 32), np.float32)
    weight[4] = 1 / (3 * 32 * 32)
    tensors = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.array([0, 5, -1], np.int64), "shape"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["cells"], strides=[32, 32]),
        helper.make_node("SampleOp", ["cells"], ["own"], domain="com.microsoft"),  # x + x
        helper.make_node("Reshape", ["own" if foreign else "cells", "shape"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["y"], perm=[0, 2, 1] if turned else [0, 1, 2]),
    ]
    if not foreign:
        del nodes[1]
    takes = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, *sides])
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", None, None])
    graph = helper.make_graph(nodes, "squares", [takes], [gives], tensors)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=9
    )
    onnx.save(model, folder / "squares.onnx")
    manifest = Manifest(
        name="squares", task="detect", architecture={}, weights="squares.onnx", sha256=sha256_of(folder / "squares.onnx"),
        input=InputSpec(width=128, height=128), output=OutputSpec(kind="yolo"), licence="none",
    )  # fmt: skip
    save(manifest, folder / "squares.yaml")
    return folder / "squares.yaml"


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_a_detector_whose_output_lies_the_other_way_is_refused(runtime: str, tmp_path: Path) -> None:
    """As YOLOv5 writes its own; taken for rows, coordinates of hundreds of pixels are scores."""
    path = squares_model(tmp_path, turned=True)
    words = r"squares: gives \(1, 16, 5\), its manifest promises yolo \(B, 4 \+ classes, anchors\); export it so"
    with pytest.raises(ModelError, match=words):
        check_file(path)
    with pytest.raises(ModelError, match=words):
        load_detector(path, device="cpu", runtime=runtime, precision="fp32")([np.zeros((128, 128, 3), np.uint8)])


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_a_detector_in_onnx_that_takes_every_size(runtime: str, tmp_path: Path) -> None:
    detector = load_detector(squares_model(tmp_path), device="cpu", runtime=runtime, precision="fp32", threshold=0.6)
    for width, height, size in ((128, 64, (128, 64)), (96, 128, (96, 128))):
        picture = np.zeros((height, width, 3), np.uint8)
        picture[:32, :32] = 255
        assert detector.input_shape(width, height) == size
        boxes, scores = detector([picture])[0]
        assert len(boxes) == 1
        assert scores[0] == pytest.approx(1.0, abs=1e-3)


def test_a_detector_that_only_onnx_runtime_can_read(tmp_path: Path) -> None:
    """Its size was read by OpenVINO, whose message named a place in its source and no reason."""
    path = squares_model(tmp_path, sides=(96, 128), foreign=True)
    detector = load_detector(path, device="cpu", runtime="onnx", precision="fp32", threshold=0.6)
    assert detector.input_shape(640, 640) == (128, 96)
    picture = np.zeros((96, 128, 3), np.uint8)
    picture[:32, :32] = 255
    assert len(detector([picture])[0][0]) == 1
    with pytest.raises(
        ModelError,
        match=r"cannot read it \(No conversion rule found for operations: com\.microsoft\.SampleOp\); runtime: onnx may",
    ):
        load_detector(path, device="cpu", runtime="openvino", precision="fp32")
