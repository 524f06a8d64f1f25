"""The recipe of a pose training: its keys, its files, its device, and those that come with the program."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from streampose.cli.main import app
from streampose.errors import ConfigError, ModelError
from streampose.train.pose import PoseTraining
from streampose.train.pose_config import read_recipe
from streampose.train.precision import pick_device
from tests.made_models import write_detector, write_pose_model
from tests.train.small_recipe import quiet, recipe_for
from tests.train.stick_people import stick_set


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sampels: 3", 'sampels: unknown key; did you mean "samples"'),
        ("augment: {filp: 0}", r'augment\.filp: unknown key; did you mean "flip"'),
        ("batch: 0", "batch"),
        ("augment: {flip: 2}", r"augment\.flip"),
        ("data: [", "not a recipe"),
        ("network: 2024-99-99", "not a recipe"),
        ("data: [5]", "data.0: a text is wanted, in quotes"),
        (
            "input: {width: 190, height: 250}",
            r"input: 190x250: an HRNet's sides are multiples of 32; 192x256 is nearest",
        ),
        ("input: {width: 192, height: 256, channels: bgr}", r"input\.channels: bgr cannot be trained here"),
        ("seed: -1", "seed: input should be greater than or equal to 0"),
        ("threads: -1", "threads: input should be greater than or equal to 0"),
        ("lr: .inf", "lr: input should be a finite number"),
        ("holdout: {heights: [0]}", r"holdout\.heights\.0: input should be greater than or equal to 8"),
        ("holdout: {heights: [64, 100000]}", r"holdout\.heights\.1: input should be less than or equal to 1000"),
        ("augment: {scale: [0, 0]}", r"augment\.scale\.0: input should be greater than 0"),
        ("augment: {person_px: [0, 140]}", r"augment\.person_px\.0: input should be greater than 0"),
        (
            "augment: {person_px: [140, 28]}",
            r"augment\.person_px: from the least to the most is wanted, not \[140, 28\]",
        ),
        ("augment: {noise: [-1, 8]}", r"augment\.noise\.0: input should be greater than or equal to 0"),
        ("augment: {jpeg: [30, 101]}", r"augment\.jpeg\.1: input should be less than or equal to 100"),
        ("output: {kind: simcc}", r"output\.kind: simcc cannot be trained here; heatmap is what can"),
        ("input: {width: 192, height: 256, std: [1, 0, 1]}", r"input\.std\.1: input should be greater than 0"),
    ],
)
def test_a_bad_recipe_names_the_key(tmp_path: Path, line: str, message: str) -> None:
    shipped = Path("configs/train/pose.yaml").read_text()
    assert read_recipe("configs/train/pose.yaml").network == "litehrnet18"
    key = line.split(":")[0]
    kept = re.sub(
        rf"^{key}:.*\n(?:[ ].*\n)*", "", shipped, flags=re.MULTILINE
    )  # a key and the lines that it goes on over
    (tmp_path / "bad.yaml").write_text(kept + line + "\n")
    with pytest.raises(ConfigError, match=message):
        read_recipe(tmp_path / "bad.yaml")


@pytest.mark.parametrize("words", [("pose", "--samples"), ("pose", "--subset"), ("detector", "--steps")])
@pytest.mark.parametrize("number", ["-3", "0"])
def test_numbers_of_the_command_line_are_checked_as_those_of_a_recipe(words: tuple[str, str], number: str) -> None:
    verb, option = words
    done = CliRunner().invoke(app, ["train", verb, "configs/train/none.yaml", option, number])
    assert done.exit_code == 2
    assert f"Invalid value for '{option}'" in done.output


def test_files_of_a_recipe_are_looked_for_in_its_root_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    recipe = recipe_for(tmp_path, root="root")
    assert recipe.found(Path("a.pth")) == Path("root/a.pth")
    (tmp_path / "a.pth").write_text("")
    assert recipe.found(Path("a.pth")) == Path("a.pth")
    (tmp_path / "root" / "a.pth").write_text("")
    assert recipe.found(Path("a.pth")) == Path("root/a.pth")


def test_a_start_may_be_the_name_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPOSE_WEIGHTS", str(tmp_path))
    write_pose_model(tmp_path)
    recipe = recipe_for(tmp_path, root=tmp_path / "data")
    assert recipe.found_weights(Path("tiny")) == tmp_path / "tiny.safetensors"
    with pytest.raises(ModelError, match="moon: no model of this name"):
        recipe.found_weights(Path("moon"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tiny").write_text("")  # a file of that very name goes before
    assert recipe.found_weights(Path("tiny")) == tmp_path / "data" / "tiny"


@pytest.mark.parametrize("verb", ["pose", "detector"])
def test_a_start_named_on_the_command_line_is_looked_for_here_then_in_the_datas_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """What is found is no checkpoint, and the message says which."""
    monkeypatch.chdir(tmp_path)
    stick_set(tmp_path / "data" / "set", 2)
    if verb == "pose":
        recipe = recipe_for(tmp_path, data=["set"]).model_dump(mode="json")
    else:
        recipe = {"name": "a", "out": "run", "steps": 1, "data": {"sets": ["set"]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for folder in (tmp_path / "data", tmp_path):
        (folder / "start.safetensors").write_text("none")
        with pytest.raises(ModelError) as caught:
            CliRunner().invoke(
                app,
                ["train", verb, "recipe.yaml", "--init", "start.safetensors", "--data", str(tmp_path / "data")],
                catch_exceptions=False,
            )
        assert str(caught.value).startswith(f"{folder / 'start.safetensors'}: not a ")


@pytest.mark.parametrize("verb", ["pose", "detector", "refiner"])
def test_a_folder_called_as_a_model_does_not_hide_it_nor_does_a_dot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """What is found is damaged, and the message says which."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPOSE_WEIGHTS", str(tmp_path / "weights"))
    write = write_detector if verb == "detector" else write_pose_model
    weights = write(tmp_path / "weights", "yard-1.2").with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes() + b"damage")
    for folder in (tmp_path, tmp_path / "data"):
        (folder / "yard-1.2").mkdir(parents=True)
    stick_set(tmp_path / "data" / "set", 2)
    recipes = {
        "pose": recipe_for(tmp_path, data=["set"]).model_dump(mode="json"),
        "detector": {"name": "a", "out": "run", "steps": 1, "data": {"sets": ["set"]}},
        "refiner": {"model": "none", "data": ["set"]},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipes[verb]))
    option = "--model" if verb == "refiner" else "--init"
    with pytest.raises(ModelError, match=r"weights/yard-1\.2\.safetensors: sha256 is"):
        CliRunner().invoke(
            app,
            ["train", verb, "recipe.yaml", option, "yard-1.2", "--data", str(tmp_path / "data")],
            catch_exceptions=False,
        )


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "mps" if not torch.backends.mps.is_available() else "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"device: '?{name}"):
        PoseTraining(recipe_for(tmp_path, device=name), quiet)
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("path", sorted(Path("configs/train").glob("pose*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_that_come_with_it_read_and_say_one_thing(path: Path) -> None:
    recipe = read_recipe(path)
    assert f"streampose train pose configs/train/{path.name}" in path.read_text()
    assert recipe.out == Path("runs") / path.stem
    assert recipe.input.width * 4 == recipe.input.height * 3
    assert (recipe.output.stride, recipe.output.offset) == (4, 0)
    if recipe.teacher_zoom > 1:
        assert recipe.input.width * recipe.teacher_zoom == 192
    if path.stem in ("pose_overfit", "pose_finetune"):  # they want a set of people and nothing else
        assert recipe.init is not None
        assert recipe.found_weights(recipe.init).is_file()
        assert recipe.teacher in (None, recipe.init)
