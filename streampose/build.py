"""From a configuration to a pipeline: where what is asked for and what does it meet.

What happens to a frame: a `Producer` (thread `produce:gate`) brings it into the lane's `frames` channel; `DetectStage`
(thread `detect`) takes what waits from all lanes and finds the people; `PoseStage` (thread `pose`) places the key points,
keeps identity and smooths; the lane hands the result to one channel for each sink, each emptied by its own thread.
Recordings smoothed offline are read twice: `first_reading` keeps the results, `second_reading` draws and writes them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from streampose.build_models import Models
from streampose.build_sinks import (
    Footer,
    check_options,
    check_outputs,
    first_files,
    make_display,
    make_sinks,
    source_recording,
)
from streampose.config import CameraConfig, Config, Rung
from streampose.errors import ConfigError, PermanentSourceError
from streampose.hours import Hours
from streampose.messages import Control, Frame, SourceInfo
from streampose.pipeline.channel import Channel, Policy
from streampose.pipeline.detect_stage import Detected, DetectStage
from streampose.pipeline.governor import LoadGovernor
from streampose.pipeline.keeper import KeepOptions
from streampose.pipeline.lane import Lane, Result
from streampose.pipeline.ledger import CameraLedger
from streampose.pipeline.main_stream import MainStream
from streampose.pipeline.outlet import PATIENCE_S, Outlet
from streampose.pipeline.pose_stage import PoseStage
from streampose.pipeline.produce import ProduceOptions, Producer
from streampose.pipeline.replay import KeptResults, Replay
from streampose.pipeline.run import CameraRun, Run
from streampose.pipeline.sink_worker import SinkWorker
from streampose.pipeline.warm import WarmUp
from streampose.pipeline.workers import WorkerGroup
from streampose.redact import redact_url
from streampose.sinks.base import Sink
from streampose.sinks.display import Display
from streampose.sinks.paths import Names
from streampose.sinks.remux import Remuxer
from streampose.sinks.retention import Sweeper
from streampose.sources.base import Source
from streampose.sources.blind import Watch
from streampose.sources.limits import SEGMENT_S
from streampose.sources.open import address_of, is_live, open_source, source_kind
from streampose.sources.repeats import Seen
from streampose.track.offline import smooth_recording
from streampose.track.options import SmoothOptions, TrackOptions
from streampose.track.tracker import CameraTracker

log = logging.getLogger(__name__)
KEY_FRAME_S = 20.0  # so far away may the first key frame of a connection be; a silent network ends it sooner
OPEN_GRACE_S = 5.0  # the watchdog leaves FFmpeg so much longer than its own limit before it gives a reader up
RECORDING_DEPTH = 4  # frames of a recording that wait for the networks: enough to hide the decoder's jitter
RESULT_DEPTH = 2  # results between detector and pose: few, so that age is bounded by design
SINK_DEPTH = 8  # results that wait for a sink, to ride out a slow write


SinksWith: TypeAlias = Callable[[Footer], Sequence[Sink]]


@dataclass(slots=True, eq=False)
class Built:
    """A run ready to start, its window where there is one, and how to add a camera to it later: one of a configuration,
    whose other sections are those of the start."""

    run: Run
    display: Display | None
    make_camera: Callable[[Config, str], CameraRun]
    kept: dict[str, KeptResults] = field(default_factory=dict)


def first_reading(config: Config, models: Models, others: Set[Path] = frozenset()) -> Built:
    """The pipeline of a configuration. With offline smoothing its results are kept, not written: see second_reading.
    `others`: what is not to be written over, since other runs of the same call begin with it.

    Raises SinkError where an output cannot be written.
    """
    check_outputs(config)
    group = WorkerGroup()
    between: Channel[Detected] = Channel("detect-pose", RESULT_DEPTH, "lossless")
    group.adopt(between)
    detect = DetectStage(models.detectors, between, config.detect.batch)
    pose = PoseStage(models.pose, between, config.detect.batch)
    sweeper = Sweeper()

    def no_more_cameras() -> None:
        detect.finish()
        sweeper.end()

    stages = [("detect", detect.run), ("pose", pose.run), ("retention", sweeper.run)]
    run = Run(group, stages, detect.add, no_more_cameras, (detect.asked, pose.asked))
    warm_up = WarmUp(list(models.detectors.values()))
    offline = config.smooth.offline
    display = None if offline else make_display(config, models)
    kept: dict[str, KeptResults] = {}
    names = Names(others | first_files(config))

    def make_camera(now: Config, name: str) -> CameraRun:
        camera = now.cameras[name]
        if offline:
            _check_offline(name, camera)
            kept[name] = KeptResults()
        names.take(first_files(now))
        sinks = (lambda _: [kept[name]]) if offline else partial(make_sinks, now, models, name, display, names, sweeper)
        tap = None if offline else source_recording(now, name, names, sweeper, group.given_up)
        return _camera(now, models, name, camera, sinks, group, tap, warm_up)

    for name in config.cameras:
        run.cameras[name] = make_camera(config, name)
    return Built(run, display, make_camera, kept)


def second_reading(config: Config, models: Models, first: Built, others: Set[Path] = frozenset()) -> Built:
    """Smooths what the first reading kept, forwards and backwards, and reads the recordings again to write it."""
    group = WorkerGroup()
    display = make_display(config, models)
    run = Run(group, [], lambda lane: None, lambda: None)
    sweeper = Sweeper()  # which needs no thread: a recording is never away, so that its sinks see to it
    names = Names(others | first_files(config))

    def make_camera(now: Config, name: str) -> CameraRun:
        sinks = partial(make_sinks, now, models, name, display, names, sweeper)
        tap = source_recording(now, name, names, sweeper, group.given_up)
        made = _camera(now, models, name, now.cameras[name], sinks, group, tap)
        before = first.run.cameras[name]
        error = made.lane.tally.error = before.lane.tally.error  # what it did not read is missing here, too
        made.producer.said = before.producer.said
        kept = first.kept[name]
        options = replace(smooth_options(config), drop_unconfirmed=_may_confirm(config, kept))
        smooth = smooth_recording(kept.people, options, models.pose.skeleton.sigmas)
        people = {index: found for index, _, found in smooth}
        replay = Replay(made.lane, people, kept.detected, made.producer.stop, error)
        run.stages.append((f"replay:{name}", replay.run))
        return made

    for name in config.cameras:
        run.cameras[name] = make_camera(config, name)
    return Built(run, display, make_camera)


def _may_confirm(config: Config, kept: KeptResults) -> bool:
    """Whether the recording is long enough to confirm anybody in it; where it is not, the tentative are all there are."""
    track = track_options(config)
    lasts_s = kept.people[-1][1] - kept.people[0][1] if kept.people else 0.0
    return len(kept.people) >= track.confirm_after and lasts_s >= track.confirm_span_s


def expects_live(camera: CameraConfig) -> bool:
    """Whether it is a live camera, as far as that can be told before it is opened: by its address, or, since what http
    calls `stream.mp4` may be either, because `policy: latest` or `hours` is asked of it."""
    if is_live(camera.full_url):
        return True
    declared = camera.policy == "latest" or camera.hours is not None
    return declared and source_kind(camera.full_url).unsure


def policy_of(camera: CameraConfig) -> Policy:
    """Lossless for recordings, latest for live cameras, unless the configuration says otherwise. What turns out to be the
    other once it is opened has the other policy after all."""
    if camera.policy != "auto":
        return camera.policy
    return "latest" if expects_live(camera) else "lossless"


def hours_of(name: str, camera: CameraConfig) -> Hours | None:
    """When the camera is watched, None for always. Raises ConfigError for a recording, which has no hours."""
    if camera.hours is None:
        return None
    if not expects_live(camera):
        raise ConfigError(f"cameras.{name}.hours: only a live camera has hours; a recording is read at once")
    return Hours.parse(camera.hours)


def _check_offline(name: str, camera: CameraConfig) -> None:
    if is_live(camera.full_url):
        raise ConfigError(f"cameras.{name}: smooth.offline needs a recording; this is a live camera")
    if policy_of(camera) == "latest":
        raise ConfigError(
            f"cameras.{name}.policy: latest passes over frames, and smooth.offline needs every one; "
            "set policy: lossless, or smooth.offline=false"
        )
    if os.path.exists(camera.full_url) and not (os.path.isfile(camera.full_url) or os.path.isdir(camera.full_url)):
        raise ConfigError(
            f"cameras.{name}: smooth.offline reads a recording twice, and {camera.full_url} can be read only once; "
            "set smooth.offline=false, or save it to a file first"
        )


def _check_addresses(name: str, camera: CameraConfig) -> None:
    """Raise ConfigError for an address that nothing here could read, whatever answers there."""
    for key, url in (("url", camera.full_url), ("detect_url", camera.analysed_url)):
        try:
            is_live(url)
        except PermanentSourceError as error:
            raise ConfigError(f"cameras.{name}.{key}: {error}") from None


def _check_only(name: str, camera: CameraConfig) -> None:
    """Raise ConfigError for `only` of what is no folder."""
    path = address_of(camera.analysed_url)
    kind = source_kind(path)
    is_missing = kind.on_disk and not kind.stills and not os.path.exists(path)  # which is said as it is opened
    if camera.only is not None and not os.path.isdir(path) and not is_missing:
        raise ConfigError(f"cameras.{name}.only: names pictures of a folder; {redact_url(path)} is none")


def _check_max_age(name: str, camera: CameraConfig) -> None:
    """Raise ConfigError for a `max_age` where no frame is dropped, whatever its age."""
    if camera.max_age is not None and policy_of(camera) == "lossless":
        what = "of a recording" if camera.policy == "auto" else "with policy: lossless"
        raise ConfigError(
            f"cameras.{name}.max_age: {what} every frame is analysed, however old; leave max_age out, "
            "or set policy: latest"
        )


def _ladder(name: str, camera: CameraConfig, models: Models) -> tuple[Rung, ...]:
    """What the governor may take away of a camera's frames: the resolution only where a smaller detector is loaded."""
    if "resolution" not in camera.degrade or len(models.detectors) > 1:
        return camera.degrade
    log.info("%s: degrade: no detector of half the size is loaded; resolution is left out", name)
    return tuple(rung for rung in camera.degrade if rung != "resolution")


def describe(config: Config) -> list[str]:
    """What a configuration would do, a line a camera. Raises ConfigError for what cannot be; opens nothing."""
    for name, camera in config.cameras.items():
        _check_addresses(name, camera)
    check_options(config)
    sinks = ", ".join(sink for sink, _ in config.sinks)
    lines = []
    for name, camera in config.cameras.items():
        _check_max_age(name, camera)
        _check_only(name, camera)
        keep_options(name, camera)
        if config.smooth.offline:
            _check_offline(name, camera)
        when = "" if hours_of(name, camera) is None else f", watched {' and '.join(camera.hours or ())}"
        lines.append(f"{name}: policy {policy_of(camera)}{when}, to {sinks or 'nothing'}")
    return lines


def _camera(
    config: Config,
    models: Models,
    name: str,
    camera: CameraConfig,
    sinks_with: SinksWith,
    group: WorkerGroup,
    tap: Remuxer | None,
    prepare: WarmUp | None = None,
) -> CameraRun:
    _check_max_age(name, camera)
    _check_only(name, camera)
    policy = policy_of(camera)
    if camera.policy == "auto" and source_kind(camera.full_url).unsure:
        policy = "latest"  # until it is opened: the address does not tell for sure
    live = expects_live(camera)
    stills = source_kind(camera.full_url).stills
    ledger = CameraLedger(name)
    frames: Channel[Frame | Control] = Channel(
        f"frames:{name}",
        1 if policy == "latest" else RECORDING_DEPTH,
        policy,
        partial(ledger.drop, detail="newest wins"),
    )
    workers: list[SinkWorker] = []

    def opened(info: SourceInfo) -> None:
        if camera.policy == "auto" and policy == "latest" and not info.live:
            lane.keep_all(RECORDING_DEPTH)
            if camera.max_age is not None:
                log.warning("%s: is a recording: every frame of it is analysed, and max_age is not kept", name)

    def ages() -> dict[str, Any]:
        """For the footer: how old results were, from capture to each sink, in milliseconds."""
        info = lane.tally.info
        if not (live if info is None else info.live):
            return {}
        kinds = [worker.sink.name for worker in workers]
        names = [
            f"{kind}-{nth}" if (nth := kinds[: place + 1].count(kind)) > 1 else kind for place, kind in enumerate(kinds)
        ]
        each = zip(["pose", *names], [lane.age, *(worker.age for worker in workers)], strict=True)
        return {"age_ms": {name: age.summary_ms() for name, age in each}}

    workers += [SinkWorker(name, sink, _sink_channel(name, sink)) for sink in sinks_with(ages)]
    governor = None
    if camera.max_age is not None and policy == "latest":
        governor = LoadGovernor(name, camera.max_age, _ladder(name, camera, models))
    lane = Lane(
        name,
        frames,
        ledger,
        CameraTracker(models.pose.skeleton.sigmas, *identity(config, stills), body=models.pose.skeleton.body),
        [Outlet(name, w.sink.name, w.inbox, PATIENCE_S if policy == "latest" else None) for w in workers],
        detect_every=config.detect.every,
        max_age_s=camera.max_age if policy == "latest" else None,
        governor=governor,
        stills=stills,
    )
    keep = keep_options(name, camera)
    options = ProduceOptions(keep, Watch if camera.blind else None, prepare, opened)
    analysed_tap = tap if camera.detect_url is None else None
    producer = Producer(name, partial(_open, camera, analysed_tap, Seen()), frames, ledger, group, options)
    main = None
    if tap is not None and camera.detect_url is not None:
        only_keys = camera.model_copy(update={"detect_url": None, "skip": "nonkey"})
        main = MainStream(name, partial(_open, only_keys, tap, Seen()), tap, group, ProduceOptions(keep))
    return CameraRun(lane, producer, workers, tap, main)


def keep_options(name: str, camera: CameraConfig) -> KeepOptions:
    """How the source of a camera is kept running. Raises ConfigError for waits that cannot be."""
    url = camera.analysed_url
    if not 0 < camera.backoff <= camera.backoff_max:
        raise ConfigError(
            f"cameras.{name}.backoff: {camera.backoff:g} s; more than 0 and at most backoff_max, "
            f"{camera.backoff_max:g} s, is needed"
        )
    return KeepOptions(
        live=expects_live(camera),
        stall_s=camera.stall_after,
        give_up_s=camera.give_up_after,
        unpaced_s=KEY_FRAME_S if source_kind(url).unsure else camera.give_up_after,
        open_s=camera.open_timeout + OPEN_GRACE_S,
        deaf_s=2.0 * max(SEGMENT_S, camera.read_timeout, camera.open_timeout),
        backoff_first_s=camera.backoff,
        backoff_cap_s=camera.backoff_max,
        hours=hours_of(name, camera),
    )


def source_options(camera: CameraConfig) -> dict[str, Any]:
    """How the source of a camera is opened and decoded: arguments of `open_source`. A recording gets no second try, so a
    slow server may think about it for as long as the opening may take."""
    live = expects_live(camera)
    return {
        "open_timeout_s": camera.open_timeout,
        "read_timeout_s": camera.read_timeout if live else max(camera.read_timeout, camera.open_timeout),
        "transport": camera.transport,
        "skip": camera.skip,
        "threads": camera.threads,
        "hwaccel": camera.hwaccel,
        "only": camera.only,
    }


def _open(camera: CameraConfig, tap: Remuxer | None, seen: Seen | None = None) -> Source:
    if tap is not None and os.path.isfile(camera.analysed_url):
        _try(camera)  # a copy of what cannot be decoded must not take the place of an earlier one
    return open_source(camera.analysed_url, **source_options(camera), tap=None if tap is None else tap.write, seen=seen)


def check_recordings(config: Config) -> None:
    """See that every recording and folder can be opened, before a file is begun for it; raises SourceError. What can be read
    only once, such as a pipe, is left alone."""
    for camera in config.cameras.values():
        if os.path.isfile(camera.analysed_url) or os.path.isdir(camera.analysed_url):
            _try(camera)


def _try(camera: CameraConfig) -> None:
    """Decode the first picture of a recording or folder; raises SourceError where there is none."""
    source = _open(camera, None)
    try:
        source.open()
    finally:
        source.close()


def _sink_channel(camera: str, sink: Sink) -> Channel[Result]:
    """A record gets every result, as long as it takes them; a window wants the newest. A sink that is slow for good slows
    the pose stage, and so every camera; one that hangs is passed over by live cameras; one that fails ends alone."""
    if sink.newest_only:
        return Channel(f"{sink.name}:{camera}", 1, "latest")
    return Channel(f"{sink.name}:{camera}", SINK_DEPTH, "lossless")


def track_options(config: Config) -> TrackOptions:
    return TrackOptions(
        high_threshold=config.detect.threshold,
        low_threshold=min(config.track.low_threshold, config.detect.threshold),
        new_threshold=config.detect.threshold,
        confirm_after=config.track.confirm_after,
        lost_after_s=config.track.lost_after,
        pose_every=config.pose.every,
    )


def smooth_options(config: Config) -> SmoothOptions:
    chosen = {key: value for key, value in config.smooth.model_dump().items() if value is not None}
    return SmoothOptions(**chosen)


def identity(config: Config, stills: bool) -> tuple[TrackOptions, SmoothOptions]:
    """How people are followed; pictures of a folder have nothing to do with each other, so there nobody waits or moves."""
    track, smooth = track_options(config), smooth_options(config)
    if stills:
        return replace(track, confirm_after=1), replace(smooth, enabled=False, offline=False)
    return track, smooth
