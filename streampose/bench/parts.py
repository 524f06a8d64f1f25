"""CPU time of each part of the pipeline that is not a network.

Each part is run alone over the same frames and its CPU time, that of all its threads, is counted by the process clock.
The parts take turns; of five rounds the least of each part counts, since other work on the machine only adds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streampose.bench.constants import ConstantBoxes, ConstantHeatmaps, boxes_at, pose_manifest
from streampose.config import RecordConfig
from streampose.detect import letterbox
from streampose.detect.nms import decode_yolo
from streampose.messages import Array, Frame, Image, Person, PoseResult, SourceInfo
from streampose.pose.crop import crop_affines, cut_crops, invert_affines, map_points
from streampose.pose.decode import decode_heatmaps
from streampose.pose.skeleton import load_skeleton
from streampose.sinks.draw import DrawSkeleton, draw_people
from streampose.sinks.jsonl import JsonlSink
from streampose.sinks.video_file import VideoFile
from streampose.sources.base import Picture
from streampose.sources.figures import cast_figures
from streampose.sources.open import open_source
from streampose.track.options import SmoothOptions
from streampose.track.smoother import Smoother
from streampose.track.tracker import CameraTracker

WARM_UP = 5
ROUNDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """The frames that are timed, and what is known of the video they come from."""

    path: Path
    info: SourceInfo
    frames: list[Frame]
    fps: float


def cpu_ms(work: Callable[[int], object], count: int) -> float:
    """CPU milliseconds of `work(0)` … `work(count - 1)`, a call, over all threads; the first calls warm up, untimed."""
    for index in range(min(WARM_UP, count)):
        work(index)
    start_s = time.process_time()
    for index in range(count):
        work(index)
    return 1000 * (time.process_time() - start_s) / count


def time_parts(clip: Clip, people: int, folder: Path) -> dict[str, float]:
    """CPU milliseconds a frame, part by part."""
    frames, count = clip.frames, len(clip.frames)
    size = clip.info.width, clip.info.height
    figures = cast_figures(people, *size, seed=1)
    skeleton = load_skeleton("coco17")
    network, heatmaps = ConstantBoxes(figures, clip.fps, size), ConstantHeatmaps()
    plan = letterbox.plan(*size, 640)
    raws = [network.raw(index) for index in range(count)]
    found = [decode_yolo(raw, 0.1) for raw in raws]
    boxes = [boxes_at(figures, index / clip.fps) for index in range(count)]
    maps = [heatmaps(np.zeros((people, 1)))[0] for _ in range(count)]
    decoded = [decode_heatmaps(each, pose_manifest().output) for each in maps]

    def crop(index: int) -> None:
        cut_crops(frames[index].image, crop_affines(boxes[index], 192, 256), 192, 256)

    affines = [crop_affines(each, 192, 256) for each in boxes]
    output = pose_manifest().output

    def points(index: int) -> Array:
        placed = decode_heatmaps(maps[index], output)
        placed[..., :2] = map_points(invert_affines(affines[index]), placed[..., :2])
        return placed

    poses = [points(index) for index in range(count)]
    in_picture = [(plan.to_picture(each), scores) for each, scores in found]
    _, results = _follow(frames, in_picture, decoded, skeleton.sigmas)
    drawing = DrawSkeleton(skeleton.sides, skeleton.edges)
    drawn = [draw_people(frame.image, who, drawing) for frame, who in results]
    canvas = drawn[0].copy()
    work: dict[str, Callable[[], float]] = {
        "decode": lambda: _read_ms(clip),
        "conversion": lambda: _convert_ms(clip),
        "detector input": lambda: cpu_ms(lambda i: letterbox.apply(frames[i].image, plan), count),
        "detector output": lambda: cpu_ms(lambda i: plan.to_picture(decode_yolo(raws[i], 0.1)[0]), count),
        "crops": lambda: cpu_ms(crop, count),
        "heatmaps to key points": lambda: cpu_ms(points, count),
        "tracking": lambda: _follow(frames, in_picture, decoded, skeleton.sigmas)[0],
        "smoothing": lambda: _smooth_ms(frames, boxes, poses, skeleton.sigmas),
        "drawing": lambda: cpu_ms(lambda i: draw_people(frames[i].image, results[i][1], drawing, None, canvas), count),
        "H.264": lambda: _encode_ms(drawn, clip, folder / "parts.mp4"),
        "JSONL": lambda: _jsonl_ms(results, clip, folder / "parts.jsonl"),
    }
    parts = dict.fromkeys(work, float("inf"))
    for _ in range(ROUNDS):
        for name, measure in work.items():
            parts[name] = min(parts[name], measure())
    parts["decode"] = max(parts["decode"] - parts["conversion"], 0.0)
    parts["tracking"] = max(parts["tracking"] - parts["smoothing"], 0.0)
    return parts


def _read_ms(clip: Clip) -> float:
    """CPU milliseconds a frame of reading a video, conversion to BGR included."""
    source = open_source(str(clip.path))
    start_s = time.process_time()
    source.open()
    count = sum(isinstance(item, Picture) for item in islice(source.frames(lambda: False), len(clip.frames)))
    spent_s = time.process_time() - start_s
    source.close()
    return 1000 * spent_s / count


def _convert_ms(clip: Clip) -> float:
    """CPU milliseconds a frame of the conversion to BGR."""
    import av

    with av.open(str(clip.path)) as container:
        decoded = list(islice(container.decode(video=0), 10))
    reformatter = av.video.reformatter.VideoReformatter()
    return cpu_ms(
        lambda i: reformatter.reformat(decoded[i % len(decoded)], format="bgr24").to_ndarray(), len(clip.frames)
    )


def _follow(
    frames: Sequence[Frame],
    found: Sequence[tuple[Array, Array]],
    decoded: Sequence[Array],
    sigmas: npt.NDArray[np.float32],
) -> tuple[float, list[tuple[Frame, tuple[Person, ...]]]]:
    """CPU milliseconds a frame of following and smoothing everybody through all frames, and who was found.

    `decoded` are key points in crop pixels, one pose after the other for the boxes that the tracker proposes.
    """
    tracker = CameraTracker(sigmas)
    results: list[tuple[Frame, tuple[Person, ...]]] = []
    spent_s = 0.0
    for frame, (boxes, scores), pose in zip(frames, found, decoded, strict=True):
        start_s = time.thread_time()
        proposal = tracker.propose(frame.time_s, boxes, scores, frame.width, frame.height)
        spent_s += time.thread_time() - start_s
        wanted = np.resize(pose, (len(proposal.boxes), *pose.shape[1:]))
        back = invert_affines(crop_affines(proposal.boxes, 192, 256))
        wanted[..., :2] = map_points(back, wanted[..., :2])
        start_s = time.thread_time()
        people = tracker.update(proposal, wanted, frame.image)
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
    file = VideoFile(
        path,
        (clip.info.width, clip.info.height),
        start_s=0.0,
        metadata={},
        fps=clip.fps,
        preset=RecordConfig().preset,
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
