"""What a pose training exports: weights with their manifest, the ways back, the licence."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from streampose.cli.main import app
from streampose.errors import ConfigError, DataError, ModelError, SinkError, UsageError
from streampose.models.manifest import load
from streampose.pose.network import build_pose_network
from streampose.pose.skeleton import FOLDER
from streampose.train.pose_export import export_pose, training_summary
from streampose.train.weights_file import write_weights
from tests.made_models import write_pose_model
from tests.train.small_recipe import recipe_for
from tests.train.stick_people import stick_set


def test_exports_that_cannot_be_are_one_line_and_leave_what_was_there(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, teacher=tmp_path / "teacher.pth")
    best = tmp_path / "best.pt"
    network = build_pose_network({"network": "litehrnet_tiny", "joints": 6})
    torch.save({"network": network.state_dict(), "step": 2}, best)
    target = tmp_path / "w" / "a.safetensors"
    export_pose(recipe, best, target, licence="MIT")
    before = target.read_bytes()

    torch.save(build_pose_network({"network": "hrnet_tiny", "joints": 6}).state_dict(), tmp_path / "teacher.pth")
    with pytest.raises(ModelError, match=r"teacher\.pth: of another network"):
        export_pose(recipe, best, target, licence="MIT", blend=0.5)
    with pytest.raises(ConfigError, match="names none of the same input"):
        export_pose(recipe_for(tmp_path), best, target, licence="MIT", blend=0.5)
    with pytest.raises(ConfigError, match="the recipe's `init`, and it names none"):
        export_pose(recipe_for(tmp_path), best, target, licence="MIT", blend_init=0.5)
    torch.save({"network": build_pose_network({"network": "litehrnet_tiny", "joints": 5}).state_dict()}, best)
    with pytest.raises(ModelError, match="has 5 joints, 6 are wanted"):
        export_pose(recipe, best, target, licence="MIT")
    with pytest.raises(DataError, match="no good `step`"):
        training_summary(recipe, best)
    with pytest.raises(SinkError, match=r"written as \.safetensors"):
        write_weights({"a": torch.zeros(1)}, tmp_path / "a.pt")
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot write the weights"):
        write_weights({"a": torch.zeros(1)}, tmp_path / "file" / "a.safetensors")
    assert target.read_bytes() == before


def test_an_exports_licence_is_that_of_the_start_or_asked_for(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    trained = build_pose_network({"network": "litehrnet_tiny", "joints": 6})
    torch.save({"network": trained.state_dict(), "step": 1}, tmp_path / "run" / "best.pt")
    words = ["train", "pose", str(tmp_path / "recipe.yaml"), "--export", str(tmp_path / "made.safetensors")]
    for start, missing in ((None, "names no `init`"), ("tiny.safetensors", r"tiny\.yaml is missing")):
        recipe = recipe_for(tmp_path, init=start, root=tmp_path)
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
        with pytest.raises(UsageError, match=f"--licence: say which the weights have; .*{missing}"):
            CliRunner().invoke(app, words, catch_exceptions=False)
    write_pose_model(tmp_path)
    for more, licence in (([], "none: made by a test"), (["--licence", "MIT"], "MIT")):
        assert CliRunner().invoke(app, words + more, catch_exceptions=False).exit_code == 0
        assert load(tmp_path / "made.yaml")[0].licence == licence


def run(*words: str | Path) -> None:
    done = CliRunner().invoke(app, ["train", "pose", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The recipe mine.yaml, which starts from `free`, and its run on `set`, which started from `bound`; the starts."""
    stick_set(tmp_path / "set", 4)
    starts = {}
    for name, licence in (("free", "Apache-2.0"), ("bound", "CC-BY-NC-4.0")):
        starts[name] = build_pose_network({"network": "litehrnet_tiny", "joints": 6}).state_dict()
        torch.save({"network": starts[name], "step": 1}, tmp_path / "start.pt")
        export_pose(recipe_for(tmp_path), tmp_path / "start.pt", tmp_path / f"{name}.safetensors", licence=licence)
    recipe = recipe_for(tmp_path, init="free.safetensors", root=tmp_path, samples=48, data=["other"])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    more = ["--data", tmp_path / "set", "--samples", "16"]
    run(tmp_path / "mine.yaml", "--init", tmp_path / "bound.safetensors", *more)
    return tmp_path / "mine.yaml", starts


def test_an_export_is_of_the_run_that_was(tmp_path: Path, trained: tuple[Path, dict[str, Any]]) -> None:
    recipe, starts = trained
    target = tmp_path / "made.safetensors"
    run(recipe, "--export", target, "--blend-init", "1")
    manifest = load(tmp_path / "made.yaml")[0]
    assert manifest.licence == "CC-BY-NC-4.0"
    assert manifest.training["sets"] == ["set"]
    assert manifest.training["recipe"]["samples"] == 16
    for name, value in load_file(target).items():
        assert torch.allclose(value.float(), starts["bound"][name], atol=2e-3)

    (tmp_path / "bound.safetensors").rename(tmp_path / "moved.safetensors")
    run(recipe, "--export", target)  # what it began with is not needed
    run(recipe, "--export", target, "--blend-init", "1", "--init", tmp_path / "moved.safetensors")
    other = ["--init", str(tmp_path / "free.safetensors")]
    for words in (["--export", str(target), *other], ["--resume", *other]):
        with pytest.raises(
            UsageError, match=r"the run began with another start than .*/free.safetensors: one of sha256 "
        ):
            run(recipe, *words)
    run(recipe, "--resume", "--init", tmp_path / "moved.safetensors", "--data", tmp_path / "set")


def test_an_export_writes_over_nothing_that_is_read(tmp_path: Path, trained: tuple[Path, dict[str, Any]]) -> None:
    recipe, _ = trained
    skeleton = tmp_path / "own.skeleton.yaml"
    skeleton.write_bytes((FOLDER / "limbs6.yaml").read_bytes())
    (tmp_path / "notes.yaml").write_text("people: 3\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for name, message in (
        ("mine", "mine.yaml: this is what is read"),
        ("bound", "bound.safetensors: this is what is read"),
        ("notes", "notes.yaml: is no model's manifest and would be written over; choose another name"),
    ):
        with pytest.raises(SinkError, match=message):
            run(recipe, "--export", tmp_path / f"{name}.safetensors")
    state = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    state["recipe"]["skeleton"] = str(skeleton)
    torch.save(state, tmp_path / "run" / "best.pt")
    with pytest.raises(SinkError, match=r"own\.skeleton\.yaml: this is what is read"):
        run(recipe, "--export", tmp_path / "own.safetensors")
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    state["recipe"]["samples"] = "many"
    torch.save(state, tmp_path / "run" / "best.pt")
    with pytest.raises(DataError, match=r"best\.pt: the recipe in it is of another version: samples: "):
        run(recipe, "--export", tmp_path / "own.safetensors")


def test_blending_goes_the_said_way_back(tmp_path: Path) -> None:
    start, trained, init = (build_pose_network({"network": "litehrnet_tiny", "joints": 6}) for _ in range(3))
    torch.save(start.state_dict(), tmp_path / "teacher.pth")
    torch.save(init.state_dict(), tmp_path / "init.pth")
    torch.save({"network": trained.state_dict(), "step": 1}, tmp_path / "best.pt")
    recipe = recipe_for(tmp_path, teacher=tmp_path / "teacher.pth", init=tmp_path / "init.pth")
    for back, shares in ((0.0, (0.75, 0.0, 0.25)), (0.4, (0.45, 0.3, 0.25))):
        target = tmp_path / f"mean{back}.safetensors"
        export_pose(recipe, tmp_path / "best.pt", target, licence="MIT", blend=0.25, blend_init=back)
        got = load_file(target)
        for name, value in got.items():
            parts = zip(shares, (trained, init, start), strict=True)
            wanted = sum(share * network.state_dict()[name] for share, network in parts)
            assert torch.allclose(value.float(), wanted, atol=2e-3)
        assert set(got) == {name for name in start.state_dict() if not name.endswith("num_batches_tracked")}
