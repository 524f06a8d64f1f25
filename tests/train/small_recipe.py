"""A recipe that trains a tiny network on stick people in seconds."""

from pathlib import Path
from typing import Any

from streampose.train.pose_config import PoseRecipe


def recipe_for(folder: Path, **changes: Any) -> PoseRecipe:
    values: dict[str, Any] = {
        "out": folder / "run",
        "network": "litehrnet_tiny",
        "skeleton": "limbs6",
        "input": {"width": 64, "height": 64, "mean": [110, 110, 110], "std": [60, 60, 60]},
        "output": {"kind": "heatmap", "decode": "dark", "blur": 5},
        "data": [folder / "set"],
        "holdout": {"images": 0, "heights": []},
        "samples": 320,
        "batch": 16,
        "lr": 5e-3,
        "warmup_samples": 64,
        "ema": 0.9,
        "precision": "fp32",
        "layout": "channels_first",
        "device": "cpu",
        "measure_samples": 10**6,
        "measure_trained": True,
        "loss": {"sigma": 1.0},
        "augment": {"rotate": 0, "scale": [0.95, 1.05], "half_body": 0, "camera": 0, "occlude": 0, "colour": 0},
    }
    return PoseRecipe.model_validate(values | changes)


def quiet(_: str) -> None:
    return
