"""A detector's recipe and set of pictures that train in seconds, and a kill at any step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streampose.train.detector_config import Recipe


def make_set(folder: Path, pictures: int = 6) -> None:
    """White people on dark ground, as files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    images, people = [], []
    for number in range(pictures):
        image = rng.integers(0, 60, (96, 96, 3)).astype(np.uint8)
        x, y = (int(v) for v in rng.integers(5, 40, 2))
        image[y : y + 48, x : x + 24] = 230
        cv2.imwrite(str(folder / f"{number}.png"), image)
        images.append({"id": number, "file_name": f"{number}.png", "width": 96, "height": 96, "split": "val2017"})
        people.append({"id": number, "image_id": number, "iscrowd": 0, "bbox": [x, y, 24, 48]})
    (folder / "annotations.json").write_text(json.dumps({"images": images, "annotations": people}))


def recipe(tmp_path: Path, **changes: Any) -> Recipe:
    values = {
        "name": "tiny", "out": str(tmp_path / "run"),
        "data": {"root": str(tmp_path), "sets": ["set"], "held_out": 2, "held_out_share": 0.5},
        "architecture": {"builder": "ultralytics", "config": "yolov8n.yaml", "tower_classes": 1},
        "augment": {"long_side": 96, "scale": [1, 1], "mosaic": 0, "colour": 0, "camera": 0, "grey": 0},
        "canvases": [[96, 96]], "steps": 4, "batch": 2, "lr": 1e-3, "warmup_steps": 2, "size": 96, "ema": 0.5,
        "evaluate_every": 100, "checkpoint_every": 2, "workers": 0, "device": "cpu",
        "precision": "float32", "freeze_batch_norm": False,
    }  # fmt: skip
    return Recipe.model_validate(values | changes)


def quiet(*_: Any) -> None:
    """Nobody listens."""


class Killed(Exception):
    """What a kill -9 leaves, at that very place."""


def kill_at(last: int) -> Callable[[int, dict[str, float]], None]:
    def kill(step: int, _: dict[str, float]) -> None:
        if step == last:
            raise Killed

    return kill
