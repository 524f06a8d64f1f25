"""The benchmark of the networks: rows, ratios, and wishes that cannot be."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streampose.bench.models import BenchModelsOptions, bench_models, setups_of
from streampose.cli.bench import app
from streampose.errors import ConfigError, ModelError, SinkError, UsageError
from streampose.models.export import export
from streampose.models.resolve import resolve
from tests.made_models import write_detector, write_pose_model, write_ultralytics


def test_rows_of_a_small_network_that_was_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "cache"))
    fetched = tmp_path / "cache" / "models"
    fetched.mkdir(parents=True)
    model = write_pose_model(fetched)
    setups = ("torch:fp32", "openvino:fp32")
    found = bench_models(BenchModelsOptions(poses=(model.stem,), setups=setups, batches=(1, 2), threads=1, seconds=0))
    rows = {(row["setup"], row["batch"]): row for row in found["rows"]}
    assert set(rows) == {(setup, batch) for setup in setups for batch in (1, 2)}
    for row in rows.values():
        assert row["calls"] >= 5
        assert 0 < row["wall_ms_min"] <= row["wall_ms_median"]
        assert row["model"] == "tiny"
    assert rows["torch:fp32", 1]["wall_to_torch"] == 1
    openvino, torch = rows["openvino:fp32", 2], rows["torch:fp32", 2]
    assert openvino["wall_to_torch"] == pytest.approx(openvino["wall_ms_min"] / torch["wall_ms_min"], rel=0.1, abs=0.05)
    assert os.environ["STREAMPOSE_CACHE"] == str(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [fetched]


def test_the_command_writes_json(tmp_path: Path) -> None:
    file = tmp_path / "new" / "models.json"
    arguments = ["models", "--preset", "hrnet_tiny@32x64", "--setup", "torch:fp32", "--batch", "1"]
    done = CliRunner().invoke(app, [*arguments, "--threads", "1", "--seconds", "0", "--json", str(file)])
    assert done.exit_code == 0, done.output
    found = json.loads(file.read_text())
    assert [row["setup"] for row in found["rows"]] == ["torch:fp32"]
    assert found["machine"]["cpu"]
    assert "hrnet_tiny (random weights)" in done.output
    with pytest.raises(
        SinkError,
        match=r"in\.json: cannot be written \((Not a directory|File exists)\); choose another place with --json",
    ):
        CliRunner().invoke(
            app,
            [*arguments, "--threads", "1", "--seconds", "0", "--json", str(file / "in.json")],
            catch_exceptions=False,
        )


@pytest.mark.parametrize(
    "options", [{"presets": ("hrnet_tiny",)}, {"presets": ("hrnet_tiny@33x64",)}, {"presets": ("hrnet_tiny@0x64",)}]
)
def test_wishes_that_cannot_be(options: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(UsageError, match="NETWORK@WIDTHxHEIGHT"):
        bench_models(BenchModelsOptions(**options, seconds=0))


def test_an_unknown_setup_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="openvino:fp64"):
        bench_models(BenchModelsOptions(poses=(str(write_pose_model(tmp_path)),), setups=("openvino:fp64",), seconds=0))


def test_a_detector_that_takes_one_size_alone_is_timed_at_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "cache"))
    export(*resolve(write_detector(tmp_path), "detect"), "openvino", tmp_path / "out")
    (exported,) = (tmp_path / "out").glob("*.yaml")
    found = bench_models(BenchModelsOptions(detectors=(str(exported),), setups=("openvino:fp32",), seconds=0))
    assert [row["size"] for row in found["rows"]] == [[128, 128]]


def test_a_detector_s_pickle_is_timed_where_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message asked for --trust, which the command had not."""
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "cache"))
    arguments = ["models", "--detector", str(write_ultralytics(tmp_path / "best.pt")), "--setup", "torch:fp32"]
    arguments += ["--size", "64x64", "--threads", "1", "--seconds", "0"]
    with pytest.raises(ModelError, match="or --trust"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    done = CliRunner().invoke(app, [*arguments, "--trust"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "64x64" in done.output


@pytest.mark.parametrize("size", ["0x384", "641x384", "640", "640x-32"])
def test_a_size_that_no_detector_takes_is_refused(size: str) -> None:
    with pytest.raises(UsageError, match="multiples of 32"):
        CliRunner().invoke(app, ["models", "--size", size], catch_exceptions=False)


@pytest.mark.skipif(find_spec("nncf") is None, reason="the int8 extra is not installed")
def test_a_setup_that_nobody_asked_for_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Int8 without videos to calibrate on took the figures of all others with it."""
    monkeypatch.setenv("STREAMPOSE_CALIBRATION", str(tmp_path / "gone"))
    options = BenchModelsOptions(poses=(str(write_pose_model(tmp_path)),), batches=(1,), threads=1, seconds=0)
    found = bench_models(options)
    assert {"torch:fp32", "openvino:fp32", "onnx:fp32"} <= {row["setup"] for row in found["rows"]}
    assert "gone: no video" in found["left_out"]["openvino:int8 of tiny.safetensors"]
    with pytest.raises(ModelError, match="gone: no video"):
        bench_models(replace(options, setups=("torch:fp32", "openvino:int8")))
    with pytest.raises(
        ModelError, match=r"nothing can be timed here: .*torch:fp32 of tiny\.safetensors: device: cuda:99"
    ):
        bench_models(replace(options, device="cuda:99"))


def test_a_device_has_its_own_setups_and_says_what_it_got(tmp_path: Path) -> None:
    model = str(write_pose_model(tmp_path))
    options = BenchModelsOptions(poses=(model,), device="openvino:CPU", batches=(1,), threads=1, seconds=0)
    found = bench_models(options)
    timed = {row["setup"]: row["got"] for row in found["rows"]}
    assert timed["openvino:fp32"] == "cpu fp32"
    assert "openvino on CPU runs" in found["left_out"]["openvino:fp16"]
    with pytest.raises(ConfigError, match="openvino on CPU runs"):
        bench_models(replace(options, setups=("openvino:fp16",)))
    assert setups_of("cuda:1") == ("torch:fp32", "torch:fp16", "onnx:fp32")
