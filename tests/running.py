"""`streampose run` as a process of its own, and what it has written."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import pytest

from tests.made_models import write_pose_model

ROOT = Path(__file__).parent.parent
LIVE = "test:people?live=1&fps=10&size=320x240&people=2"


@pytest.fixture(scope="module", autouse=True)
def _small_pose_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMALL_POSE", str(write_pose_model(tmp_path_factory.mktemp("pose"))))
        yield


def start(arguments: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "streampose", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,
    )


def call(*arguments: str) -> tuple[int, str, str]:
    process = start(arguments)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def write_config(folder: Path, cameras: dict[str, str], more: str = "") -> Path:
    lines = ["cameras:"]
    lines += [f'  {name}: {{url: "{url}", stall_after: 1s, open_timeout: 2s}}' for name, url in cameras.items()]
    lines += [
        "sinks:",
        f'  - record: {{path: "{folder}/{{camera}}.mp4"}}',
        f'  - jsonl: {{path: "{folder}/{{camera}}.jsonl"}}',
    ]
    path = folder / "config.yaml"
    lines += ["detect: {size: 320}", 'pose: {model: "${SMALL_POSE}"}', more]  # not what they see is tested here
    path.write_text("\n".join(lines) + "\n")
    return path


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def video_times(path: Path) -> list[float]:
    """Seconds of every picture that the video really holds."""
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def wait_for_frames(process: subprocess.Popen[str], path: Path, count: int, timeout_s: float = 120.0) -> None:
    """Until the record holds so many frames: the run is under way."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if path.is_file() and path.read_bytes().count(b'"type":"frame"') >= count:
            return
        if process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}: {process.communicate()[1]}")
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"{path} has no {count} frames after {timeout_s} s: {process.communicate()[1]}")
