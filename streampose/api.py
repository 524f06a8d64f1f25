"""The Python API: a source to loop over, and a watcher that turns each frame into people.

import streampose

watch = streampose.Watcher()
for frame in streampose.open_source("samples/cctv.mp4"):
    for person in watch(frame):
        print(frame.index, person.id, person.keypoints)
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from streampose.messages import Array, Detections, Frame, Person
from streampose.sources.base import Picture


def open_source(url: str | int, **options: Any) -> Iterator[Frame]:
    """The frames of a video, stream, webcam, picture, folder or test pattern, in order, as `messages.Frame`.

    Options are those of `sources.open.open_source` (`open_timeout_s`, `transport`, …). Pictures that do not decode are
    left out. A stream that ends or breaks raises TransientSourceError; for cameras that must be watched for weeks use
    `streampose run`, whose keeper reconnects. Raises PermanentSourceError where there is nothing to read.
    """
    from streampose.redact import redact
    from streampose.sources import open as sources

    source = sources.open_source(url, **options)
    with closing(source):
        source.open()
        camera = Path(redact(str(url))).stem or "camera"
        pictures = (item for item in source.frames(lambda: False) if isinstance(item, Picture))
        segment = 0
        for index, picture in enumerate(pictures):
            segment += bool(picture.jump)
            yield picture.to_frame(camera, index, segment, picture.time_s)


class Watcher:
    """Detector, key points, identity and smoothing for one camera; call it with each frame in turn.

    `settings` are those of the configuration as `"detect.threshold=0.5"`; one Watcher a camera, since it remembers.
    """

    def __init__(self, *settings: str) -> None:
        from streampose.build import smooth_options, track_options
        from streampose.build_models import load_models
        from streampose.config import validate
        from streampose.config_file import apply_overrides
        from streampose.track.tracker import CameraTracker

        data: dict[str, Any] = {"cameras": {"camera": {"url": "0"}}}
        apply_overrides(data, settings)
        config = validate(data)
        models = load_models(config)
        self._detector, self._pose = models.detectors[1.0], models.pose
        self._tracker = CameraTracker(models.pose.skeleton.sigmas, track_options(config), smooth_options(config))
        self._segment = 0
        self.keypoint_names: tuple[str, ...] = tuple(models.pose.skeleton.keypoints)

    def __call__(self, frame: Frame) -> tuple[Person, ...]:
        """The people of `frame`: ids, boxes, filtered and raw key points, states, standard deviations."""
        from streampose.pipeline.pose_stage import analyse

        if frame.segment != self._segment:
            self._tracker.reset()
            self._segment = frame.segment
        ((boxes, scores),) = self._detector([frame.image])
        return analyse(self._pose, [(self._tracker, Detections(frame, boxes, scores))])[0]


def annotate_images(*paths: str | Path, settings: tuple[str, ...] = ()) -> dict[str, dict[str, Array]]:
    """People in pictures and folders of pictures: `{name: {"bounding_box": (N, 4), "key_points": (N, 17, 3)}}`.

    Boxes are xyxy pixels, key points x, y, score, both float32. Nothing is written.
    """
    from streampose.annotate import jobs_for, people_of_pictures
    from streampose.build import first_reading
    from streampose.build_models import load_models

    found: dict[str, dict[str, Array]] = {}
    with tempfile.TemporaryDirectory() as folder:
        jobs = jobs_for([Path(path) for path in paths], Path(folder), overlay=False, settings=settings)
        models = load_models(jobs[0].config)
        for job in jobs:
            built = first_reading(job.config, models)
            built.run.execute(lambda: None)
            failures = built.run.failures()
            if failures:
                raise failures[0]
            for name, people in people_of_pictures(job.jsonl).items():
                found[name] = {
                    "bounding_box": np.array(people["bounding_box"], np.float32).reshape(-1, 4),
                    "key_points": np.array(people["key_points"], np.float32).reshape(
                        len(people["key_points"]), len(models.pose.skeleton.keypoints), 3
                    ),
                }
    return found
