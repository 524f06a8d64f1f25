"""What several tests share: a short real clip, pictures out of it, and what the product makes of the bundled clip."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two seconds of the bundled clip: 20 frames, people in all of them."""
    path = tmp_path_factory.mktemp("clip") / "short.mp4"
    with av.open(str(ROOT / "samples" / "cctv.mp4")) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copied = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.pts is None or packet.dts is None or packet.pts * packet.time_base >= 2:
                continue
            packet.stream = copied
            target.mux(packet)
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory, short_clip: Path) -> Path:
    """Three frames of the clip as pictures of different kinds, and one file that is none."""
    folder = tmp_path_factory.mktemp("pictures") / "yard"
    folder.mkdir()
    with av.open(str(short_clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in (0, 8, 16):
                name = {0: "one.jpg", 8: "two.PNG", 16: "ten.webp"}[index]
                assert cv2.imwrite(str(folder / name), frame.to_ndarray(format="bgr24"))
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder


@dataclass(frozen=True)
class BundledRun:
    """What `streampose run configs/cctv.yaml` left in `folder` (gate.mp4, gate.jsonl) and said on standard output."""

    folder: Path
    said: str


@pytest.fixture(scope="session")
def bundled_run(tmp_path_factory: pytest.TempPathFactory) -> BundledRun:
    """The bundled clip through the whole pipeline, as a user starts it; a minute where the networks are slow."""
    folder = tmp_path_factory.mktemp("bundled")
    command = [sys.executable, "-m", "streampose", "run", "configs/cctv.yaml"]
    for sink, ending in (("record", "mp4"), ("jsonl", "jsonl")):
        command += ["--set", f"sinks.{sink}.path={folder}/{{camera}}.{ending}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=560, check=False)
    assert done.returncode == 0, done.stderr
    return BundledRun(folder, done.stdout)
