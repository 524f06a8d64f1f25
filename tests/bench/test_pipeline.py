"""The pipeline benchmark: its constant networks are read right by the product's own code, and its account adds up."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from streampose.bench.constants import (
    STANDING,
    ConstantBoxes,
    ConstantHeatmaps,
    boxes_at,
    detector_manifest,
    pose_manifest,
)
from streampose.bench.parts import LapClock
from streampose.bench.pipeline import BenchOptions, bench_pipeline
from streampose.detect.detector import Detector
from streampose.errors import UsageError
from streampose.pose.estimator import PoseEstimator, PoseNetwork
from streampose.sources.figures import cast_figures
from streampose.track.association import iou

SIZE = (640, 360)
PARTS = {
    "decode", "conversion", "detector input", "detector output", "crops", "heatmaps to key points", "tracking",
    "smoothing", "drawing", "H.264", "JSONL",
}  # fmt: skip


def test_constant_boxes_are_found_where_the_figures_are() -> None:
    figures = cast_figures(3, *SIZE, seed=1)
    network = ConstantBoxes(figures, 25, SIZE)
    detector = Detector(lambda width, height: network, detector_manifest(), threshold=0.2)
    blank = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for index in (0, 1, 2):
        ((boxes, scores),) = detector([blank])
        overlap = iou(boxes_at(figures, index / 25), boxes)
        assert (overlap.max(axis=1) > 0.8).all()
        assert len(boxes) <= 2 * len(figures)
        assert scores[0] == pytest.approx(0.9, abs=1e-6)


def test_constant_heatmaps_are_a_person_who_fills_the_box() -> None:
    estimator = PoseEstimator(PoseNetwork(ConstantHeatmaps(), pose_manifest()))
    image = np.zeros((360, 640, 3), np.uint8)
    box = np.array([[100, 50, 190, 170]], np.float32)  # at the crop's aspect, 3:4, so that the crop is 1.25 of it
    (points,) = estimator([image], [box])
    expected = box[0, :2] + np.array(STANDING) * (box[0, 2:] - box[0, :2])
    assert np.abs(points[0, :, :2] - expected).max() < 6
    assert (points[0, :, 2] > 0.9).all()


def test_a_lap_goes_to_the_part_that_ended_and_what_is_skipped_to_none() -> None:
    def work() -> float:
        began_s = time.process_time()
        while time.process_time() - began_s < 0.02:
            pass
        return time.process_time() - began_s

    began_s = time.process_time()
    clock = LapClock()
    first_s, _, second_s, third_s = work(), clock.lap("one"), work(), work()
    clock.skip()
    last_s, _ = work(), clock.lap("one")
    whole_s = time.process_time() - began_s
    assert set(clock.spent_s) == {"one"}
    assert first_s + last_s <= clock.spent_s["one"] <= whole_s - second_s - third_s


def test_the_account_adds_up() -> None:
    cores = os.sched_getaffinity(0)
    found = bench_pipeline(BenchOptions(people=2, width=SIZE[0], height=SIZE[1], frames=20, networks=False))
    assert set(found["parts_ms"]) == PARTS
    assert all(value >= 0 for value in found["parts_ms"].values())
    assert found["parts_sum_ms"] == pytest.approx(sum(found["parts_ms"].values()), abs=0.01)
    whole = found["constant_networks"]
    assert whole["frames"] >= found["frames"] == 20
    assert whole["cpu_ms_per_frame"] > 0
    assert whole["all_cores"]["cpu_ms_per_frame"] > 0
    assert os.sched_getaffinity(0) == cores
    assert found["size"] == list(SIZE)
    assert found["machine"]["cpu"]
    json.dumps(found, allow_nan=False)


def test_a_video_that_is_too_short(short_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 10"):
        bench_pipeline(BenchOptions(video=short_clip, frames=5, networks=False))


def test_a_video_whose_name_reads_as_a_protocol(
    short_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(short_clip, "12:30.mp4")
    found = bench_pipeline(BenchOptions(people=1, video=Path("12:30.mp4"), frames=10, networks=False))
    assert found["frames"] == 10
