"""The Python API: a source to loop over, and a watcher that turns each frame into people.

import streampose

watch = streampose.Watcher()
for frame in streampose.open_source("samples/cctv.mp4"):
    for person in watch(frame):
        print(frame.index, person.id, person.keypoints)
"""

from __future__ import annotations

import itertools
import logging
import re
import tempfile
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streampose.errors import ConfigError, SourceError, UsageError
from streampose.messages import Array, Detections, Frame, Person
from streampose.sources.base import Corrupt, Picture

if TYPE_CHECKING:
    from streampose.annotate import Job

log = logging.getLogger(__name__)


def open_source(url: str | int | Path, **options: Any) -> Generator[Frame, None, None]:
    """The frames of a video, stream, webcam, picture, folder or test pattern, in order, as `messages.Frame`.

    Options are those of `sources.open.open_source` (`open_timeout_s`, `transport`, …). Pictures that do not decode are
    left out and counted: `index` and `segment` are those of a record of the same recording. A stream that ends or breaks
    raises TransientSourceError; for cameras that must be watched for weeks use `streampose run`, whose keeper reconnects.
    Raises PermanentSourceError where there is nothing to read. It is opened, and may so fail, when the first frame is asked
    for; `close()` of what is returned lets go of a camera before its end.
    """
    from streampose.redact import redact
    from streampose.sources import open as sources

    source = sources.open_source(str(url) if isinstance(url, Path) else url, **options)
    with closing(source):
        source.open()
        camera = Path(redact(str(url))).stem or "camera"
        index = segment = 0
        for item in source.frames(lambda: False):
            if isinstance(item, Corrupt):
                index += item.frames
            elif isinstance(item, Picture):
                segment += bool(item.jump)
                yield item.to_frame(camera, index, segment, item.time_s)
                index += 1


class Watcher:
    """Detector, key points, identity and smoothing for one camera; call it with each frame in turn.

    `settings` are those of the configuration as `"detect.threshold=0.5"`, `${VAR}` expanded; one Watcher a camera, since it
    remembers. A frame whose `index` does not grow (one given twice, too), whose time goes back, or of another `camera` or
    size is of a new source (a stream opened again, the next recording): nobody is followed into it, as none is over a break
    or from one picture of a folder to the next. Ids go on and never repeat.
    Raises ConfigError for a setting that cannot be, `smooth.offline` among them: frames come once here, with no hindsight;
    UsageError for `cameras` and `sinks`: the caller opens and writes.
    """

    def __init__(self, *settings: str) -> None:
        from streampose.build import identity
        from streampose.build_models import load_models
        from streampose.config import validate
        from streampose.config_file import apply_overrides, expand
        from streampose.track.tracker import CameraTracker

        data: dict[str, Any] = {"cameras": {"camera": {"url": "0"}}}
        what = "a Watcher, which opens and writes nothing: open_source has options of its own"
        apply_overrides(data, _checked(settings, cameras=what, sinks=what))
        config = validate(expand(data))
        if config.smooth.offline:
            raise ConfigError("smooth.offline: a Watcher sees each frame once; `streampose annotate` has hindsight")
        models = load_models(config)
        self._detector, self._pose = models.detectors[1.0], models.pose
        ids = itertools.count(1)
        skeleton = models.pose.skeleton
        self._moving, self._still = (
            CameraTracker(skeleton.sigmas, *identity(config, stills), body=skeleton.body, ids=ids)
            for stills in (False, True)
        )
        self._source: tuple[object, ...] | None = None  # what the last frame was of
        self._last = (0, 0.0)  # index and time of that frame
        self._detect_every, self._since_reset = config.detect.every, 0
        self.keypoint_names: tuple[str, ...] = tuple(skeleton.keypoints)

    def __call__(self, frame: Frame) -> tuple[Person, ...]:
        """The people of `frame`: ids, boxes, filtered and raw key points, states, standard deviations."""
        from streampose.pipeline.pose_stage import analyse

        is_picture = frame.file is not None
        source = (is_picture, frame.camera, frame.segment, frame.width, frame.height)
        goes_on = not is_picture and source == self._source
        index, time_s = self._last
        self._source, self._last = source, (frame.index, frame.time_s)
        tracker = self._still if is_picture else self._moving
        if not (goes_on and frame.index > index and frame.time_s >= time_s):
            tracker.reset()
            self._since_reset = 0
        boxes, scores = None, None
        if self._since_reset % self._detect_every == 0:
            ((boxes, scores),) = self._detector([frame.image])
        self._since_reset += 1
        return analyse(self._pose, [(tracker, Detections(frame, boxes, scores))])[0]


def annotate_images(*paths: str | Path, settings: tuple[str, ...] = ()) -> dict[str, dict[str, Array]]:
    """People in pictures and folders of pictures: `{name: {"bounding_box": (N, 4), "key_points": (N, 17, 3)}}`.

    Boxes are xyxy pixels, key points x, y, score, both float32. Where several pictures have one name, their paths are the
    keys. A picture that cannot be read is named in the log and left out; SourceError where none can be read, and where a
    path does not exist. UsageError for no path, for recordings, and for `settings` that are no tuple of texts. Nothing is
    written but for a while in the folder of temporary files; SinkError where that is full.
    """
    from streampose.annotate import by_name, people_of_pictures
    from streampose.build import check_recordings, first_reading
    from streampose.build_models import load_models

    _checked(settings, sinks="annotate_images, which writes nothing")
    found: dict[Path, dict[str, Any]] = {}
    failures: list[Exception] = []
    with tempfile.TemporaryDirectory() as folder:
        jobs = _picture_jobs(paths, Path(folder), settings)
        models = load_models(jobs[0].config)
        for job in jobs:
            try:
                check_recordings(job.config)
            except SourceError as error:
                log.error("%s", error)
                failures.append(error)
                continue
            built = first_reading(job.config, models)
            built.run.execute(lambda: None)
            failures += built.run.failures()
            found.update(people_of_pictures(job))
    if faults := [failure for failure in failures if not (found and isinstance(failure, SourceError))]:
        raise faults[0]
    joints = len(models.pose.skeleton.keypoints)
    return {
        name: {
            "bounding_box": np.array(people["bounding_box"], np.float32).reshape(-1, 4),
            "key_points": np.array(people["key_points"], np.float32).reshape(-1, joints, 3),
        }
        for name, people in by_name(found).items()
    }


def _picture_jobs(paths: Iterable[str | Path], out: Path, settings: Sequence[str]) -> list[Job]:
    """The jobs of `paths`, those of each folder with a place of their own in `out`: folders may have the same name."""
    from streampose.annotate import jobs_for, recorded
    from streampose.sources.open import source_kind

    groups: dict[tuple[Path, bool], list[Path]] = {}
    for path in map(recorded, paths):
        if not source_kind(str(path)).stills:
            raise UsageError(
                f"{path}: no picture and no folder of them; a video is for `streampose annotate`, or open_source and Watcher"
            )
        whole = path.is_dir()
        groups.setdefault((path if whole else path.parent, whole), []).append(path)
    if not groups:
        raise UsageError("annotate_images: name a picture or a folder of pictures")
    return [
        job
        for number, group in enumerate(groups.values())
        for job in jobs_for(list(dict.fromkeys(group)), out / str(number), overlay=False, settings=settings)
    ]


def _checked(settings: object, **refused: str) -> Sequence[str]:
    """`settings` where they are a sequence of texts and none is of a section `refused`, for whom; raises UsageError."""
    if not (isinstance(settings, list | tuple) and all(isinstance(setting, str) for setting in settings)):
        raise UsageError(f'settings: texts such as ("detect.threshold=0.5",) are wanted, not {settings!r}')
    for section in (re.split("[.=]", setting, maxsplit=1)[0].strip() for setting in settings):
        if section in refused:
            raise UsageError(f"settings: {section} cannot be set for {refused[section]}")
    return settings
