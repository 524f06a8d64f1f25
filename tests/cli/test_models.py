"""`streampose models` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streampose.cli.models import app
from streampose.errors import ModelError, UsageError
from tests.made_models import write_pose_model


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


def test_check_and_export(tmp_path: Path) -> None:
    facts = json.loads(invoke("check", str(tmp_path / "weights" / "tiny.safetensors"), "--json"))
    assert facts["task"] == "pose"
    assert "litehrnet_tiny" in invoke("check", str(tmp_path / "weights" / "tiny.yaml"))
    said = invoke("export", "tiny", "--runtime", "torchscript", "--out", str(tmp_path / "out"))
    assert "greatest difference from torch" in said
    assert (tmp_path / "out" / "tiny-torchscript.torchscript").is_file()
    with pytest.raises(UsageError, match="multiples of 32"):
        invoke("export", "tiny", "--size", "100x100")
    with pytest.raises(ModelError, match="no such model file"):
        invoke("check", str(tmp_path / "gone.pth"))


def test_fetch_from_a_file_says_where_it_is(tmp_path: Path) -> None:
    brought = tmp_path / "brought.pth"
    brought.write_bytes(b"not what was published")
    with pytest.raises(ModelError, match="is not the published file"):
        invoke("fetch", "hrnet_w32_256x192", "--from", str(brought))
    with pytest.raises(UsageError, match="not a known model"):
        invoke("fetch", "hrnet_w33")
