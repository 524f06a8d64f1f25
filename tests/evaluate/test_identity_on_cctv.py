"""Identity on the bundled clip, by the shipped networks, against our own approximate ground truth (tests/data)."""

from __future__ import annotations

from pathlib import Path

import pytest

from streampose.evaluate.mot import measure_tracking, read_result, read_truth
from tests.conftest import BundledRun

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
def test_people_keep_their_ids(bundled_run: BundledRun) -> None:
    """The published YOLOv8n with ByteTrack reaches IDF1 0.81 on such footage."""
    result = bundled_run.folder / "gate.jsonl"
    figures = measure_tracking(read_truth(ROOT / "tests/data/cctv_gt.txt"), read_result(result))
    assert figures.frames == 200
    assert figures.idf1 > 0.86, figures
    assert figures.mota > 0.84, figures
    assert figures.id_switches <= 3, figures
