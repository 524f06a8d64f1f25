"""From what users call a model to its manifest: names, files, published layouts, and one line for each fault."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from streampose.detect import checkpoint
from streampose.detect.checkpoint import load_checkpoint
from streampose.errors import ModelError
from streampose.models import manifest as manifests
from streampose.models.catalogue import catalogue
from streampose.models.check import check_file, record_cost
from streampose.models.manifest import InputSpec, Manifest, OutputSpec, save, sha256_of
from streampose.models.resolve import local_models, published_output, resolve, size_in_name
from streampose.pose.skeleton import load_skeleton
from tests.made_models import seeded_pose_network, write_detector, write_pose_model, write_ultralytics


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STREAMPOSE_WEIGHTS", str(tmp_path / "weights"))


def test_by_name_by_manifest_and_by_weights(tmp_path: Path) -> None:
    path = write_pose_model(tmp_path / "weights")
    for ref in ("tiny", path, str(path), path.with_suffix(".safetensors")):
        manifest, weights = resolve(ref, "pose")
        assert manifest.name == "tiny"
        assert weights == path.with_suffix(".safetensors")


def test_a_name_may_have_a_dot_and_a_folder_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pose_model(tmp_path / "weights", "yard-1.2")
    write_pose_model(tmp_path / "weights", "tiny")
    (tmp_path / "tiny").mkdir()  # where its recordings go, say
    monkeypatch.chdir(tmp_path)
    assert local_models()["yard-1.2"] == path
    for name in ("yard-1.2", "tiny"):
        assert resolve(name, "pose")[1] == path.with_name(f"{name}.safetensors")
    with pytest.raises(ModelError, match=r"yard-1\.3: no model of this name in .*; did you mean yard-1\.2\?"):
        resolve("yard-1.3", "pose")
    with pytest.raises(ModelError, match=r"gone\.pth: no such model file"):
        resolve("gone.pth", "pose")


def test_a_skeleton_of_ones_own_lies_beside_the_manifest(tmp_path: Path) -> None:
    path = write_pose_model(tmp_path / "weights")
    names = {f"joint{number}": ["centre", 0.05] for number in range(17)}
    (tmp_path / "weights" / "mine.yaml").write_text(yaml.safe_dump({"keypoints": names}))
    raw, _ = manifests.load(path)
    own = raw.model_copy(update={"output": raw.output.model_copy(update={"skeleton": "mine.yaml"})})
    manifests.save(own, path)
    manifest, _ = resolve(path, "pose")
    assert load_skeleton(manifest.output.skeleton).keypoints[:2] == ("joint0", "joint1")
    record_cost(path)
    assert manifests.load(path)[0].output.skeleton == "mine.yaml"


def test_published_checkpoints_are_known_by_their_tensors(tmp_path: Path) -> None:
    state = seeded_pose_network("hrnet_tiny").state_dict()
    official = tmp_path / "pose_hrnet_tiny_384x288.pth"
    torch.save(state, official)
    manifest, _ = resolve(official, "pose")
    assert manifest.architecture == {"network": "hrnet_tiny", "joints": 17}
    assert (manifest.input.width, manifest.input.height) == (288, 384)
    assert (manifest.output.decode, manifest.output.flip_shift) == ("quarter", 1)
    prefixed = {
        f"head.{name}" if name.startswith("final_layer") else f"backbone.{name}": value for name, value in state.items()
    }
    mmpose = tmp_path / "td-hm_hrnet_udp-8xb64-210e_coco-256x192-00000000_20220914.pth"
    torch.save({"state_dict": prefixed, "meta": {"epoch": 210}}, mmpose)
    manifest, _ = resolve(mmpose, "pose")
    assert manifest.architecture == {"network": "hrnet_tiny", "joints": 17}
    assert (manifest.input.width, manifest.input.height) == (192, 256)
    assert manifest.output.strides == pytest.approx((191 / 47, 255 / 63))
    assert manifest.output.flip_shift == 0


@pytest.mark.parametrize(
    "name",
    [
        "hrnet_w32_h36m_256x256-d3206675_20210622.pth",
        "hrnet_w32_posetrack18_256x192-1ee951c4_20201028.pth",
        "hrnet_w32_ap10k_256x256-18aac840_20211029.pth",
        "td-hm_hrnet-w32_8xb64-210e_ap10k-256x256-81c58e40_20220909.pth",
    ],
)
def test_joints_of_another_set_are_not_taken_for_those_of_coco(name: str, tmp_path: Path) -> None:
    """There are 17 of them, too: such a checkpoint ran as COCO's without a word."""
    coco = tmp_path / "hrnet_tiny_coco_256x192.pth"
    torch.save(seeded_pose_network("hrnet_tiny").state_dict(), coco)
    assert check_file(coco)["key points"] == "coco17, assumed by their number"
    path = tmp_path / name
    shutil.copyfile(coco, path)
    assert check_file(path)["key points"].startswith("nobody says which they are")
    manifest, _ = resolve(path, "pose")
    with pytest.raises(ModelError, match="a checkpoint of 17 joints does not say which they are: write a manifest"):
        load_skeleton(manifest.output.skeleton)
    said = resolve(coco, "pose")[0].model_copy(update={"weights": name, "origin": "its publisher"})
    manifests.save(said, path.with_suffix(".yaml"))
    assert check_file(path)["key points"] == "coco17"


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("pose_hrnet_w48_384x288.pth", (384, 288)),
        ("td-hm_hrnet-w32_8xb64-210e_coco-256x192-81c58e40_20220909.pth", (256, 192)),
        ("hrnet_8x32.pth", None),
        ("best.pth", None),
    ],
)
def test_size_in_name(name: str, size: tuple[int, int] | None) -> None:
    assert size_in_name(name) == size


def test_decoding_by_name() -> None:
    assert published_output("hrnet_w32_coco_256x192_dark-07f147eb.pth", 192, 256, 17).decode == "dark"
    for name in ("hrnet_w48_coco_384x288_dark.pth", "hrnet_w48_coco_384x288_udp.pth"):
        assert published_output(name, 288, 384, 17).blur == 17
        assert published_output(name, 192, 256, 17).blur == 0
    assert published_output("hrnet_w48_coco_384x288.pth", 288, 384, 17).blur == 0
    assert published_output("hrnet.pth", 192, 256, 133).skeleton == "wholebody133"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width: 64", "width: 60", r"input: 60x96: an HRNet's sides are multiples of 32; 64x96 is nearest"),
        ("height: 96", "height: 10", r"input: 64x10: .*; 64x32 is nearest"),
        ("box_scale: 1.25", "box_scale: .nan", r"input\.box_scale: "),
        ("- 60.0", "- 0.0", r"input\.std\.0: "),
        ("stride: 4.0", "stride: -4.0", r"output\.stride: "),
        ("blur: 5", "blur: 10", r"output\.blur: .*10: an odd size from 3 on is wanted, or 0 for 11"),
        ("blur: 5", "blur: -3", r"output\.blur: "),
    ],
)
def test_a_manifest_that_cannot_be_right_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write_pose_model(tmp_path / "weights")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ModelError, match=message) as caught:
        resolve(path, "pose")
    assert len(str(caught.value).splitlines()) == 1


def test_other_networks_have_sides_of_their_own(tmp_path: Path) -> None:
    spec = InputSpec(width=150, height=100)
    facts = {"name": "x", "weights": "x.onnx", "sha256": "0" * 64, "licence": "none"}
    output = OutputSpec(kind="simcc")
    assert Manifest(task="pose", architecture={}, input=spec, output=output, **facts).input.width == 150


def test_every_fault_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    path = write_pose_model(tmp_path / "weights")
    orphan = tmp_path / "orphan.safetensors"
    save_file({"a": torch.zeros(1)}, orphan)
    text = tmp_path / "text.pth"
    text.write_text("no checkpoint")
    strange = tmp_path / "strange.pth"
    torch.save({"fc.weight": torch.zeros(2, 2)}, strange)
    detector = write_detector(tmp_path / "weights")
    deep = tmp_path / "deep.yaml"
    deep.write_text("[" * 1200 + "]" * 1200)
    faults = {
        "tinny": "did you mean tiny",
        "hrnet_w32_256x192": "streampose models fetch hrnet_w32_256x192",
        str(tmp_path / "gone.pth"): "no such model file",
        str(orphan): "needs its manifest, orphan.yaml",
        str(deep): "not a model manifest .nested too deep",
        str(text): "is no PyTorch file",
        str(strange): "of no HRNet",
        str(detector): "is a detect model; a pose model is wanted",
    }
    for ref, words in faults.items():
        with pytest.raises(ModelError, match=words) as caught:
            resolve(ref, "pose")
        assert "\n" not in str(caught.value)
    weights = path.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelError, match="sha256"):
        resolve("tiny", "pose")


def test_a_pickle_is_not_opened_unless_trusted(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "yolo.pt"
    torch.save({"model": Trap()}, path)
    with pytest.raises(ModelError, match="or --trust"):
        resolve(path, "detect")
    with pytest.raises(ModelError):
        resolve(path, "pose")
    assert not (tmp_path / "sprung").exists()


def test_no_manifest_vouches_for_its_own_pickle(tmp_path: Path) -> None:
    """Whoever can lay a file beside another can write `trust: true` into it."""
    path = tmp_path / "yolo.pt"
    torch.save({"model": 1}, path)
    manifest = Manifest(
        name="yolo", task="detect", architecture={"builder": "ultralytics-pt", "trust": True}, weights=path.name,
        sha256=sha256_of(path), input=InputSpec(width=640, height=640), output=OutputSpec(kind="yolo"), licence="?",
    )  # fmt: skip
    save(manifest, path.with_suffix(".yaml"))
    assert resolve(path, "detect")[0].architecture["trust"] is False
    assert resolve(path.with_suffix(".yaml"), "detect")[0].architecture["trust"] is False
    assert resolve(path, "detect", trust=True)[0].architecture["trust"] is True


def test_a_published_pickle_is_opened_by_the_hash_that_the_catalogue_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """YOLO26n's was known to the catalogue alone, and refused."""
    path = write_ultralytics(tmp_path / "best.pt")
    with pytest.raises(ModelError, match="not one we know"):
        resolve(path, "detect")
    known = catalogue()["yolo26n"].model_copy(update={"sha256": sha256_of(path)})
    monkeypatch.setattr(checkpoint, "catalogue", lambda: {"yolo26n": known})
    manifest, weights = resolve(path, "detect")
    assert manifest.origin == known.url
    assert load_checkpoint(weights) is not None


def test_a_copy_of_a_detector_has_its_own_name(tmp_path: Path) -> None:
    """What is kept in the cache is of the content; an export or a log line is called after the file."""
    best = write_ultralytics(tmp_path / "best.pt")
    assert resolve(best, "detect", trust=True)[0].name == "best"
    manifest, weights = resolve(shutil.copy(best, tmp_path / "yard.pt"), "detect")
    assert (manifest.name, manifest.weights, weights.name) == ("yard", "yard.pt", "yard.pt")


def test_trust_is_for_the_call_that_gives_it(tmp_path: Path) -> None:
    path = write_ultralytics(tmp_path / "yolo.pt")
    assert resolve(path, "detect", trust=True)[0].architecture["trust"] is True
    assert resolve(path, "detect")[0].architecture["trust"] is False
