"""A second start of the bundled models: light, without a network, and with nothing written where nobody asked for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

PROGRAM = """
import socket, sys

def refuse(*args, **options):
    raise AssertionError(f"asked the network for {args}")

socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refuse
from streampose.cli.main import main
try:
    main()
finally:
    heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "ultralytics", "onnx", "nncf"})
    print("loaded:", heavy)
"""
Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("second")


@pytest.fixture(scope="module")
def start(folder: Path) -> Start:
    """`streampose ARGUMENTS` with a home and a cache of its own, after a first start that filled the cache."""
    (folder / "home").mkdir()
    (folder / "gate.yaml").write_text(
        'cameras: {gate: {url: "test:people?fps=5&seconds=1"}}\n'
        f'sinks: [{{jsonl: {{path: "{folder}/gate.jsonl"}}}}]\ndevice: cpu\n'
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL", "YOLO"))}
    environment = {**kept, "HOME": str(folder / "home"), "STREAMPOSE_CACHE": str(folder / "cache")}

    def started(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )

    first = started("run", "gate.yaml")
    assert first.returncode == 0, first.stderr
    return started


@pytest.mark.slow
def test_a_second_run_imports_no_framework_asks_no_network_and_writes_no_home(folder: Path, start: Start) -> None:
    second = start("run", "gate.yaml")
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines()[-1] == "loaded: []"
    assert list((folder / "home").rglob("*")) == []
    lines = [json.loads(line) for line in (folder / "gate.jsonl").read_text().splitlines()]
    assert sum(line["type"] == "frame" for line in lines) == 5


@pytest.mark.slow
def test_nor_does_annotating_a_picture(folder: Path, start: Start) -> None:
    PIL.Image.fromarray(np.full((720, 1280, 3), 90, np.uint8)).save(folder / "one.png")
    second = start("annotate", "one.png", "--out", "out", "--set", "device=cpu")
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines()[-1] == "loaded: []"
    assert list((folder / "home").rglob("*")) == []
    assert sorted(path.name for path in (folder / "out").iterdir())
