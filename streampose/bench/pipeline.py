"""What a frame costs beside the networks, and the whole pipeline against its networks.

Beside the parts alone (`parts.py`, on one core) the whole pipeline runs with networks that answer at once (`constants.py`),
on one core and on all: what the parts do not explain is the cost of threads, channels and messages, and what one core does
not, that of cores that share caches. At last it runs with the real networks, and its time is held against the sum of the
time spent in them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.bench.constants import ConstantBoxes, ConstantHeatmaps, detector_manifest, pose_manifest
from streampose.bench.machine import describe_machine
from streampose.bench.parts import ROUNDS, Clip, time_parts
from streampose.build import first_reading
from streampose.build_models import Models, load_models
from streampose.config import Config
from streampose.detect.detector import Detector
from streampose.errors import StreamposeError, UsageError
from streampose.pose.estimator import PoseEstimator, PoseNetwork
from streampose.runtime.base import Runtime
from streampose.sinks.video_file import VideoFile
from streampose.sources.base import Picture
from streampose.sources.figures import cast_figures
from streampose.sources.open import open_source

AIM_MS = 15.0
SYNTHETIC = "test:people?size={width}x{height}&people={people}&fps={fps}&seconds={seconds}"


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """`video` is a file, or None for figures that are painted and encoded first. `frames` is how many are timed."""

    video: Path | None = None
    people: int = 5
    width: int = 1280
    height: int = 720
    fps: int = 25
    frames: int = 100
    networks: bool = True


def bench_pipeline(options: BenchOptions, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Everything measured, as plain data in milliseconds; raises UsageError for a video that is too short."""
    with TemporaryDirectory(prefix="streampose-bench-") as folder:
        path = options.video or _paint(options, Path(folder) / "figures.mp4", say)
        clip = _read(path, options)
        say("timing each part alone")
        with _one_core():
            parts = time_parts(clip, options.people, Path(folder))
        say("timing the whole pipeline with constant networks")
        whole = run_constant(clip, options, Path(folder))
        result: dict[str, Any] = {
            "machine": describe_machine(),
            "video": "synthetic" if options.video is None else path.name,
            "size": [clip.info.width, clip.info.height],
            "codec": clip.info.codec,
            "people": options.people,
            "frames": clip.count,
            "aim_ms": AIM_MS,
            "parts_ms": {name: round(value, 3) for name, value in parts.items()},
            "parts_sum_ms": round(sum(parts.values()), 3),
            "constant_networks": whole,
        }
        if options.networks:
            say("timing the whole pipeline with the real networks")
            result["real_networks"] = run_real(clip, Path(folder))
    return result


def _paint(options: BenchOptions, path: Path, say: Callable[[str], None]) -> Path:
    """The synthetic figures as an H.264 file."""
    say("painting the synthetic video")
    seconds = options.frames / options.fps
    words = {"width": options.width, "height": options.height, "people": options.people, "fps": options.fps}
    source = open_source(SYNTHETIC.format(seconds=seconds, **words))
    source.open()
    file = VideoFile(path, (options.width, options.height), start_s=0.0, metadata={}, fps=options.fps, threads=0)
    for item in source.frames(lambda: False):
        if isinstance(item, Picture):
            file.add(item.image, item.time_s)
    file.close()
    source.close()
    return path


def _read(path: Path, options: BenchOptions) -> Clip:
    source = open_source(str(path))
    info = source.open()
    source.close()
    clip = Clip(path, info, options.frames, info.nominal_fps or options.fps)
    count = sum(1 for _ in clip.frames())
    if count < 10:
        raise UsageError(f"{path}: only {count} frames; at least 10 are needed to time anything")
    return replace(clip, count=count)


def _config(clip: Clip, folder: Path) -> Config:
    sinks = [{"record": {"path": str(folder / "whole.mp4")}}, {"jsonl": {"path": str(folder / "whole.jsonl")}}]
    return Config.model_validate({"cameras": {"bench": {"url": str(clip.path)}}, "sinks": sinks})


def _run(config: Config, models: Models) -> tuple[float, float, int]:
    """CPU seconds, wall seconds and frames of a whole run; raises what failed it."""
    built = first_reading(config, models)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    built.run.execute(lambda: None)
    spent = time.process_time() - cpu_s, time.perf_counter() - wall_s
    for failure in built.run.failures():
        raise StreamposeError(f"the timed run failed: {failure}") from failure
    return *spent, built.run.cameras["bench"].lane.tally.frames


def run_constant(clip: Clip, options: BenchOptions, folder: Path) -> dict[str, Any]:
    """The whole pipeline with networks that answer at once; the time that these take for it is left out."""
    size = clip.info.width, clip.info.height
    figures = cast_figures(options.people, *size, seed=1)

    def once() -> tuple[float, float, int]:
        boxes = TimedRuntime(ConstantBoxes(figures, clip.fps, size), time.thread_time)
        heatmaps = TimedRuntime(ConstantHeatmaps(), time.thread_time)
        models = Models(
            {1.0: Detector(lambda width, height: boxes, detector_manifest(), threshold=0.1)},
            PoseEstimator(PoseNetwork(heatmaps, pose_manifest())),
        )
        cpu_s, wall_s, frames = _run(_config(clip, folder), models)
        return cpu_s - boxes.spent_s - heatmaps.spent_s, wall_s, frames

    with _one_core():
        alone_s, alone_wall_s, frames = min(once() for _ in range(ROUNDS))
    cpu_s, wall_s, _ = min(once() for _ in range(ROUNDS))
    return {
        "cpu_ms_per_frame": round(1000 * alone_s / frames, 3),
        "wall_ms_per_frame": round(1000 * alone_wall_s / frames, 3),
        "all_cores": {
            "cpu_ms_per_frame": round(1000 * cpu_s / frames, 3),
            "wall_ms_per_frame": round(1000 * wall_s / frames, 3),
        },
        "frames": frames,
    }


@contextmanager
def _one_core() -> Iterator[None]:
    """Threads that are started meanwhile share one core, where the system lets a process say so (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class TimedRuntime:
    """A runtime that keeps the time spent in it, by `clock`."""

    def __init__(self, runtime: Runtime, clock: Callable[[], float] = time.perf_counter) -> None:
        self._runtime, self._clock = runtime, clock
        self.name, self.device, self.precision = runtime.name, runtime.device, runtime.precision
        self.batch_sizes = runtime.batch_sizes
        self.spent_s = 0.0
        self.pictures = 0

    def __call__(self, batch: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """As the runtime does."""
        start_s = self._clock()
        answer = self._runtime(batch)
        self.spent_s += self._clock() - start_s
        self.pictures += len(batch)
        return answer

    def close(self) -> None:
        """As the runtime does."""
        self._runtime.close()


def run_real(clip: Clip, folder: Path) -> dict[str, Any]:
    """The whole pipeline with the networks of the default configuration, compiled and warm before the clock starts."""
    config = _config(clip, folder)
    loaded = load_models(config)
    detector, pose = loaded.detectors[1.0], loaded.pose
    seen = TimedRuntime(detector.warm_up(clip.info.width, clip.info.height))
    posed = TimedRuntime(pose.networks[0].runtime)
    blank = np.zeros((clip.info.height, clip.info.width, 3), np.uint8)
    box = np.array([[100, 100, 200, 300]], np.float32)
    for _ in range(3):
        detector([blank])
        pose([blank], [box])
    models = Models(
        {
            1.0: Detector(
                lambda width, height: seen, detector.manifest, threshold=detector.threshold, size=detector.size
            )
        },
        PoseEstimator(PoseNetwork(posed, pose.manifest, pose.networks[0].refiner)),
    )
    cpu_s, wall_s, frames = _run(config, models)
    networks_s = seen.spent_s + posed.spent_s
    return {
        "detector": {
            "name": detector.manifest.name,
            "precision": seen.precision,
            "ms_per_frame": round(1000 * seen.spent_s / max(seen.pictures, 1), 3),
        },
        "pose": {
            "name": pose.manifest.name,
            "precision": posed.precision,
            "people": posed.pictures,
            "ms_per_person": round(1000 * posed.spent_s / max(posed.pictures, 1), 3),
        },
        "wall_s": round(wall_s, 3),
        "networks_s": round(networks_s, 3),
        "wall_over_networks": round(wall_s / networks_s, 3),
        "cpu_ms_per_frame": round(1000 * cpu_s / frames, 3),
        "frames": frames,
    }
