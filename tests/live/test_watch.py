"""The whole program on a camera that goes away and comes back: what the record and the recorded video say of it is true.

Every picture of the camera carries its number and its time, so the truth can be read from the recorded video itself.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import av
import pytest

from streampose.sources.barcode import read_code
from tests.live.camera import CameraProcess
from tests.live.proxy import Network

ROOT = Path(__file__).parents[2]
FPS = 8
WALL_S = 0.05


@dataclass(frozen=True, slots=True)
class Recorded:
    """A picture of the recorded video: its camera time, and the number and time it shows."""

    time_s: float
    number: int
    shown_s: float


def recorded(folder: Path) -> list[Recorded]:
    found: list[Recorded] = []
    for path in sorted(folder.rglob("*.mp4")):
        with av.open(str(path)) as container:
            start_s = json.loads(container.metadata["comment"])["start_time"]
            for frame in container.decode(video=0):
                code = read_code(frame.to_ndarray(format="bgr24"))
                assert code is not None, f"{path}: the code of picture {len(found)} is not legible"
                found.append(Recorded(start_s + float(frame.pts * frame.time_base), *code))
    return found


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.rglob("*.jsonl")) for line in path.read_text().splitlines()]


def wait_for(process: subprocess.Popen[str], folder: Path, what: str, count: int, within_s: float) -> None:
    """Until the record holds `count` lines of the type `what`."""
    until_s = time.monotonic() + within_s
    while sum(path.read_text().count(f'"type":"{what}"') for path in folder.rglob("*.jsonl")) < count:
        assert process.poll() is None, process.communicate()[1]
        if time.monotonic() > until_s:
            process.kill()
            raise AssertionError(f"no {count} lines of {what} in {within_s} s: {process.communicate()[1]}")
        time.sleep(0.05)


@pytest.mark.rtsp
@pytest.mark.slow
def test_record_video_and_truth_agree_over_an_outage(rtsp: None, network: Network, tmp_path: Path) -> None:
    with CameraProcess({"mount": "/gate", "fps": FPS, "width": 320, "height": 240}) as camera:
        proxy = network.proxy(lambda: camera.port)
        config = tmp_path / "config.yaml"
        url = proxy.url("/gate", "viewer:quiet-word")
        config.write_text(
            f"cameras:\n  gate: {{url: '{url}', open_timeout: 3s, backoff: 200ms}}\n"
            "detect: {size: 320}\nruntime: torch\n"  # as it needs no compiling; what the networks see is not the matter here
            f"sinks:\n  - record: {{path: '{tmp_path}/{{camera}}.mp4', crf: 18}}\n"
            f"  - jsonl: {{path: '{tmp_path}/{{camera}}.jsonl'}}\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "streampose", "--verbose", "run", str(config)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for(process, tmp_path, "frame", 25, 150.0)
        proxy.refuse(True)
        time.sleep(2.0)
        proxy.refuse(False)
        wait_for(process, tmp_path, "segment", 2, 10.0)
        wait_for(process, tmp_path, "frame", 60, 60.0)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err

    lines = lines_of(tmp_path)
    frames = [line for line in lines if line["type"] == "frame"]
    footer = lines[-1]
    pictures = recorded(tmp_path)
    assert len(pictures) == len(frames) == footer["written"], "a frame without its picture, or the other way round"
    assert footer["decoded"] == footer["written"] + sum(footer["dropped"].values()) + footer["corrupt"]
    reported = 0
    for frame, picture in zip(frames, pictures, strict=True):
        assert picture.time_s == pytest.approx(frame["time"], abs=2e-3)
        if frame["wall_source"] == "rtcp":
            reported += 1
            wall_s = datetime.fromisoformat(frame["wall"]).timestamp()
            off_s = abs(wall_s - camera.began_s - picture.shown_s)
            assert off_s < WALL_S, f"frame {frame['index']}: {off_s:.3f} s off"
    assert reported > 20
    numbers = [picture.number for picture in pictures]
    assert numbers == sorted(set(numbers)), "a picture twice or out of order"
    segments = {frame["segment"] for frame in frames}
    assert segments == set(range(len(segments)))
    assert len(segments) >= 2

    # What the pictures' numbers say was missed, the ledger says too.
    gaps = [line for line in lines if line["type"] == "gap"]
    assert "disconnected" in {gap["cause"] for gap in gaps}
    for before, after in itertools.pairwise(pictures):
        missed = after.number - before.number - 1
        told_s = sum(max(0.0, min(g["end"], after.time_s) - max(g["start"], before.time_s)) for g in gaps)
        assert missed <= 4 or told_s >= (missed - 1) / FPS, (before, after, missed, told_s)
    for text in (out, err, config.with_name("gate.jsonl").read_text() if (tmp_path / "gate.jsonl").exists() else ""):
        assert "quiet-word" not in text
    checked = subprocess.run(
        [sys.executable, "-m", "streampose", "verify", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
