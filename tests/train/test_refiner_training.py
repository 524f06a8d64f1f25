"""The training of a refiner: its loss by hand, what it learns from answers with a known fault, and the whole command."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from streampose.cli.main import app
from streampose.errors import ConfigError, DataError, ModelError, SinkError
from streampose.evaluate.dataset import LabelledImage, LabelledPerson
from streampose.models.check import check_file
from streampose.models.load import load_pose
from streampose.models.manifest import load
from streampose.pose.refiner import CELLS, Refiner
from streampose.pose.skeleton import load_skeleton
from streampose.train.pose import PoseTraining
from streampose.train.pose_export import export_pose
from streampose.train.refiner import (
    Answers,
    _place,
    _put,
    _summary,
    answers_of,
    fit,
    owners_of,
    refiner_loss,
    train_refiner,
)
from streampose.train.refiner_config import RefinerRecipe, read_refiner_recipe
from tests.made_models import write_pose_model
from tests.train.small_recipe import quiet, recipe_for
from tests.train.stick_people import stick_set

SIZE = 64
HEAD, LEFT_HAND, RIGHT_HAND, PELVIS, FEET = 0, 1, 2, 3, slice(4, 6)


def recipe(**changes: Any) -> RefinerRecipe:
    values = {"model": "made.yaml", "data": ["set"], "hidden": 48, "passes": 20, "batch": 64, "device": "cpu"}
    return RefinerRecipe.model_validate(values | changes)


def answers_with_faults(count: int, seed: int) -> Answers:
    """A network that says the head three pixels too low and each hand two pixels too far out, whose feet scatter where
    their score is low, and whose pelvis people label where its score is over a half."""
    rng = np.random.default_rng(seed)
    labels = rng.uniform(16, 48, (count, 6, 2))
    said = np.concatenate((labels, rng.random((count, 6, 1))), 2)
    said[..., :2] += rng.normal(0, 0.3, said[..., :2].shape)
    said[:, HEAD, 1] += 3
    said[:, LEFT_HAND, 0] += 2
    said[:, RIGHT_HAND, 0] -= 2
    said[:, FEET, :2] += rng.normal(0, 8, (count, 2, 2)) * (said[:, FEET, 2:] < 0.5)
    marked = np.ones((count, 6))
    marked[:, PELVIS] = said[:, PELVIS, 2] > 0.5
    values = (said, labels, marked, np.ones((count, 6)), np.full((count, 6), 4.0))
    return Answers(*(torch.from_numpy(each.astype(np.float32)) for each in values))


def test_it_learns_where_labels_lie_and_whom_to_trust() -> None:
    skeleton = load_skeleton("limbs6")
    perceptron = fit(answers_with_faults(4000, 0), recipe(), SIZE, SIZE, skeleton)
    layers = [each for each in perceptron if isinstance(each, torch.nn.Linear)]
    pairs = tuple((each.weight.detach().numpy(), each.bias.detach().numpy()) for each in layers)
    fresh = answers_with_faults(500, 1)
    got = Refiner(pairs, SIZE, SIZE, skeleton.flip_order)(fresh.said.numpy())
    score = fresh.said[..., 2].numpy()
    off = (got[..., :2] - fresh.labels.numpy()).mean(0)
    assert np.abs(off[[HEAD, LEFT_HAND, RIGHT_HAND, PELVIS]]).max() < 0.4
    feet, asked = got[:, FEET, 2], score[:, FEET]
    assert feet[asked > 0.6].mean() > feet[asked < 0.4].mean() + 0.3
    pelvis, asked = (
        got[:, PELVIS, 2],
        score[:, PELVIS],
    )  # its place is right throughout, so its score is all that is said
    assert (pelvis[asked > 0.7] > 0.6).mean() > 0.95
    assert (pelvis[asked < 0.3] < 0.2).mean() > 0.95


def test_the_loss_is_what_it_says() -> None:
    """With scores far from any doubt only what is missing in OKS is left, which is counted by hand here."""
    answers = answers_with_faults(7, 3)
    answers = Answers(answers.said, answers.labels, answers.marked * 0 + 1, answers.known, answers.variance)
    told = torch.zeros(7, 6, 4)
    told[:, 0, 1] = -3 * CELLS / SIZE
    cell = SIZE / CELLS
    apart = answers.said[..., :2].numpy() + cell * told[..., :2].numpy() - answers.labels.numpy()
    e = (apart**2).sum(-1) / (2 * 4.0)
    near = np.exp(-e)
    missing = (1 - 0.7 * near - 0.3 * np.exp(-e / 4)).mean(1)
    # All logits are nought, so every cross-entropy is log 2, whatever the targets are.
    assert float(refiner_loss(told, answers, cell)) == pytest.approx(
        float((missing + 1.5 * np.log(2)).mean()), rel=1e-4
    )
    better = told.clone()
    better[..., 2:] = 8.0
    better[..., 2] = torch.from_numpy(np.log(near / np.maximum(1 - near, 1e-4)))
    assert float(refiner_loss(better, answers, cell)) < float(refiner_loss(told, answers, cell))
    nobody = Answers(answers.said, answers.labels, answers.marked * 0, answers.known * 0, answers.variance)
    assert np.isfinite(float(refiner_loss(told, nobody, cell)))


def person(number: int, box: list[float]) -> LabelledPerson:
    image = LabelledImage(1, "a.jpg", 200, 200, "")
    keypoints = np.full((6, 3), 2.0, np.float32)
    weights, human = np.ones(6, np.float32), np.ones(6, bool)
    return LabelledPerson(number, image, np.array(box, np.float32), keypoints, 1000.0, False, weights, human)


def test_a_found_box_is_somebodys_nobodys_or_unclear() -> None:
    people = [person(1, [10, 10, 50, 90]), person(2, [100, 10, 140, 90])]
    boxes = np.array([[12, 8, 52, 88], [98, 15, 141, 95], [10, 60, 50, 90], [10, 150, 50, 190], [60, 60, 60, 60]])
    owners = owners_of(boxes.astype(np.float32), people)
    assert owners == {0: people[0], 1: people[1], 3: None, 4: None}
    assert owners_of(np.zeros((0, 4), np.float32), people) == {}


def test_in_a_box_of_nobody_no_joint_is_labelled() -> None:
    skeleton = load_skeleton("limbs6")
    said = np.random.default_rng(0).uniform(0, 60, (2, 6, 3)).astype(np.float32)
    halved = np.tile(np.array([[0.5, 0, 3], [0, 0.5, 4]]), (2, 1, 1))
    got = answers_of(said, halved, [person(1, [10, 10, 50, 90]), None], skeleton)
    assert got.marked.tolist() == [[1.0] * 6, [0.0] * 6]
    assert got.known.min() == 1
    np.testing.assert_allclose(got.labels[0], [[4.0, 5.0]] * 6)
    np.testing.assert_allclose(got.variance[0], 250 * (2 * skeleton.sigmas) ** 2, rtol=1e-5)
    cell, told = SIZE / CELLS, torch.zeros(2, 6, 4)
    surer = told.clone()
    surer[1, :, 2:] = -4.0
    assert refiner_loss(surer, got, cell) < refiner_loss(told, got, cell)


@pytest.mark.parametrize("name", ["tiny", "yard-1.2"])
def test_a_refiner_goes_beside_the_model_of_that_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder called the same does not hide it."""
    monkeypatch.setenv("STREAMPOSE_WEIGHTS", str(tmp_path / "weights"))
    path = write_pose_model(tmp_path / "weights", name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    for ref in (name, path, path.with_name(f"{name}.safetensors")):
        assert _place(ref) == (path, path.with_name(f"{name}.safetensors"))


def test_a_manifest_that_cannot_be_written_leaves_all_as_it_was(tmp_path: Path) -> None:
    place = write_pose_model(tmp_path)
    part = tmp_path / ".part"
    names = []
    for content in (b"the first", b"the second"):
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        part.write_bytes(content)
        (tmp_path / "tiny.yaml.part").mkdir()  # stands where it would be written
        with pytest.raises(SinkError, match=r"tiny\.yaml: cannot write the manifest"):
            _put(part, place, {})
        (tmp_path / "tiny.yaml.part").rmdir()
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        part.write_bytes(content)
        _put(part, place, {"people": 3})
        manifest, _ = load(place)  # held to its hash
        assert manifest.training == {"refiner": {"people": 3}}
        assert manifest.refiner is not None
        names.append(manifest.refiner)
        assert (tmp_path / manifest.refiner).read_bytes() == content
        assert [path.name for path in tmp_path.glob("*refiner*")] == [manifest.refiner]  # that of before is gone
    assert len(set(names)) == 2


def test_a_refiner_that_another_manifest_names_stays(tmp_path: Path) -> None:
    place, part = write_pose_model(tmp_path), tmp_path / ".part"
    part.write_bytes(b"the first")
    _put(part, place, {})
    first = load(place)[0].refiner
    assert first is not None
    (tmp_path / "night.yaml").write_bytes(place.read_bytes())
    part.write_bytes(b"the second")
    _put(part, place, {})
    assert (tmp_path / first).read_bytes() == b"the first"
    assert load(tmp_path / "night.yaml")[0].refiner == first


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_read(tmp_path: Path) -> None:
    place = write_pose_model(tmp_path)
    (tmp_path / ".tiny.refiner.safetensors").mkdir()  # stands where it would be written
    with pytest.raises(SinkError, match=r"\.tiny\.refiner\.safetensors: this is a folder"):
        train_refiner(recipe(model=place, data=[tmp_path / "no set"]), quiet)


def test_a_part_of_a_zip_keeps_its_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        archive.writestr("train/annotations.json", "{}")
    assert _summary(recipe(root=tmp_path, data=["mine.zip/train"]), 3)["sets"] == ["mine.zip/train"]


@pytest.mark.slow
def test_the_whole_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "cache"))
    stick_set(tmp_path / "set", 40)
    made = recipe_for(tmp_path, samples=640, measure_trained=False)
    PoseTraining(made, quiet).run()
    model = tmp_path / "w" / "made.safetensors"
    export_pose(made, made.out / "best.pt", model, licence="MIT")
    before = {path.name: path.read_bytes() for path in model.parent.iterdir()}
    wanted = {
        "model": str(model.with_suffix(".yaml")), "data": ["set"], "root": str(tmp_path), "heights": [0, 60],
        "holdout": {"images": 8, "share": 0.5, "heights": [50]}, "hidden": 32, "passes": 30, "batch": 16,
        "device": "cpu", "precision": "fp32",
    }  # fmt: skip

    def run(**changes: Any) -> str:
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(wanted | changes))
        words = ["train", "refiner", str(tmp_path / "recipe.yaml")]
        return CliRunner().invoke(app, words, catch_exceptions=False).stdout

    with pytest.raises(ConfigError, match="sources: no picture is of nowhere; the sets have set"):
        run(sources=["set", "nowhere"])
    with pytest.raises(DataError, match="nobody is kept to measure on"):
        run(holdout={"images": 0})
    told = run(lr=100.0, passes=3)  # so steep that it can only do harm
    assert "not kept: the people kept to measure on gain nothing by it" in told
    assert {path.name: path.read_bytes() for path in model.parent.iterdir()} == before

    told = run(detector="yolov8n_person", threshold=0.001)
    assert "32 people in 2 views to train on, 8 kept" in told
    assert "asking in the detector's boxes" in told
    assert "clean: AP" in told
    assert "made.yaml names it now" in told
    manifest, weights = load(model.with_suffix(".yaml"))
    assert set(before) | {manifest.refiner} == {path.name for path in model.parent.iterdir()}
    assert check_file(model)["refiner"].startswith(f"{manifest.refiner}, sha256")
    assert manifest.training["refiner"]["people"] == 32
    assert manifest.training["refiner"]["hidden"] == 32
    assert weights.read_bytes() == before["made.safetensors"]
    pose = load_pose(model, device="cpu", precision="fp32")
    assert pose.networks[0].refiner is not None
    other = model.with_name("other.yaml")  # a second manifest of the same weights keeps a refiner of its own
    other.write_bytes(before["made.yaml"])
    run(model=str(other), hidden=16)
    assert load(other)[0].refiner not in (None, manifest.refiner)
    told = run(detector="yolov8n_person", threshold=0.001)
    assert (
        "not kept" in told
    )  # the same for the same seed, so no better than the one there is, and not a refiner's refiner
    ways = re.search(r"clean: AP (\S+) to (\S+) to (\S+), AP50", told)
    assert ways
    assert ways[1] != ways[2] == ways[3]
    assert load(model.with_suffix(".yaml"))[0] == manifest
    assert manifest.refiner is not None
    refiner = model.with_name(manifest.refiner)
    for damage in (lambda: refiner.write_bytes(b"torn"), refiner.unlink):  # what is made anew needs not be whole before
        damage()
        with pytest.raises(ModelError, match=r"made\.refiner-.*restore the file"):
            load_pose(model, device="cpu", precision="fp32")
        told = run(detector="yolov8n_person", threshold=0.001)
        assert "; a new one takes its place" in told
        assert load(model.with_suffix(".yaml"))[0] == manifest


def test_models_and_recipes_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<net/>")
    words = ["train", "refiner", "configs/train/refiner.yaml", "--data", str(tmp_path), "--model"]
    with pytest.raises(ModelError, match=r"a\.xml: needs its manifest"):
        CliRunner().invoke(app, [*words, str(tmp_path / "a.xml")], catch_exceptions=False)
    for line, message in (
        ("heights: []", "heights"),
        ("heights: [0, -40]", r"heights\.1: 0, or pixels between 8 and 1000, are wanted \(given: -40\)"),
        ("seed: -1", "seed"),
        ("dropout: 1", "dropout"),
        ("hidden: 0", "hidden"),
    ):
        (tmp_path / "r.yaml").write_text(f"model: a\ndata: [b]\n{line}\n")
        with pytest.raises(ConfigError, match=message):
            read_refiner_recipe(tmp_path / "r.yaml")
    assert read_refiner_recipe("configs/train/refiner.yaml").heights.count(0) == 3
