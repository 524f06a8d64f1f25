"""The refiner: what its layers say is what is done, left and right alike, and files that are none are one line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from streampose.errors import ModelError
from streampose.models import manifest as manifests
from streampose.models.export import export, parity_pictures
from streampose.models.load import load_pose
from streampose.models.manifest import sha256_of
from streampose.pose.refiner import CELLS, Refiner, joint_scores, load_refiner, mirror_points
from streampose.pose.skeleton import load_skeleton
from tests.made_models import INPUT, write_pose_model

ORDER = load_skeleton("coco17").flip_order
WIDTH, HEIGHT, JOINTS = INPUT.width, INPUT.height, len(ORDER)
Layers = tuple[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]], ...]


def seeded_layers(seed: int = 0, hidden: int = 24) -> Layers:
    rng = np.random.default_rng(seed)
    sides = (3 * JOINTS, hidden, hidden, 4 * JOINTS)
    return tuple(
        (rng.normal(0, n**-0.5, (m, n)).astype(np.float32), rng.normal(0, 0.3, m).astype(np.float32))
        for n, m in pairwise(sides)
    )


def add_refiner(manifest_path: Path, layers: Layers | None = None) -> Path:
    """Give the model of that manifest a refiner; its file's path."""
    path = manifest_path.with_suffix(".refiner.safetensors")
    named = {
        f"{at}.{name}": value
        for at, layer in enumerate(layers or seeded_layers())
        for name, value in zip(("weight", "bias"), layer, strict=True)
    }
    save_file({name: np.ascontiguousarray(value, np.float16) for name, value in named.items()}, path)
    manifest, _ = manifests.load(manifest_path, verify=False)
    changes = {"refiner": path.name, "sha256_refiner": sha256_of(path)}
    manifests.save(manifest.model_copy(update=changes), manifest_path)
    return path


def some_points(seed: int, count: int = 5) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(seed).random((count, JOINTS, 3)) * [WIDTH, HEIGHT, 1]).astype(np.float32)


def test_it_is_the_perceptron_of_torch_looked_at_twice() -> None:
    layers = seeded_layers()
    modules: list[torch.nn.Module] = []
    for weights, biases in layers:
        linear = torch.nn.Linear(weights.shape[1], weights.shape[0])
        linear.weight.data, linear.bias.data = torch.from_numpy(weights), torch.from_numpy(biases)
        modules += [linear, torch.nn.ReLU()]
    network = torch.nn.Sequential(*modules[:-1])
    points = some_points(1)

    def said(p: npt.NDArray[np.float32]) -> torch.Tensor:
        x = torch.tensor(p) * torch.tensor([2 / WIDTH, 2 / HEIGHT, 1.0]) - torch.tensor([1.0, 1.0, 0.0])
        with torch.no_grad():
            return network(x.flatten(1)).view(-1, JOINTS, 4)

    turned = points[:, ORDER] * [-1, 1, 1] + [WIDTH - 1, 0, 0]
    mean = 0.5 * (said(points) + said(turned.astype(np.float32))[:, ORDER] * torch.tensor([-1.0, 1, 1, 1]))
    got = Refiner(layers, WIDTH, HEIGHT, ORDER)(points)
    np.testing.assert_allclose(got[..., :2], points[..., :2] + mean[..., :2].numpy() * WIDTH / CELLS, atol=1e-4)
    np.testing.assert_allclose(got[..., 2], joint_scores(mean[..., 2].numpy(), mean[..., 3].numpy()), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_what_lies_mirrored_is_refined_mirrored(seed: int) -> None:
    refiner, points = Refiner(seeded_layers(seed), WIDTH, HEIGHT, ORDER), some_points(seed)
    before = points.copy()
    wanted = mirror_points(refiner(points), WIDTH, ORDER)
    np.testing.assert_allclose(refiner(mirror_points(points, WIDTH, ORDER)), wanted, atol=1e-4)
    np.testing.assert_array_equal(points, before)
    alone = np.concatenate([refiner(points[at : at + 1]) for at in range(len(points))])
    np.testing.assert_allclose(refiner(points), alone, atol=1e-4)
    assert refiner(points[:0]).shape == (0, JOINTS, 3)


@settings(max_examples=50, deadline=None)
@given(near=st.floats(-1000, 1000), labelled=st.floats(-1000, 1000), more=st.floats(0, 50))
def test_scores_grow_with_both_and_stay_in_range(near: float, labelled: float, more: float) -> None:
    def score(a: float, b: float) -> float:
        return float(joint_scores(np.array(a, np.float32), np.array(b, np.float32)))

    assert 0 <= score(near, labelled) <= min(score(near + more, labelled), score(near, labelled + more)) <= 1
    assert labelled > -0.21 or score(near, labelled) < 0.2  # people would rather not label it: a chance below 0.45
    assert score(near, 5.0) == pytest.approx(1 / (1 + np.exp(-near)) if near > -500 else 0.0, abs=1e-6)


def test_the_estimator_refines_in_pixels_of_the_crop(tmp_path: Path) -> None:
    """Layers that see nothing say the same of every joint: down is down, sideways cancels out with the mirrored look."""
    path = write_pose_model(tmp_path)
    picture, boxes = parity_pictures(160, 120, 1)[0], [np.array([[20, 10, 80, 110]], np.float32)]

    def points() -> Any:
        return load_pose(path, device="cpu", runtime="torch", precision="fp32", batch_sizes=(1,))([picture], boxes)[0]

    plain = points()
    bias = np.tile(np.array([0.0, 2.0, 30.0, 30.0], np.float32), JOINTS)
    still = tuple((weights * 0, biases * 0) for weights, biases in seeded_layers()[:-1])
    add_refiner(path, (*still, (seeded_layers()[-1][0] * 0, bias)))
    moved = points()
    scale = 1.25 * 100 / HEIGHT  # the box is as high as the crop, but for the margin; pixels of the picture
    np.testing.assert_allclose(moved[..., 0], plain[..., 0], atol=0.01)
    np.testing.assert_allclose(moved[..., 1] - plain[..., 1], 2 * WIDTH / CELLS * scale, atol=0.05)
    assert (moved[..., 2] > 0.999).all()
    sideways = np.zeros(4 * JOINTS, np.float32)
    sideways[::4] = 3.0
    add_refiner(path, (*still, (seeded_layers()[-1][0] * 0, sideways)))
    np.testing.assert_allclose(points()[..., :2], plain[..., :2], atol=0.01)


def test_an_exported_model_takes_its_refiner_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "cache"))
    path = write_pose_model(tmp_path)
    add_refiner(path)
    picture, boxes = parity_pictures(160, 120, 1)[0], [np.array([[20, 10, 90, 110]], np.float32)]
    wanted = load_pose(path, device="cpu", precision="fp32", batch_sizes=(1,))([picture], boxes)[0]
    export(*manifests.load(path), "onnx", tmp_path / "out")
    made = tmp_path / "out" / "tiny-onnx.onnx"
    got = load_pose(made, device="cpu", precision="fp32", batch_sizes=(1,))([picture], boxes)[0]
    np.testing.assert_allclose(got, wanted, atol=1e-2)
    (tmp_path / "out" / "tiny-onnx.refiner.safetensors").unlink()
    with pytest.raises(ModelError, match=r"refiner\.safetensors: the weights that tiny-onnx\.yaml names are missing"):
        load_pose(made)


def test_files_that_are_no_refiner_are_one_line(tmp_path: Path) -> None:
    path = write_pose_model(tmp_path)
    file = add_refiner(path)
    manifest, weights = manifests.load(path)
    assert load_refiner(manifest, weights) is not None
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"tiny\.refiner\.safetensors: sha256 is .*; restore the file"):
        load_pose(path)
    file.write_bytes(content[:50])
    with pytest.raises(ModelError, match=r"tiny\.refiner\.safetensors: not a refiner's weights"):
        load_refiner(manifest, weights)
    for tensors in ({"a": np.zeros(3)}, {}, {"0.weight": np.zeros((68, 50)), "0.bias": np.zeros(68)}):
        save_file(tensors, file)
        with pytest.raises(ModelError, match=r"tiny\.refiner\.safetensors: not (a|the) refiner") as error:
            load_refiner(manifest, weights)
        assert "\n" not in str(error.value)
    text = path.read_text()
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("sha256_refiner")))
    with pytest.raises(ModelError, match="refiner and sha256_refiner: both or neither"):
        load_pose(path)
    path.write_text(text.replace("task: pose", "task: detect"))
    with pytest.raises(ModelError, match="refiner: is for key points; a detector has none"):
        load_pose(path)
