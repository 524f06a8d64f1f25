"""What a pose training exports: weights with their manifest, the ways back, the licence."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from streampose.cli.main import app
from streampose.errors import ConfigError, DataError, ModelError, SinkError, UsageError
from streampose.models.manifest import load
from streampose.pose.network import build_pose_network
from streampose.train.pose_export import export_pose, training_summary
from streampose.train.weights_file import write_weights
from tests.made_models import write_pose_model
from tests.train.small_recipe import recipe_for


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
