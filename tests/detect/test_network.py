"""One-class networks of every supported family, and what is refused. Weights are random; nothing is downloaded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from streampose.detect.checkpoint import describe_checkpoint, load_checkpoint
from streampose.detect.network import PeopleNetwork, bare_model, build, cut_to_person, head_of
from streampose.detect.quiet import silence_ultralytics
from streampose.errors import ModelError
from streampose.models.manifest import InputSpec, Manifest, OutputSpec, sha256_of

YOLOV8N = {"builder": "ultralytics", "config": "yolov8n.yaml", "tower_classes": 80}


def random_model(config: str, classes: int = 80) -> Any:
    """An 80-class network with random weights and lively class scores."""
    silence_ultralytics()
    from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel

    torch.manual_seed(0)
    model = (RTDETRDetectionModel if "rtdetr" in config else DetectionModel)(config, nc=classes, verbose=False)
    model.names = {i: f"thing{i}" for i in range(classes)} | {0: "person"}
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
    if hasattr(head_of(model), "cv3"):
        for level in head_of(model).cv3:
            level[-1].bias.data.normal_(-2, 1)
    return model.eval()


def save_pt(model: Any, path: Path) -> Path:
    torch.save({"model": model.half(), "ema": None, "train_args": {}}, path)
    return path


def manifest_for(weights: Path, architecture: dict[str, Any]) -> Manifest:
    return Manifest(
        name="test", task="detect", architecture=architecture, weights=weights.name, sha256=sha256_of(weights),
        input=InputSpec(width=640, height=640), output=OutputSpec(kind="yolo"), licence="AGPL-3.0",
    )  # fmt: skip


@pytest.mark.parametrize("config", ["yolov8n.yaml", "yolo11n.yaml"])
def test_the_cut_says_what_the_person_row_of_the_whole_said(config: str) -> None:
    model = random_model(config)
    pictures = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        whole = model(pictures)[0]
        cut_to_person(model)
        one = PeopleNetwork(model)(pictures)
    assert one.shape == (2, 5, whole.shape[2])
    torch.testing.assert_close(one, whole[:, :5], rtol=1e-5, atol=1e-4)


def test_the_cut_takes_another_row_where_people_are_elsewhere() -> None:
    model = random_model("yolov8n.yaml", classes=5)
    pictures = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        whole = model(pictures)[0]
        cut_to_person(model, 3)
        one = PeopleNetwork(model)(pictures)
    torch.testing.assert_close(one[:, 4], whole[:, 7], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "end2end"),
    [
        ("yolov5n.yaml", False),
        ("yolov8n.yaml", False),
        ("yolov10n.yaml", True),
        ("yolo11n.yaml", False),
        ("yolo26n.yaml", True),
        pytest.param("rtdetr-l.yaml", True, marks=pytest.mark.slow),
    ],
)
def test_every_family_gives_people(tmp_path: Path, config: str, end2end: bool) -> None:
    path = save_pt(random_model(config), tmp_path / "some.pt")
    manifest = describe_checkpoint(path, trust=True, size=320)
    assert manifest.output.kind == ("yolo_end2end" if end2end else "yolo")
    network = build(manifest, path)
    with torch.inference_mode():
        raw = network(torch.rand(2, 3, 160, 320))
    assert raw.dtype == torch.float32
    if end2end:
        assert raw.shape[0] == 2
        assert raw.shape[2] == 6
        assert (raw[..., 5] == 0).all()
    else:
        assert raw.shape == (2, 5, 160 * 320 // 64 * 21 // 16)
    assert ((raw[..., 4] if end2end else raw[:, 4]) <= 1).all()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, "autocast"])
@pytest.mark.parametrize("config", ["yolov8n.yaml", "yolo26n.yaml"])
def test_boxes_are_right_to_a_part_of_a_pixel_whatever_is_computed_in(config: str, kind: Any) -> None:
    """Anchors in bf16 would stand in steps of four pixels on the right of such a picture; and a copy decodes as well."""
    model = random_model(config)
    cut_to_person(model)
    whole = PeopleNetwork(model).eval()
    pictures = torch.rand(1, 3, 32, 1280)
    with torch.inference_mode():
        wanted = whole(pictures)
        half = copy.deepcopy(whole)
        if kind == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                got = half(pictures)
        else:
            got = half.to(kind)(pictures.to(kind))
    assert got.dtype == torch.float32
    if whole.end2end:  # which of the boxes come, and in what order, may differ
        wanted, got = wanted[0, :, :4].T, got[0, :, :4].T
        apart = torch.cdist(wanted.T, got.T).min(1).values
    else:
        apart = (wanted - got)[0, :4].abs().amax(0)
    assert apart.median() < 1.0
    centres = (got[0] + got[2]) / 2 if whole.end2end else got[0, 0]
    assert centres.max() > 1200


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_rtdetr_boxes_are_input_pixels(kind: torch.dtype) -> None:
    """Made in bf16, the sides below, 628.75 and 631.25, both lay at multiples of four."""

    class Head(torch.nn.Module):
        export = False

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return torch.tensor(
                [[[0.5, 0.25, 0.5, 0.5, 0.75, 0.0], [0.984375, 0.25, 0.00390625, 0.5, 0.75, 0.0]]], dtype=kind
            )

    Head.__name__ = "RTDETRDecoder"

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.ModuleList([Head()])

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return self.model[-1](pictures)

    raw = PeopleNetwork(Model())(torch.zeros(1, 3, 320, 640, dtype=kind))
    wanted = [[160.0, 0.0, 480.0, 160.0, 0.75, 0.0], [628.75, 0.0, 631.25, 160.0, 0.75, 0.0]]
    torch.testing.assert_close(raw, torch.tensor([wanted]))


def test_built_from_manifest_and_safetensors(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = bare_model(YOLOV8N)
    weights = tmp_path / "w.safetensors"
    save_file(
        {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()},
        weights,
    )
    network = build(manifest_for(weights, YOLOV8N), weights)
    assert not network.training
    assert not network.end2end
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert head_of(network.model).cv3[0][0].conv.out_channels == 80
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 5, 84)


def test_an_unknown_pickle_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "went_off",))

    path = tmp_path / "evil.pt"
    torch.save({"model": Bomb()}, path)
    with pytest.raises(ModelError, match=r"is a pickle.*detect\.trust=true"):
        load_checkpoint(path)
    with pytest.raises(ModelError, match="or --trust"):
        describe_checkpoint(path)
    assert not (tmp_path / "went_off").exists()


def test_what_is_no_detector_is_said_in_one_line(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pt"
    junk.write_bytes(b"not a checkpoint at all")
    with pytest.raises(ModelError, match="is no PyTorch file"):
        load_checkpoint(junk, trust=True)
    other = tmp_path / "other.pt"
    torch.save({"state_dict": {}}, other)
    with pytest.raises(ModelError, match="holds no ultralytics model"):
        load_checkpoint(other, trust=True)
    with pytest.raises(ModelError, match="no such model file"):
        load_checkpoint(tmp_path / "nothing.pt", trust=True)
    nobody = random_model("yolov8n.yaml", classes=3)
    nobody.names = {0: "cat", 1: "dog", 2: "cow"}
    with pytest.raises(ModelError, match=r"knows 3 classes \(cat, dog, cow …\), none is person"):
        load_checkpoint(save_pt(nobody, tmp_path / "pets.pt"), trust=True)


def test_a_pose_network_is_not_taken_for_a_detector(tmp_path: Path) -> None:
    silence_ultralytics()
    from ultralytics.nn.tasks import PoseModel

    path = save_pt(PoseModel("yolov8n-pose.yaml", nc=1, verbose=False), tmp_path / "pose.pt")
    with pytest.raises(ModelError, match="is an ultralytics Pose model; a detector is needed"):
        load_checkpoint(path, trust=True)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"builder": "ultralytics", "config": "yolo99n.yaml"}, "cannot build it"),
        ({"builder": "ultralytics", "config": "../yolov8n.yaml"}, "needs builder"),
        ({"builder": "other", "config": "yolov8n.yaml"}, "needs builder"),
        ({"builder": "ultralytics", "config": "yolov8n-cls.yaml"}, "not a detector|cannot build it"),
    ],
)
def test_unknown_architectures(architecture: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        bare_model(architecture)


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = bare_model(YOLOV8N).state_dict()
    name = "model.0.conv.weight"
    save_file({**state, name: state[name][:8].clone()}, path)
    with pytest.raises(
        ModelError, match=r"model.0.conv.weight is \(8, 3, 3, 3\), the architecture has \(16, 3, 3, 3\)"
    ):
        build(manifest_for(path, YOLOV8N), path)
    save_file({key: tensor for key, tensor in state.items() if key != name}, path)
    with pytest.raises(ModelError, match="1 tensors missing"):
        build(manifest_for(path, YOLOV8N), path)
    path.write_bytes(b"truncated")
    with pytest.raises(ModelError, match="not a safetensors file"):
        build(manifest_for(path, YOLOV8N), path)
