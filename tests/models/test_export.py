"""What is exported runs here again, is as near to torch as its record says, and damage is never kept."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from streampose.errors import ModelError, UsageError
from streampose.models import export as exporting
from streampose.models import manifest as manifests
from streampose.models.check import check_file, keeps_promise
from streampose.models.convert import to_openvino
from streampose.models.export import differences, export, parity_pictures
from streampose.models.load import load_pose
from streampose.models.manifest import OutputSpec
from streampose.models.networks import network_of
from streampose.models.resolve import local_models, published_output, resolve
from streampose.runtime.openvino_runtime import pack
from tests.made_models import INPUT, seeded_pose_network, write_detector, write_pose_model


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("runtime", "suffix"), [("openvino", "xml"), ("onnx", "onnx"), ("torchscript", "torchscript")])
def test_a_pose_model(runtime: str, suffix: str, tmp_path: Path) -> None:
    found = manifests.load(write_pose_model(tmp_path))
    record = export(*found, runtime, tmp_path / "out")
    made = tmp_path / "out" / f"tiny-{runtime}.{suffix}"
    kept = json.loads((tmp_path / "out" / f"tiny-{runtime}.parity.json").read_text())
    assert kept == record
    assert record["max_relative_difference"] <= exporting.TOLERANCE
    assert made.is_file()
    assert not list((tmp_path / "out").glob(".export*"))
    picture = parity_pictures(160, 120, 1)[0]
    boxes = [np.array([[20, 10, 90, 110]], np.float32)]
    wanted = load_pose(tmp_path / "tiny.yaml", device="cpu", precision="fp32", batch_sizes=(1,))([picture], boxes)[0]
    if runtime == "torchscript":
        return
    got = load_pose(made, device="cpu", precision="fp32", batch_sizes=(1,))([picture], boxes)[0]
    np.testing.assert_allclose(got, wanted, atol=1e-2)
    if runtime == "openvino":
        weights = made.with_suffix(".bin")
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
        with pytest.raises(ModelError, match=r"tiny-openvino\.bin: sha256 is .*; restore the file"):
            manifests.load(made.with_suffix(".yaml"))


def test_a_skeleton_of_ones_own_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a machine that knows nothing of the place from which it was exported; and two of one skeleton serve together."""
    joints = {f"joint{number}": ["centre", 0.05] for number in range(17)}
    for name, spec in (("far", INPUT.model_copy(update={"width": 32, "height": 64})), ("near", INPUT)):
        path = write_pose_model(tmp_path / "own", name, spec=spec)
        (tmp_path / "own" / "mine.yaml").write_text(yaml.safe_dump({"keypoints": joints}, sort_keys=False))
        raw, weights = manifests.load(path)
        own = raw.model_copy(update={"output": raw.output.model_copy(update={"skeleton": "mine.yaml"})})
        manifests.save(own, path)
        export(*resolve(path, "pose"), "openvino", tmp_path / "out")
    gone = own.model_copy(update={"output": raw.output.model_copy(update={"skeleton": "gone.yaml"})})
    with pytest.raises(ModelError, match=r"gone\.yaml: no such skeleton"):
        export(gone, weights, "openvino", tmp_path / "none")
    assert list((tmp_path / "none").iterdir()) == []
    shutil.rmtree(tmp_path / "own")
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    assert str(tmp_path) not in (tmp_path / "elsewhere" / "near-openvino.yaml").read_text()
    monkeypatch.setenv("STREAMPOSE_WEIGHTS", str(tmp_path / "elsewhere"))
    found = {name: file for name, file in local_models().items() if file.parent == tmp_path / "elsewhere"}
    assert set(found) == {"far-openvino", "near-openvino"}
    asked = {"device": "cpu", "precision": "fp32", "batch_sizes": (1,)}
    pose = load_pose("near-openvino", small="far-openvino", **asked)
    assert pose.skeleton.keypoints == tuple(joints)


def test_a_skeleton_that_lies_in_the_working_directory_goes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can be run can be exported; what lies beside the manifest comes first, and is named where there is neither."""
    path = write_pose_model(tmp_path / "own")
    raw, _ = manifests.load(path)
    manifests.save(raw.model_copy(update={"output": raw.output.model_copy(update={"skeleton": "mine.yaml"})}), path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"own/mine\.yaml: no such skeleton"):
        export(*resolve(path, "pose"), "openvino", tmp_path / "out")
    for folder in (tmp_path, tmp_path / "own"):
        joints = {f"{folder.name}{number}": ["centre", 0.05] for number in range(17)}
        (folder / "mine.yaml").write_text(yaml.safe_dump({"keypoints": joints}, sort_keys=False))
        export(*resolve(path, "pose"), "openvino", tmp_path / "out")
        taken = yaml.safe_load((tmp_path / "out" / "tiny-openvino.skeleton.yaml").read_text())
        assert taken == {"keypoints": joints}


def test_a_detector_at_another_size(tmp_path: Path) -> None:
    found = manifests.load(write_detector(tmp_path))
    record = export(*found, "onnx", tmp_path / "out", (128, 96))
    assert record["size"] == [128, 96]
    assert set(record["differences"]) == {"boxes", "scores"}
    assert (tmp_path / "out" / "tiny_detector-128x96-onnx.onnx").is_file()
    facts = check_file(tmp_path / "out" / "tiny_detector-128x96-onnx.onnx")
    assert facts["task"] == "detect"
    assert "(1, 5, 252)" in facts["gives"]


@pytest.mark.parametrize("shift", [None, (4.0, -3.0)])
@pytest.mark.parametrize(("name", "size"), [("plain", (96, 128)), ("udp", (96, 128)), ("udp", (32, 160))])
def test_at_another_size_the_cells_of_a_heatmap_lie_where_they_lay(
    name: str, size: tuple[int, int], shift: tuple[float, float] | None, tmp_path: Path
) -> None:
    """UDP's last cells lie on the last pixels, so the strides are others; at the old ones an ankle was pixels off. Joints
    are shifted by the same part of the input, which is 64 x 96."""
    manifest, weights = manifests.load(write_pose_model(tmp_path))
    said = published_output(name, manifest.input.width, manifest.input.height, 17)
    said = said.model_copy(update={"shift": shift and (shift,) * 17})
    record = export(manifest.model_copy(update={"output": said}), weights, "openvino", tmp_path / "out", size)
    assert record["max_relative_difference"] <= exporting.TOLERANCE
    exported = manifests.load(tmp_path / "out" / f"tiny-{size[0]}x{size[1]}-openvino.yaml")[0]
    wanted = published_output(name, *size, 17)
    assert exported.output.strides == pytest.approx(wanted.strides, rel=1e-12)
    assert (exported.output.stride_y is None) == (wanted.stride_y is None)
    wanted_shift = shift and ((size[0] / 64 * shift[0], size[1] / 96 * shift[1]),) * 17
    assert exported.output.model_copy(update={"stride": 4.0, "stride_y": None}) == said.model_copy(
        update={"stride": 4.0, "stride_y": None, "shift": wanted_shift}
    )


def test_an_export_that_is_far_from_torch_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = manifests.load(write_pose_model(tmp_path))
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(ModelError, match="its heatmaps differ from torch's"):
        export(*found, "torchscript", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_scores_that_differ_are_seen_beside_boxes_of_many_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is a detector whose boxes are the same, its scores a little higher."""
    found = manifests.load(write_detector(tmp_path))
    state = load_file(found[1])
    for name in state:
        if ".cv3." in name and name.endswith(".2.bias"):
            state[name] += 0.01
    save_file(state, tmp_path / "surer.safetensors")
    write = exporting._write
    monkeypatch.setattr(exporting, "_write", lambda m, _, *more: write(m, tmp_path / "surer.safetensors", *more))
    with pytest.raises(ModelError, match="as torchscript its scores differ from torch's by"):
        export(*found, "torchscript", tmp_path / "out", (64, 64))
    assert list((tmp_path / "out").iterdir()) == []


SAME = {"max": 0.0, "relative": 0.0}


def test_differences_of_every_kind_of_output() -> None:
    rng = np.random.default_rng(2)
    rows = np.concatenate([rng.uniform(0, 640, (2, 30, 4)), np.sort(rng.random((2, 30, 1)), 1)], 2)
    for kind, part in (("yolo", rows.swapaxes(1, 2)), ("yolo_end2end", np.concatenate([rows, 0 * rows[..., :1]], 2))):
        wanted = part.astype(np.float32)
        assert differences(wanted, wanted, kind) == {"boxes": SAME, "scores": SAME}
        lower, moved = wanted.copy(), wanted.copy()
        (lower[:, 4] if kind == "yolo" else lower[..., 4])[:] *= 0.99
        (moved[:, 0] if kind == "yolo" else moved[..., 0])[:] += 1
        assert differences(wanted, lower, kind)["scores"]["relative"] == pytest.approx(0.01, rel=1e-3)
        assert differences(wanted, lower, kind)["boxes"] == SAME
        assert differences(wanted, moved, kind)["boxes"]["max"] == pytest.approx(1, rel=1e-3)
        assert differences(wanted, moved, kind)["scores"] == SAME
    swapped, mixed = wanted.copy(), wanted.copy()
    swapped[:, [4, 5]] = swapped[:, [5, 4]]
    assert differences(wanted, swapped, "yolo_end2end") == {"boxes": SAME, "scores": SAME}
    mixed[:, [0, 29], :4] = mixed[:, [29, 0], :4]
    assert max(part["relative"] for part in differences(wanted, mixed, "yolo_end2end").values()) > 0.1
    heat = rng.random((1, 2, 4, 4)).astype(np.float32)
    assert np.isnan(differences(heat, heat * np.float32("nan"), "heatmap")["heatmaps"]["relative"])


def test_wishes_that_cannot_be(tmp_path: Path) -> None:
    found = manifests.load(write_pose_model(tmp_path))
    with pytest.raises(UsageError, match="openvino, onnx, torchscript"):
        export(*found, "tensorflow", tmp_path / "out")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match=r"file/tiny-torchscript\.torchscript: cannot be written \(File exists\)"):
        export(*found, "torchscript", tmp_path / "file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_one_line_of_openvino_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the way into the cache a network is written as two files; both of these are the device that is always full."""
    manifest, weights = manifests.load(write_pose_model(tmp_path))
    model = to_openvino(network_of(manifest, weights), manifest.input, 64, 96)
    with monkeypatch.context() as nowhere:
        nowhere.setattr(tempfile, "tempdir", None)
        nowhere.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "gone")])
        with pytest.raises(ModelError, match=r"TMPDIR: .* cannot be written \(No usable temporary directory"):
            pack(model)
    for name in ("model.xml", "model.bin"):
        (tmp_path / name).symlink_to("/dev/full")
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda prefix: contextlib.nullcontext(str(tmp_path)))
    with pytest.raises(ModelError, match=r"cannot be written \(OpenVINO: .*; [0-9.]+ MB are free there\)") as caught:
        pack(model)
    assert "\n" not in str(caught.value)


def test_check_holds_what_a_model_gives_against_its_manifest(tmp_path: Path) -> None:
    cases = [
        ({"skeleton": "limbs6"}, r"gives \(1, 17, 24, 16\), its manifest promises heatmap \(B, 6, h, w\)"),
        ({"kind": "yolo"}, "task pose and output.kind yolo"),
        ({"stride": 8.0}, r"16 cells of output\.stride 8 do not cover its input's 64 pixels; 4 would"),
    ]
    manifest, _ = manifests.load(write_pose_model(tmp_path))
    for change, message in cases:
        other = manifest.output.model_copy(update=change)
        manifests.save(manifest.model_copy(update={"output": other}), tmp_path / "other.yaml")
        with pytest.raises(ModelError, match=message):
            check_file(tmp_path / "other.yaml")
    detector = manifest.model_copy(update={"task": "detect"})
    for kind, right, wrong in (
        ("yolo", (1, 5, 336), (1, 300, 6)),
        ("yolo", (1, 84, 2100), (1, 6300, 85)),  # YOLOv5 as it is exported by its own program
        ("yolo_end2end", (1, 300, 6), (1, 5, 336)),
    ):
        detector = detector.model_copy(update={"output": OutputSpec(kind=kind)})
        keeps_promise(detector, (np.zeros(right, np.float32),))
        with pytest.raises(ModelError, match=f"its manifest promises {kind} "):
            keeps_promise(detector, (np.zeros(wrong, np.float32),))
        with pytest.raises(ModelError, match="gives numbers that are NaN or infinite"):
            keeps_promise(detector, (np.full(right, np.nan, np.float32),))
    published = tmp_path / "pose_hrnet_96x64.pth"
    torch.save(seeded_pose_network("hrnet_tiny", joints=16).state_dict(), published)
    assert check_file(published)["gives"] == "(1, 16, 24, 16) by openvino"


def test_check_says_what_a_checkpoint_is(tmp_path: Path) -> None:
    facts = check_file(write_pose_model(tmp_path))
    assert facts["task"] == "pose"
    assert facts["network"] == "network litehrnet_tiny, joints 17"
    assert facts["input"].startswith("64x96 rgb")
    assert facts["gives"] == "(1, 17, 24, 16) by openvino"
    assert facts["parameters"].endswith(" M")
    assert facts["decoding"].startswith("dark; heatmap cell c lies at input pixel 4 c + 0")
