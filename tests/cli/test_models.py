"""`streampose models` as a user types it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from streampose.cli.models import app
from streampose.errors import ModelError, UsageError
from streampose.models.check import record_cost
from streampose.models.manifest import load
from streampose.models.resolve import resolve_any
from streampose.pose.network import build_pose_network
from tests.made_models import seeded_pose_network, write_pose_model


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STREAMPOSE_WEIGHTS", str(tmp_path / "weights"))
    write_pose_model(tmp_path / "weights")


def invoke(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_list_shows_what_is_here_and_what_is_known(tmp_path: Path) -> None:
    rows = {row["name"]: row for row in json.loads(invoke("list", "--json"))}
    assert rows["tiny"]["where"] == "here"
    assert rows["litehrnet18_256x192"]["where"] == "here"
    assert rows["yolov8n_person"]["task"] == "detect"
    assert rows["hrnet_w48_384x288_udp"]["where"] == "known"
    assert rows["hrnet_w48_384x288_udp"]["verified_by"] == "70d7ab01"
    (tmp_path / "weights" / "tiny.yaml").write_text("no: manifest")
    rows = {row["name"]: row for row in json.loads(invoke("list", "--json"))}
    assert rows["tiny"]["where"] == "broken"
    table = invoke("list")
    assert "hrnet_w32_256x192" in table
    assert "(no hash published)" in table
    of = {row["name"]: (row["ap"], row["ap_of"]) for row in rows.values()}
    manifest, _ = load(Path("weights/litehrnet18_256x192.yaml"))
    assert of["litehrnet18_256x192"][0] == pytest.approx(100 * manifest.measured["OKS-AP"]["clean"])
    assert of["yolov8n_person"][1] == "boxes of people, pictures that its training kept"
    assert "COCO val2017, boxes of 80 classes (Ultralytics)" in table
    assert all(note in table for ap, note in of.values() if ap is not None)


def test_the_shipped_pair_says_what_it_costs_and_check_records_it(tmp_path: Path) -> None:
    rows = {row["name"]: row for row in json.loads(invoke("list", "--json"))}
    assert (rows["litehrnet18_256x192"]["parameters_m"], rows["litehrnet18_256x192"]["gmacs"]) == (1.32, 0.302)
    assert rows["yolov8n_person"]["parameters_m"] == 3.14
    path = tmp_path / "weights" / "tiny.yaml"
    assert rows["tiny"]["gmacs"] is None
    assert f"{path}" in invoke("check", str(path), "--record")
    manifest, _ = load(path)
    assert manifest.measured == {"parameters_m": 0.00581, "gmacs": 0.00167}
    official = tmp_path / "pose_hrnet.pth"
    torch.save(seeded_pose_network("hrnet_tiny").state_dict(), official)
    with pytest.raises(ModelError, match="have a manifest beside them"):
        record_cost(official)


def test_check_and_export(tmp_path: Path) -> None:
    facts = json.loads(invoke("check", str(tmp_path / "weights" / "tiny.safetensors"), "--json"))
    assert facts["task"] == "pose"
    assert "litehrnet_tiny" in invoke("check", str(tmp_path / "weights" / "tiny.yaml"))
    said = invoke("export", "tiny", "--runtime", "torchscript", "--out", str(tmp_path / "out"))
    assert "greatest difference from torch" in said
    assert (tmp_path / "out" / "tiny-torchscript.torchscript").is_file()
    for size in ("100x100", "0x64", "²x64", "64"):
        with pytest.raises(UsageError, match="multiples of 32"):
            invoke("export", "tiny", "--size", size)
    for name in ("gone.pth", f"{'long' * 80}.pth"):
        with pytest.raises(ModelError, match="no such model file"):
            invoke("check", str(tmp_path / name))
    (tmp_path / "unread.pth").symlink_to("/proc/self/mem")  # whose first byte nobody may read, not even root
    with pytest.raises(ModelError, match=r"unread\.pth: cannot be read \(Input/output error\)"):
        invoke("check", str(tmp_path / "unread.pth"))


def test_a_trainings_checkpoint_is_no_model_but_says_how_to_make_one(tmp_path: Path) -> None:
    """It says nothing of input size and normalisation, which used to be guessed from the file's name."""
    state = seeded_pose_network().state_dict()
    torch.save({"network": state, "step": 3}, tmp_path / "best.pt")
    torch.save({"student": state, "step": 3}, tmp_path / "last.pt")
    for name in ("best.pt", "last.pt"):
        for words in (("check", str(tmp_path / name)), ("export", str(tmp_path / name))):
            with pytest.raises(ModelError, match=rf"{name}: is a training's checkpoint, .*train pose RECIPE --export"):
                invoke(*words)
    torch.save(state, tmp_path / "plain.pt")
    assert resolve_any(tmp_path / "plain.pt")[0].task == "pose"
    (tmp_path / "code.pt").write_bytes(pickle.dumps(tmp_path))
    with pytest.raises(ModelError, match="is a pickle, which can run any code"):
        invoke("check", str(tmp_path / "code.pt"))


def test_fetch_from_a_file_says_where_it_is(tmp_path: Path) -> None:
    brought = tmp_path / "brought.pth"
    brought.write_bytes(b"not what was published")
    with pytest.raises(ModelError, match="is not the published file"):
        invoke("fetch", "hrnet_w32_256x192", "--from", str(brought))
    with pytest.raises(UsageError, match="not a known model"):
        invoke("fetch", "hrnet_w33")


@pytest.mark.parametrize(("name", "key"), [("yolo11s", "detect.model"), ("pose_hrnet_w32_256x192", "pose.model")])
def test_fetch_says_which_key_takes_the_name(name: str, key: str, tmp_path: Path) -> None:
    brought = tmp_path / "brought.pth"
    with torch.device("meta"):
        shapes = build_pose_network({"network": "hrnet_w32", "joints": 17}).state_dict()
    torch.save({part: torch.zeros(()).expand(tensor.shape) for part, tensor in shapes.items()}, brought)
    assert f"--set {key}={name}" in invoke("fetch", name, "--from", str(brought), "--unverified")
