"""The whole program on a camera that goes away and comes back; the truth is in the pictures, as a bar code.

    python -m tests.live.truth --seconds 60

Every picture of the camera carries its number and its time, so what the record says of it can be compared with what the
*recorded* video shows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import av

from streampose.sources.barcode import read_code
from tests.live.camera import CameraProcess, missing
from tests.live.proxy import Network
from tests.live.rows import Row, judged, table

ROOT = Path(__file__).parents[2]
FPS = 8
WALL_S = 0.05
SECRET = "p@ss/w%rd:"  # as it is in the URL, which is what users write


@dataclass(frozen=True, slots=True)
class Recorded:
    """A picture of the recorded video: its camera time, and the number and time it shows."""

    time_s: float
    number: int
    shown_s: float


@dataclass(frozen=True, slots=True)
class Truth:
    """What one run wrote and said. `began_s`: the camera's time zero, Unix seconds."""

    lines: list[dict[str, Any]]
    pictures: list[Recorded]
    texts: str
    code: int
    began_s: float
    verified: subprocess.CompletedProcess[str]

    def of_type(self, what: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["type"] == what]

    def off_s(self) -> list[float]:
        """For each frame whose wall time came from the camera: how far it is from the time that its picture shows."""
        return [
            abs(datetime.fromisoformat(frame["wall"]).timestamp() - self.began_s - picture.shown_s)
            for frame, picture in zip(self.of_type("frame"), self.pictures, strict=False)
            if frame["wall_source"] == "rtcp"
        ]

    def mistimed(self) -> int:
        """Frames of the record whose recorded picture has another time."""
        pairs = zip(self.of_type("frame"), self.pictures, strict=False)
        return sum(abs(picture.time_s - frame["time"]) > 2e-3 for frame, picture in pairs)

    def untold(self) -> list[tuple[Recorded, Recorded]]:
        """Where the pictures' own numbers say that more was missed than the ledger does."""
        gaps = self.of_type("gap")
        found = []
        for before, after in itertools.pairwise(self.pictures):
            missed = after.number - before.number - 1
            told_s = sum(max(0.0, min(g["end"], after.time_s) - max(g["start"], before.time_s)) for g in gaps)
            if missed > 4 and told_s < (missed - 1) / FPS:
                found.append((before, after))
        return found

    def rows(self) -> list[Row]:
        frames, off_s = len(self.of_type("frame")), sorted(self.off_s())
        worst = f"worst {off_s[-1] * 1e3:.0f} ms of {len(off_s)} frames" if off_s else "no frame had a report"
        said = "nothing found" if self.verified.returncode == 0 else self.verified.stdout.strip().splitlines()[-1]
        return [
            judged(
                "bar codes: recorded video and record",
                "equal to the frame",
                f"{frames} frames, {len(self.pictures)} pictures, {self.mistimed()} at another time",
                frames == len(self.pictures) and not self.mistimed() and frames > 0,
            ),
            judged(f"bar codes: wall time, after {FPS} fps RTSP", f"within {WALL_S * 1e3:.0f} ms", worst,
                   bool(off_s) and off_s[-1] < WALL_S),
            judged("bar codes: what was missed", "all in the ledger",
                   f"{len(self.untold())} stretches untold, {len(self.of_type('gap'))} gaps", not self.untold()),
            judged("streampose verify", "nothing found", said, self.verified.returncode == 0),
        ]  # fmt: skip


def recorded(folder: Path) -> list[Recorded]:
    found: list[Recorded] = []
    for path in sorted(folder.rglob("*.mp4")):
        with av.open(str(path)) as container:
            start_s = json.loads(container.metadata["comment"])["start_time"]
            for frame in container.decode(video=0):
                code = read_code(frame.to_ndarray(format="bgr24"))
                assert code is not None, f"{path}: the code of picture {len(found)} is not legible"
                found.append(Recorded(start_s + float(frame.pts * frame.time_base), *code))
    return sorted(found, key=lambda picture: picture.time_s)


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


def run(folder: Path, frames: int = 60) -> Truth:
    """Run the program on a camera with an outage of two seconds after 25 frames, until `frames` are in the record."""
    locked = {"user": "viewer", "password": SECRET}
    mount = {"mount": "/gate", "fps": FPS, "width": 320, "height": 240}
    with Network() as network, CameraProcess(locked, mount) as camera:
        proxy = network.proxy(lambda: camera.port)
        config = folder / "config.yaml"
        url = proxy.url("/gate", f"viewer:{SECRET}")
        config.write_text(
            f"cameras:\n  gate: {{url: '{url}'}}\n"
            "detect: {size: 320}\nruntime: torch\n"  # as it needs no compiling; what the networks see is not the matter here
            f"sinks:\n  - record: {{path: '{folder}/{{camera}}.mp4', crf: 18}}\n"
            f"  - jsonl: {{path: '{folder}/{{camera}}.jsonl'}}\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "streampose", "--verbose", "run", str(config)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            wait_for(process, folder, "frame", 25, 150.0)
            proxy.refuse(True)
            time.sleep(2.0)
            proxy.refuse(False)
            wait_for(process, folder, "segment", 2, 10.0)
            wait_for(process, folder, "frame", frames, 60.0 + frames / FPS)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            if process.poll() is None:
                process.kill()
    verified = subprocess.run(
        [sys.executable, "-m", "streampose", "verify", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    written = "".join(f"{path}{path.read_text()}" for path in folder.rglob("*.jsonl"))
    return Truth(lines_of(folder), recorded(folder), out + err + written, process.returncode, camera.began_s, verified)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    wanted = parser.parse_args()
    if why := missing():
        raise SystemExit(why)
    with tempfile.TemporaryDirectory() as folder:
        print(table(run(Path(folder), max(60, round(wanted.seconds * FPS))).rows()))


if __name__ == "__main__":
    main()
