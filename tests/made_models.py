"""Small models made from a seed, as real files: weights with their manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from streampose.models.manifest import InputSpec, Manifest, OutputSpec, save, sha256_of
from streampose.pose.network import build_pose_network

INPUT = InputSpec(width=64, height=96, mean=(120.0, 110.0, 100.0), std=(60.0, 50.0, 40.0))


def seeded_pose_network(preset: str = "litehrnet_tiny", joints: int = 17, seed: int = 0) -> Any:
    """A pose network with random weights and lively batch norms, in eval mode."""
    torch.manual_seed(seed)
    network = build_pose_network({"network": preset, "joints": joints})
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, 0, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


def write_pose_model(
    folder: Path, name: str = "tiny", preset: str = "litehrnet_tiny", spec: InputSpec = INPUT, seed: int = 0
) -> Path:
    """Weights and manifest of a small pose model in `folder`; the manifest's path."""
    weights = folder / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(seeded_pose_network(preset, seed=seed).state_dict(), weights)
    manifest = Manifest(
        name=name,
        task="pose",
        architecture={"network": preset, "joints": 17},
        weights=weights.name,
        sha256=sha256_of(weights),
        input=spec,
        output=OutputSpec(kind="heatmap", blur=5),
        licence="none: made by a test",
    )
    path = folder / f"{name}.yaml"
    save(manifest, path)
    return path


def write_detector(folder: Path, name: str = "tiny_detector", config: str = "yolov8n.yaml", kind: str = "yolo") -> Path:
    """A network of ultralytics' `config` for one class with random weights, and its manifest; the manifest's path."""
    from streampose.detect.network import bare_model

    torch.manual_seed(3)
    folder.mkdir(parents=True, exist_ok=True)
    architecture = {"builder": "ultralytics", "config": config, "tower_classes": 1}
    weights = folder / f"{name}.safetensors"
    save_file(bare_model(architecture).state_dict(), weights)
    manifest = Manifest(
        name=name,
        task="detect",
        architecture=architecture,
        weights=weights.name,
        sha256=sha256_of(weights),
        input=InputSpec(width=128, height=128),
        output=OutputSpec(kind=kind),
        licence="none: made by a test",
    )
    path = folder / f"{name}.yaml"
    save(manifest, path)
    return path


def write_ultralytics(path: Path) -> Path:
    """A YOLOv8n for one class as ultralytics saves it."""
    from streampose.detect.quiet import silence_ultralytics

    silence_ultralytics()
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel("yolov8n.yaml", nc=1, verbose=False)
    model.names = {0: "person"}
    torch.save({"model": model.half(), "ema": None, "train_args": {}}, path)
    return path
