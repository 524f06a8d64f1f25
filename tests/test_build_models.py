"""Loading the networks that a configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streampose.build_models import load_models
from streampose.config import Config
from streampose.errors import ConfigError
from streampose.models.manifest import sha256_of
from tests.made_models import write_detector, write_pose_model


def config(folder: Path, **more: dict[str, Any]) -> Config:
    """Small networks with random weights, run by torch in fp32 unless `more` says otherwise."""
    detect, pose = {"model": str(write_detector(folder))}, {"model": str(write_pose_model(folder))}
    return Config.model_validate(
        {
            "cameras": {"gate": {"url": "test:people"}},
            "detect": {**detect, **more.get("detect", {})},
            "pose": {**pose, **more.get("pose", {})},
            "device": "cpu",
            "runtime": "torch",
            "precision": "fp32",
        }
    )


@pytest.mark.parametrize("section", [None, "detect", "pose"])
def test_a_network_has_the_precision_of_the_top_level_or_its_own(tmp_path: Path, section: str | None) -> None:
    models = load_models(config(tmp_path, **({section: {"precision": "bf16"}} if section else {})))
    got = {
        "detect": models.detectors[1.0].warm_up(128, 128).precision,
        "pose": models.pose.networks[0].runtime.precision,
    }
    assert got == {name: "bf16" if name == section else "fp32" for name in got}


def test_a_precision_that_is_not_to_be_had_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="torch on cpu runs fp32, bf16, not int8"):
        load_models(config(tmp_path, detect={"precision": "int8"}))


def test_a_detector_sees_pictures_at_the_size_that_its_manifest_states_or_at_what_is_asked(tmp_path: Path) -> None:
    """It was trained and measured at that size."""
    assert load_models(config(tmp_path)).detectors[1.0].size == 128
    assert load_models(config(tmp_path, detect={"size": 256})).detectors[1.0].size == 256
    governed = config(tmp_path).cameras["gate"].model_copy(update={"max_age": 0.5, "policy": "latest"})
    both = load_models(config(tmp_path).model_copy(update={"cameras": {"gate": governed}})).detectors
    assert {scale: detector.size for scale, detector in both.items()} == {1.0: 128, 0.5: 64}


@pytest.mark.parametrize("size", [64, 96])
def test_a_detector_of_the_least_size_has_no_half_of_it(tmp_path: Path, size: int) -> None:
    """It was refused for 32 pixels, which nobody had asked for."""
    made = config(tmp_path, detect={"size": size})
    governed = made.cameras["gate"].model_copy(update={"max_age": 0.5, "policy": "latest"})
    detectors = load_models(made.model_copy(update={"cameras": {"gate": governed}})).detectors
    assert {scale: detector.size for scale, detector in detectors.items()} == (
        {1.0: 64} if size == 64 else {1.0: 96, 0.5: 64}
    )


def test_the_record_names_every_network_that_made_its_key_points(tmp_path: Path) -> None:
    """That for small people, who had their points from it, was left out."""
    small = write_pose_model(tmp_path, "tiny_small", seed=1)
    assert set(load_models(config(tmp_path)).facts()) == {"detector", "pose"}
    facts = load_models(config(tmp_path, pose={"small_model": str(small)})).facts()
    digests = {name: sha256_of(tmp_path / f"{name}.safetensors") for name in ("tiny_detector", "tiny", "tiny_small")}
    assert {role: (each["name"], each["sha256"]) for role, each in facts.items()} == {
        role: (name, digests[name])
        for role, name in (("detector", "tiny_detector"), ("pose", "tiny"), ("small_pose", "tiny_small"))
    }
