"""Identity on the bundled clip, by the shipped networks, against our own approximate ground truth (tests/data)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streampose.evaluate.mot import measure_tracking, read_result, read_truth

ROOT = Path(__file__).parents[2]


def test_the_ground_truth_is_what_it_says() -> None:
    frames = read_truth(ROOT / "tests/data/cctv_gt.txt")
    assert sorted(frames) == list(range(1, 201))
    assert sum(len(people.ids) for people in frames.values()) == 1357
    assert {who for people in frames.values() for who in people.ids.tolist()} == set(range(1, 10))
    assert max(int(people.counted.sum()) for people in frames.values()) == 9
    assert all((people.boxes >= 0).all() and (people.boxes <= [768, 576, 768, 576]).all() for people in frames.values())


@pytest.mark.slow
@pytest.mark.timeout(580)
def test_people_keep_their_ids(tmp_path: Path) -> None:
    """The whole pipeline as a user starts it; the published YOLOv8n with ByteTrack reaches IDF1 0.81 on such footage."""
    result = tmp_path / "cctv.jsonl"
    command = [sys.executable, "-m", "streampose", "run", "configs/cctv.yaml"]
    command += ["--set", f"sinks=[{{jsonl: {{path: {result}}}}}]"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=560, check=False)
    assert done.returncode == 0, done.stderr
    figures = measure_tracking(read_truth(ROOT / "tests/data/cctv_gt.txt"), read_result(result))
    assert figures.frames == 200
    assert figures.idf1 > 0.86, figures
    assert figures.mota > 0.84, figures
    assert figures.id_switches <= 3, figures
