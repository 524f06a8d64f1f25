"""`streampose annotate` as tests call it, and what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import av
from typer.testing import CliRunner

from streampose.cli.main import app

FAST = ["--set", "detect.size=320"]


def annotate(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["annotate", *arguments, *FAST], catch_exceptions=True)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def frames_of(path: Path) -> list[dict[str, object]]:
    return [record for line in path.read_text().splitlines() if (record := json.loads(line))["type"] == "frame"]


def pictures_of(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))
