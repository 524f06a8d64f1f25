"""Ultralytics leaves no trace: no settings file in the home, no torchvision, nothing left in the temporary folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import torch
from streampose.detect.network import PeopleNetwork, bare_model
network = PeopleNetwork(bare_model({"builder": "ultralytics", "config": "yolov8n.yaml", "tower_classes": 80})).eval()
with torch.inference_mode():
    network(torch.zeros(1, 3, 64, 64))
import streampose.train.detector
from streampose.train.detector_loss import DetectorLoss
DetectorLoss(network.model)
assert not [name for name in sys.modules if name.split(".")[0] == "torchvision"]
"""


def test_no_settings_no_torchvision_no_words(tmp_path: Path) -> None:
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("YOLO_", "XDG_"))}
    env = kept | {"HOME": str(home), "TMPDIR": str(scratch), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not list(home.rglob("*.json"))
    assert not list(home.rglob("*ltralytics*"))
    assert not [path for path in scratch.iterdir() if path.name.startswith("streampose-")]
