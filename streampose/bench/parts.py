"""CPU time of each part of the pipeline that is not a network.

Every frame goes through all parts in the pipeline's order, in one thread, so that each part finds its data as warm as it is
there; the process clock, which counts all threads, is read between them. Of five passes the least of each part counts,
since other work on the machine only adds.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streampose.bench.constants import ConstantBoxes, ConstantHeatmaps, boxes_at, pose_manifest
from streampose.detect import letterbox
from streampose.detect.yolo import decode_yolo
from streampose.libav_name import libav_name
from streampose.messages import Frame, Image, PoseResult, SourceInfo
from streampose.pose.crop import crop_affines, cut_crops, invert_affines, map_points
from streampose.pose.decode import decode_heatmaps
from streampose.pose.skeleton import Skeleton, load_skeleton
from streampose.sinks.draw import DrawSkeleton, draw_people
from streampose.sinks.jsonl import JsonlSink
from streampose.sinks.record import RecordConfig
from streampose.sinks.video_file import VideoFile
from streampose.sources.base import Picture
from streampose.sources.figures import cast_figures
from streampose.sources.open import open_source
from streampose.track.options import SmoothOptions
from streampose.track.smoother import Smoother
from streampose.track.tracker import CameraTracker

ROUNDS = 5
WIDTH, HEIGHT = 192, 256  # of a crop


@dataclass(frozen=True, slots=True)
class Clip:
    """The video whose first `count` frames are timed, and what is known of it."""

    path: Path
    info: SourceInfo
    count: int
    fps: float

    def frames(self) -> Iterator[Frame]:
        """The frames, decoded anew; each may be painted over."""
        source = open_source(str(self.path))
        source.open()
        pictures = (item for item in source.frames(lambda: False) if isinstance(item, Picture))
        for index, picture in enumerate(islice(pictures, self.count)):
            yield Frame(
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
        source.close()


class LapClock:
    """CPU seconds by part: what the process has spent since the clock was read last goes to the part that is named."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = defaultdict(float)
        self._last_s = time.process_time()

    def lap(self, part: str) -> None:
        """`part` has just ended."""
        now_s = time.process_time()
        self.spent_s[part] += now_s - self._last_s
        self._last_s = now_s

    def skip(self) -> None:
        """What was done since is none of the parts."""
        self._last_s = time.process_time()


def time_parts(clip: Clip, people: int, folder: Path) -> dict[str, float]:
    """CPU milliseconds a frame, part by part."""
    skeleton = load_skeleton("coco17")
    parts: dict[str, float] = {}
    for _ in range(ROUNDS):
        laps = _pass(clip, people, skeleton, folder)
        laps |= {"conversion": _convert_s(clip), "smoothing": _smooth_s(clip, people, skeleton)}
        for name, spent_s in laps.items():
            parts[name] = min(parts.get(name, float("inf")), 1000 * spent_s / clip.count)
    parts["decode"] = max(parts["decode"] - parts["conversion"], 0.0)
    parts["tracking"] = max(parts["tracking"] - parts["smoothing"], 0.0)
    return parts


def _pass(clip: Clip, people: int, skeleton: Skeleton, folder: Path) -> dict[str, float]:
    """CPU seconds by part of all frames; conversion is in "decode", smoothing in "tracking"."""
    size = clip.info.width, clip.info.height
    figures = cast_figures(people, *size, seed=1)
    network, heatmaps, output = ConstantBoxes(figures, clip.fps, size), ConstantHeatmaps(), pose_manifest().output
    plan = letterbox.plan(*size, 640)
    tracker, drawing = CameraTracker(skeleton.sigmas, body=skeleton.body), DrawSkeleton(skeleton.sides, skeleton.edges)
    canvas: Image = np.empty((size[1], size[0], 3), np.uint8)
    preset = RecordConfig().preset
    video = VideoFile(folder / "parts.mp4", size, start_s=0.0, metadata={}, fps=clip.fps, preset=preset)
    record = JsonlSink(folder / "parts.jsonl", "bench", {"source": clip.info.url})
    clock = LapClock()
    for frame in clip.frames():
        clock.lap("decode")
        letterbox.apply(frame.image, plan)
        clock.lap("detector input")
        raw = network.raw(frame.index)
        clock.skip()
        boxes, scores = decode_yolo(raw, 0.1)
        boxes = plan.to_picture(boxes)
        clock.lap("detector output")
        proposal = tracker.propose(frame.time_s, boxes, scores, *size)
        clock.lap("tracking")
        affines = crop_affines(proposal.boxes, WIDTH, HEIGHT)
        crops = cut_crops(frame.image, affines, WIDTH, HEIGHT)
        clock.lap("crops")
        (maps,) = heatmaps(crops)
        clock.skip()
        poses = decode_heatmaps(maps, output)
        poses[..., :2] = map_points(invert_affines(affines), poses[..., :2])
        clock.lap("heatmaps to key points")
        result = PoseResult(frame, tracker.update(proposal, poses, frame.image))
        clock.lap("tracking")
        canvas = draw_people(frame.image, result.people, drawing, None, canvas)
        clock.lap("drawing")
        video.add(canvas, frame.time_s)
        clock.lap("H.264")
        record.write(result)
        clock.lap("JSONL")
    clock.lap("decode")
    video.close()
    clock.lap("H.264")
    record.close()
    clock.lap("JSONL")
    return clock.spent_s


def _convert_s(clip: Clip) -> float:
    """CPU seconds of the conversion of all frames to BGR."""
    import av

    reformatter = av.video.reformatter.VideoReformatter()
    clock = LapClock()
    with av.open(libav_name(clip.path)) as container:
        for decoded in islice(container.decode(video=0), clip.count):
            clock.skip()
            reformatter.reformat(decoded, format="bgr24").to_ndarray()
            clock.lap("conversion")
    return clock.spent_s["conversion"]


def _smooth_s(clip: Clip, people: int, skeleton: Skeleton) -> float:
    """CPU seconds of the filter alone, for so many people in all frames."""
    figures = cast_figures(people, clip.info.width, clip.info.height, seed=1)
    smoother = Smoother(np.asarray(skeleton.sigmas, np.float64), SmoothOptions())
    smoother.add(people)
    rows, still = np.arange(people), np.zeros((people, 2))
    poses: npt.NDArray[np.float64] = np.zeros((people, len(skeleton.sigmas), 3))
    noise = np.random.default_rng(3)
    clock = LapClock()
    for index in range(clip.count):
        boxes = boxes_at(figures, index / clip.fps).astype(np.float64)
        sizes = boxes[:, 3] - boxes[:, 1]
        poses[..., :2] = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2 + noise.normal(size=poses[..., :2].shape)
        poses[..., 2] = 0.9
        clock.skip()
        smoother.predict(1 / clip.fps, sizes, still)
        smoother.update(rows, poses, sizes, still)
        smoother.trust()
        smoother.std()
        clock.lap("smoothing")
    return clock.spent_s["smoothing"]
