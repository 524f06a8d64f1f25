"""Sets named on the command line of `streampose train` in the place of the recipe's."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from streampose.cli.main import app
from streampose.errors import SinkError, StreamposeError, UsageError
from streampose.models.manifest import load
from streampose.pose.network import build_pose_network
from streampose.train.detector_config import read_recipe as read_detector_recipe
from streampose.train.memory import telling_of_memory
from streampose.train.pose_export import training_summary
from tests.evaluate.sets import zip_folder
from tests.train.small_recipe import recipe_for
from tests.train.stick_people import stick_set


def train(*words: str | Path) -> str:
    done = CliRunner().invoke(app, ["train", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0
    return " ".join(done.output.split())


def write_recipe(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def layouts(tmp_path: Path) -> dict[str, list[str | Path]]:
    """The same eight pictures as folder, as zip, and as COCO has them."""
    folder = tmp_path / "sticks"
    stick_set(folder, 8)
    packed = zip_folder(folder, tmp_path / "sticks.zip")
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"train/{file.name}")
        archive.writestr("valid/annotations.json", "{}")
    shutil.copytree(folder, tmp_path / "pictures")
    (tmp_path / "pictures" / "annotations.json").rename(tmp_path / "people.json")
    return {
        "folder": ["--data", folder],
        "zip": ["--data", packed],
        "part of a zip": ["--data", tmp_path / "export.zip" / "train"],
        "json": ["--data", tmp_path / "people.json", "--images", tmp_path / "pictures"],
    }


@pytest.mark.parametrize("layout", ["folder", "zip", "part of a zip", "json"])
def test_a_pose_network_is_trained_on_the_set_that_is_named(
    tmp_path: Path, layouts: dict[str, list[str | Path]], layout: str
) -> None:
    torch.save(build_pose_network({"network": "litehrnet_tiny", "joints": 6}).state_dict(), tmp_path / "start.pth")
    holdout = {"images": 300, "share": 0.25, "heights": []}
    recipe = recipe_for(tmp_path, data=["mine.zip"], samples=16, init=tmp_path / "start.pth", holdout=holdout)
    values = recipe.model_dump(mode="json") | {"measure_trained": False}
    told = train("pose", write_recipe(tmp_path / "recipe.yaml", values), *layouts[layout])
    assert "6 people to train on, 2 of 2 pictures to measure on" in told
    assert "step 0: AP clean" in told  # what the start can, before anything is learnt
    best = tmp_path / "run" / "best.pt"
    sets = {"root": tmp_path, "data": [layouts[layout][1]]}
    words = {"part of a zip": "export.zip/train", "zip": "sticks.zip", "json": "people.json"}
    assert training_summary(recipe.model_copy(update=sets), best)["sets"] == [words.get(layout, "sticks")]


def test_with_nobody_kept_the_last_weights_are_the_best(tmp_path: Path, layouts: dict[str, list[str | Path]]) -> None:
    out = tmp_path / "run[cam1]"
    values = recipe_for(tmp_path, data=["mine.zip"], samples=16, out=out).model_dump(mode="json")
    values["measure_trained"] = False
    told = train("pose", write_recipe(tmp_path / "recipe.yaml", values), *layouts["zip"])
    assert "nobody is kept to measure on, the last weights count as the best" in told
    assert f"best weights: {out}/best.pt" in told
    assert torch.load(out / "best.pt", weights_only=True)["step"] == 1


@pytest.mark.parametrize(("keep", "step"), [("best", 0), ("last", 1)])
def test_the_best_weights_are_kept_or_the_last(tmp_path: Path, keep: str, step: int) -> None:
    stick_set(tmp_path / "sticks", 8)
    torch.save(build_pose_network({"network": "litehrnet_tiny", "joints": 6}).state_dict(), tmp_path / "start.pth")
    holdout = {"images": 2, "heights": []}
    recipe = recipe_for(
        tmp_path, samples=16, init=tmp_path / "start.pth", holdout=holdout, lr=1e-12
    )  # it learns nothing
    values = recipe.model_dump(mode="json") | {"measure_trained": False, "keep": keep}
    train("pose", write_recipe(tmp_path / "recipe.yaml", values), "--data", tmp_path / "sticks")
    assert torch.load(tmp_path / "run" / "best.pt", weights_only=True)["step"] == step


def test_what_belongs_to_an_export_is_refused_without_one(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_for(tmp_path).model_dump(mode="json"))
    words = ["train", "pose", str(recipe), "--blend", "0.3", "--align", "mine", "--licence", "MIT"]
    with pytest.raises(UsageError, match=r"^--blend, --align, --licence: only with --export$"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert not (tmp_path / "run").exists()


def test_memory_that_is_used_up_is_one_line(tmp_path: Path) -> None:
    stick_set(tmp_path / "set", 8)
    values = recipe_for(tmp_path).model_dump(mode="json")
    values["input"] |= {"width": 2**22, "height": 2**22}  # crops of 10**15 bytes: more than a process can address
    recipe = write_recipe(tmp_path / "recipe.yaml", values)
    with pytest.raises(StreamposeError, match=r"^out of memory \(.*can't allocate memory.*lower `batch`") as raised:
        CliRunner().invoke(app, ["train", "pose", str(recipe)], catch_exceptions=False)
    assert raised.value.exit_code == 1
    for fault, told in (
        (torch.OutOfMemoryError("CUDA out of memory."), StreamposeError),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB)."), StreamposeError),
        (RuntimeError("CUDA error: out of memory"), StreamposeError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), StreamposeError),
        (RuntimeError("x"), RuntimeError),
    ):
        with pytest.raises(told) as caught, telling_of_memory():
            raise fault
        assert caught.type is told


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["folder", "zip", "part of a zip", "json"])
def test_a_detector_is_trained_on_the_set_that_is_named(
    tmp_path: Path, layouts: dict[str, list[str | Path]], layout: str
) -> None:
    values = {
        "name": "mine[1]", "out": str(tmp_path / "run"), "steps": 1, "batch": 2, "canvases": [[96, 96]], "size": 96,
        "architecture": {"builder": "ultralytics", "config": "yolov8n.yaml", "tower_classes": 1},
        "data": {"root": ".", "sets": ["mine.zip"], "held_out_share": 0.25}, "workers": 0, "precision": "float32",
    }  # fmt: skip
    told = train("detector", write_recipe(tmp_path / "recipe.yaml", values), *layouts[layout])
    assert "6 pictures to train on, 2 held out" in told
    assert "mine[1] box " in told
    assert f"in {tmp_path}/run/mine[1].safetensors" in told
    sets = load(tmp_path / "run" / "mine[1].yaml")[0].training["sets"]
    assert sets == [
        {"part of a zip": "export.zip/train", "zip": "sticks.zip", "json": "people.json"}.get(layout, "sticks")
    ]


def test_a_detectors_recipe_in_its_own_folder_is_not_written_over(tmp_path: Path) -> None:
    values = {"name": "mine", "out": str(tmp_path), "steps": 1, "data": {"sets": ["set"]}}
    recipe = write_recipe(tmp_path / "mine.yaml", values)
    with pytest.raises(SinkError, match=r"mine\.yaml: this is what is read, and would be lost"):
        CliRunner().invoke(app, ["train", "detector", str(recipe)], catch_exceptions=False)
    assert recipe.read_text() == yaml.safe_dump(values)


@pytest.mark.parametrize("verb", ["pose", "detector"])
def test_data_that_is_no_set_and_no_folder_of_sets_is_one_line(tmp_path: Path, verb: str) -> None:
    stick_set(tmp_path / "one", 2)
    (tmp_path / "root").mkdir()
    (tmp_path / "other").mkdir()
    one, root, other = (str(tmp_path / name) for name in ("one", "root", "other"))
    faults = {
        "nothing: no such file or folder": ["--data", f"{tmp_path}/nothing"],
        "sets, or the one folder in which they lie, not both": ["--data", one, "--data", root],
        "the recipe's sets lie in one folder": ["--data", root, "--data", other],
        r"--images .*: goes with --data FILE\.json": ["--data", one, "--images", root],
    }
    for message, words in faults.items():
        with pytest.raises(UsageError, match=message):
            CliRunner().invoke(app, ["train", verb, f"configs/train/{verb}.yaml", *words], catch_exceptions=False)


@pytest.mark.parametrize("path", sorted(Path("configs/train").glob("detector*.yaml")), ids=lambda path: path.stem)
def test_the_detectors_recipes_read_and_say_how_they_are_run(path: Path) -> None:
    recipe = read_detector_recipe(path)
    assert f"streampose train detector configs/train/{path.name}" in path.read_text()
    assert recipe.out == f"runs/{path.stem}"
    if path.stem == "detector_finetune":  # it wants a set of pictures and nothing else
        start = recipe.start_file()
        assert start is not None
        assert start.is_file()
