"""What a frame costs beside the networks: CPU time part by part, and the whole pipeline against its networks.

Each part is run alone over the same frames and its CPU time, that of all its threads, is counted by the process clock;
then the whole pipeline runs with networks that answer at once (`constants.py`), and what the parts do not explain is the
cost of threads, channels and messages. At last the pipeline runs with the real networks, and its time is held against
the sum of the time spent in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.bench.constants import ConstantBoxes, ConstantHeatmaps, boxes_at, detector_manifest, pose_manifest
from streampose.bench.machine import describe_machine
from streampose.build import first_reading
from streampose.build_models import Models, load_models
from streampose.config import Config
from streampose.detect import letterbox
from streampose.detect.detector import Detector
from streampose.detect.nms import decode_yolo
from streampose.errors import StreamposeError, UsageError
from streampose.messages import Array, Frame, Image, Person, PoseResult, SourceInfo
from streampose.pose.crop import crop_affines, cut_crops, invert_affines, map_points
from streampose.pose.decode import decode_heatmaps
from streampose.pose.estimator import PoseEstimator, PoseNetwork
from streampose.pose.skeleton import load_skeleton
from streampose.runtime.base import Runtime
from streampose.sinks.draw import DrawSkeleton, draw_people
from streampose.sinks.jsonl import JsonlSink
from streampose.sinks.video_file import VideoFile
from streampose.sources.base import Picture
from streampose.sources.figures import cast_figures
from streampose.sources.open import open_source
from streampose.track.options import SmoothOptions
from streampose.track.smoother import Smoother
from streampose.track.tracker import CameraTracker

AIM_MS = 15.0
WARM_UP = 5
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


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """The frames that are timed, and what is known of the video they come from."""

    path: Path
    info: SourceInfo
    frames: list[Frame]
    fps: float


def bench_pipeline(options: BenchOptions, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Everything measured, as plain data in milliseconds; raises UsageError for a video that is too short."""
    with TemporaryDirectory(prefix="streampose-bench-") as folder:
        path = options.video or _paint(options, Path(folder) / "figures.mp4", say)
        clip = _read(path, options)
        say("timing each part alone")
        parts = time_parts(clip, options, Path(folder))
        say("timing the whole pipeline with constant networks")
        whole = run_constant(clip, options, Path(folder))
        result: dict[str, Any] = {
            "machine": describe_machine(),
            "video": "synthetic" if options.video is None else path.name,
            "size": [clip.info.width, clip.info.height],
            "codec": clip.info.codec,
            "people": options.people,
            "frames": len(clip.frames),
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
    seconds = (options.frames + WARM_UP) / options.fps
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
    pictures = [item for item in islice(source.frames(lambda: False), options.frames) if isinstance(item, Picture)]
    source.close()
    if len(pictures) < 10:
        raise UsageError(f"{path}: only {len(pictures)} frames; at least 10 are needed to time anything")
    return Clip(path, info, [_frame(index, p) for index, p in enumerate(pictures)], info.nominal_fps or options.fps)


def _frame(index: int, picture: Picture) -> Frame:
    return Frame(
        camera="bench",
        index=index,
        segment=0,
        pts=picture.pts,
        time_base=picture.time_base,
        pts_s=picture.time_s,
        time_s=picture.time_s,
        wall_s=None,
        wall_source="none",
        arrival_s=picture.arrival_s,
        image=picture.image,
    )


def cpu_ms(work: Callable[[int], object], count: int) -> float:
    """CPU milliseconds of `work(0)` … `work(count - 1)`, a call, over all threads; the first calls warm up, untimed."""
    for index in range(min(WARM_UP, count)):
        work(index)
    start_s = time.process_time()
    for index in range(count):
        work(index)
    return 1000 * (time.process_time() - start_s) / count


def time_parts(clip: Clip, options: BenchOptions, folder: Path) -> dict[str, float]:
    """CPU milliseconds a frame, part by part."""
    frames, count = clip.frames, len(clip.frames)
    size = clip.info.width, clip.info.height
    figures = cast_figures(options.people, *size, seed=1)
    skeleton = load_skeleton("coco17")
    network, heatmaps = ConstantBoxes(figures, clip.fps, size), ConstantHeatmaps()
    plan = letterbox.plan(*size, 640)
    raws = [network.raw(index) for index in range(count)]
    found = [decode_yolo(raw, 0.1) for raw in raws]
    boxes = [boxes_at(figures, index / clip.fps) for index in range(count)]
    people_maps = (
        heatmaps(np.zeros((options.people, 1)))[0] if options.people else np.zeros((0, 17, 64, 48), np.float32)
    )
    conversion, decode = _decode_ms(clip)

    def crop(index: int) -> None:
        cut_crops(frames[index].image, crop_affines(boxes[index], 192, 256), 192, 256)

    def points(index: int) -> Array:
        placed = decode_heatmaps(people_maps, pose_manifest().output)
        placed[..., :2] = map_points(invert_affines(crop_affines(boxes[index], 192, 256)), placed[..., :2])
        return placed

    poses = [points(index) for index in range(count)]
    in_picture = [(plan.to_picture(each), scores) for each, scores in found]
    followed, results = _follow(frames, in_picture, poses, skeleton.sigmas)
    smoothing = _smooth_ms(frames, boxes, poses, skeleton.sigmas)
    drawing = DrawSkeleton(skeleton.sides, skeleton.edges)
    return {
        "decode": decode,
        "conversion": conversion,
        "detector input": cpu_ms(lambda i: letterbox.apply(frames[i].image, plan), count),
        "detector output": cpu_ms(lambda i: plan.to_picture(decode_yolo(raws[i], 0.1)[0]), count),
        "crops": cpu_ms(crop, count),
        "heatmaps to key points": cpu_ms(points, count),
        "tracking": max(followed - smoothing, 0.0),
        "smoothing": smoothing,
        "drawing": cpu_ms(lambda i: draw_people(frames[i].image, results[i][1], drawing), count),
        "H.264": _encode_ms([draw_people(f.image, who, drawing) for f, who in results], clip, folder / "parts.mp4"),
        "JSONL": _jsonl_ms(results, clip, folder / "parts.jsonl"),
    }


def _decode_ms(clip: Clip) -> tuple[float, float]:
    """CPU milliseconds a frame of the conversion to BGR, and of the rest of reading a video."""
    import av

    with av.open(str(clip.path)) as container:
        decoded = list(islice(container.decode(video=0), 10))
    reformatter = av.video.reformatter.VideoReformatter()
    conversion = cpu_ms(
        lambda i: reformatter.reformat(decoded[i % len(decoded)], format="bgr24").to_ndarray(), len(clip.frames)
    )
    source = open_source(str(clip.path))
    start_s = time.process_time()
    source.open()
    count = sum(isinstance(item, Picture) for item in islice(source.frames(lambda: False), len(clip.frames)))
    total = 1000 * (time.process_time() - start_s) / count
    source.close()
    return conversion, max(total - conversion, 0.0)


def _follow(
    frames: Sequence[Frame],
    found: Sequence[tuple[Array, Array]],
    poses: Sequence[Array],
    sigmas: npt.NDArray[np.float32],
) -> tuple[float, list[tuple[Frame, tuple[Person, ...]]]]:
    """CPU milliseconds a frame of following and smoothing everybody through all frames, and who was found."""
    tracker = CameraTracker(sigmas)
    results: list[tuple[Frame, tuple[Person, ...]]] = []
    spent_s = 0.0
    for frame, (boxes, scores), pose in zip(frames, found, poses, strict=True):
        start_s = time.thread_time()
        proposal = tracker.propose(frame.time_s, boxes, scores, frame.width, frame.height)
        wanted = np.resize(pose, (len(proposal.boxes), *pose.shape[1:])) if len(pose) else pose
        people = tracker.update(proposal, wanted)
        spent_s += time.thread_time() - start_s
        results.append((frame, people))
    return 1000 * spent_s / len(frames), results


def _smooth_ms(
    frames: Sequence[Frame], boxes: Sequence[Array], poses: Sequence[Array], sigmas: npt.NDArray[np.float32]
) -> float:
    """CPU milliseconds a frame of the filter alone, for as many people as there are boxes."""
    count = len(boxes[0])
    smoother = Smoother(np.asarray(sigmas, np.float64), SmoothOptions())
    smoother.add(count)
    rows, still = np.arange(count), np.zeros((count, 2))

    def step(index: int) -> None:
        sizes = (boxes[index][:, 3] - boxes[index][:, 1]).astype(np.float64)
        smoother.predict(0.04, sizes, still)
        smoother.update(rows, poses[index].astype(np.float64), sizes, still)
        smoother.trust()
        smoother.std()

    return cpu_ms(step, len(frames))


def _encode_ms(drawn: Sequence[Image], clip: Clip, path: Path) -> float:
    preset = Config.model_validate({"cameras": {"bench": {"url": str(clip.path)}}, "sinks": [{"record": {}}]}).sinks[0][
        1
    ]
    file = VideoFile(
        path,
        (clip.info.width, clip.info.height),
        start_s=0.0,
        metadata={},
        fps=clip.fps,
        preset=preset.model_dump()["preset"],
    )
    start_s = time.process_time()
    for index in range(len(clip.frames)):
        file.add(drawn[index], index / clip.fps)
    file.close()
    return 1000 * (time.process_time() - start_s) / len(clip.frames)


def _jsonl_ms(results: Sequence[tuple[Frame, tuple[Person, ...]]], clip: Clip, path: Path) -> float:
    sink = JsonlSink(path, "bench", {"source": clip.info.url})
    value = cpu_ms(lambda i: sink.write(PoseResult(*results[i])), len(results))
    sink.close()
    return value


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
    """The whole pipeline with networks that answer at once."""
    size = clip.info.width, clip.info.height
    network = ConstantBoxes(cast_figures(options.people, *size, seed=1), clip.fps, size)
    models = Models(
        {1.0: Detector(lambda width, height: network, detector_manifest(), threshold=0.1)},
        PoseEstimator(PoseNetwork(ConstantHeatmaps(), pose_manifest())),
    )
    cpu_s, wall_s, frames = _run(_config(clip, folder), models)
    return {
        "cpu_ms_per_frame": round(1000 * cpu_s / frames, 3),
        "wall_ms_per_frame": round(1000 * wall_s / frames, 3),
        "frames": frames,
    }


class TimedRuntime:
    """A runtime that keeps the wall time spent in it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.name, self.device, self.precision = runtime.name, runtime.device, runtime.precision
        self.batch_sizes = runtime.batch_sizes
        self.spent_s = 0.0
        self.pictures = 0

    def __call__(self, batch: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """As the runtime does."""
        start_s = time.perf_counter()
        answer = self._runtime(batch)
        self.spent_s += time.perf_counter() - start_s
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
        PoseEstimator(PoseNetwork(posed, pose.manifest)),
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
