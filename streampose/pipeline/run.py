"""A run: starts the threads of a pipeline, waits for its end in the main thread, and says how it went.

Endings: every camera ended; `stop` (finish what is queued, close the files); `abort` (close the files now); a failed
stage. In each of them every sink closes its files before `run` returns.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from streampose.errors import SinkError, SourceError, StreamposeError
from streampose.pipeline.lane import Lane
from streampose.pipeline.main_stream import MainStream
from streampose.pipeline.produce import Producer
from streampose.pipeline.sink_worker import SinkWorker
from streampose.pipeline.watchdog import Asked, Watchdog
from streampose.pipeline.workers import WorkerGroup

log = logging.getLogger(__name__)
# What is left when a run is stopped, a stage has failed or every camera is closed may take so long, then everything is
# aborted; so it is where cameras ended by themselves and sinks of live ones take nothing for as long.
DRAIN_S = 10.0
CLOSE_AGAIN_S = 0.5  # so often it is looked whether a reader is still stuck in a file that is to be closed
CLOSE_S = 15.0  # a camera that was removed and has not closed its files after this is said to hold up its successor


class Tap(Protocol):
    """What records the source's own packets, in the thread that reads them."""

    error: SinkError | None

    def close(self) -> None: ...

    def closed(self) -> bool: ...

    def outputs(self) -> tuple[str, ...]: ...


@dataclass(slots=True, eq=False)
class CameraRun:
    """One camera of a run: its producer, its lane, its sinks."""

    lane: Lane
    producer: Producer
    sinks: list[SinkWorker]
    tap: Tap | None = None
    main: MainStream | None = None
    closes_tap: bool = False

    @property
    def name(self) -> str:
        return self.lane.camera

    def closed(self) -> bool:
        """Whether its threads have ended and the files of its sinks are closed."""
        return not self.unclosed()

    def unclosed(self) -> list[str]:
        """What of it has not ended, in words."""
        producers = [self.producer, *([] if self.main is None else [self.main.producer])]
        words = [f"{producer.camera} has not ended" for producer in producers if not producer.ended]
        for worker in self.sinks:
            if not worker.ended:
                words.append(f"{worker.sink.name} has not closed {('its file', *worker.sink.outputs())[-1]}")
        return words

    def outputs(self) -> list[tuple[str, ...]]:
        """The files of each sink, and those of the source's own stream."""
        return [worker.sink.outputs() for worker in self.sinks] + ([] if self.tap is None else [self.tap.outputs()])

    def whole(self) -> bool:
        """Whether all its files are closed, that of the source's own stream, too, in which a reader may be stuck."""
        return self.closed() and (self.tap is None or self.tap.closed())


@dataclass(slots=True, eq=False)
class _Next:
    """A camera that begins when those of its name before it have closed their files; `said`: that they do not."""

    make: Callable[[], CameraRun]
    since_s: float = field(default_factory=time.monotonic)
    said: bool = False


@dataclass(slots=True, eq=False)
class Run:
    """The threads of a run. `stages` are (thread name, body) of what all cameras share; `join_lane` hands a new camera
    to them, `no_more_lanes` lets them end once the last camera has. `asked`: what calls networks, and is to come back."""

    group: WorkerGroup
    stages: list[tuple[str, Callable[[], None]]]
    join_lane: Callable[[Lane], None]
    no_more_lanes: Callable[[], None]
    asked: Sequence[Asked] = ()
    cameras: dict[str, CameraRun] = field(default_factory=dict)
    gone: list[CameraRun] = field(default_factory=list)
    _waiting: dict[str, _Next] = field(default_factory=dict)
    _aborted: bool = False
    _finishing: bool = False
    _closing: WorkerGroup = field(default_factory=lambda: WorkerGroup(DRAIN_S / 2))  # what closes the taps

    @property
    def ending(self) -> bool:
        """Whether no camera begins any more: it was stopped, a stage has failed, or every camera has ended."""
        return self._finishing or self.group.stopping.is_set()

    def add(self, camera: CameraRun) -> None:
        """Start the threads of a camera: sinks first, so that nothing is made before it is taken."""
        self.cameras[camera.name] = camera
        self.group.adopt(camera.lane.frames)
        for worker in camera.sinks:
            self.group.adopt(worker.inbox)
        if self._aborted:
            self.group.abort()  # those, too
        for worker in camera.sinks:
            self.group.start(f"{worker.sink.name}:{camera.name}", worker.run)
        self.join_lane(camera.lane)
        self.group.start(f"produce:{camera.name}", camera.producer.run)
        if camera.main is not None:
            camera.main.start(self.group)

    def all_cameras(self) -> list[CameraRun]:
        """Those that run and those that were removed."""
        return [*self.gone, *self.cameras.values()]

    def remove(self, name: str) -> None:
        """End one camera, or let it not begin where it waits; the others go on. Its files are closed when its last frame
        is written."""
        self._waiting.pop(name, None)
        camera = self.cameras.pop(name, None)
        if camera is None:
            return
        camera.producer.stop()
        if camera.main is not None:
            camera.main.producer.stop()
        self.gone.append(camera)

    def add_when_free(self, name: str, make: Callable[[], CameraRun]) -> None:
        """Start a camera as soon as those of its name that were removed have closed their files; where they do not,
        that is said once."""
        self._waiting[name] = _Next(make)

    def _let_in(self) -> None:
        for camera in self.gone:
            if camera.closed():
                self._close_tap(camera)
        for name, new in list(self._waiting.items()):
            held_up = [words for camera in self.gone if camera.name == name for words in camera.unclosed()]
            if held_up:
                self._say_held_up(name, new, held_up)
                continue
            del self._waiting[name]
            try:
                self.add(new.make())
            except StreamposeError as error:
                log.error("%s: %s; it is not watched", name, error)
            except Exception:  # the others have watched for weeks
                log.exception("%s: a bug while it was made; it is not watched", name)

    def _close_tap(self, camera: CameraRun) -> None:
        """Have the file of the source's own stream closed, in a thread: its disk may hang, or a reader be stuck in it."""
        tap = camera.tap
        if tap is None or camera.closes_tap:
            return
        camera.closes_tap = True

        def close() -> None:
            tap.close()
            while not tap.closed() and not self._closing.stopping.wait(CLOSE_AGAIN_S):
                tap.close()

        self._closing.start(f"close:{camera.name}", close, abandonable=True)

    def _say_held_up(self, name: str, new: _Next, by: list[str]) -> None:
        if new.said or time.monotonic() - new.since_s < CLOSE_S:
            return
        new.said = True
        log.error(
            "%s: not begun anew: %s for %g s; it begins as soon as that is done: see to the disk, "
            "or end the run and choose another path",
            name, ", ".join(by), CLOSE_S,
        )  # fmt: skip

    def stop(self) -> None:
        """Take no more frames, finish those that are queued, close the files."""
        self.group.stop()

    def abort(self) -> None:
        """Close the files now; before `execute`, begin none with a frame."""
        self._aborted = True
        self.group.abort()

    def execute(self, tick: Callable[[], None], every_s: float = 0.1) -> None:
        """Run to the end; `tick` is called in this thread every `every_s` seconds and may add and remove cameras while
        one still runs. Raises what failed the run as a whole."""
        try:
            with self.group:
                try:
                    self._run(tick, every_s)
                finally:
                    self.no_more_lanes()  # else a stage that waits for cameras would be left behind by an error here
        finally:
            with self._closing:
                for camera in self.all_cameras():
                    self._close_tap(camera)
                self._closing.stop()
        tick()

    def _run(self, tick: Callable[[], None], every_s: float) -> None:
        over_s: float | None = None  # since when nothing more comes and nobody need be waited for
        watchdog = Watchdog(self.asked)
        for name, body in self.stages:
            self.group.start(name, body)
        for camera in list(self.cameras.values()):
            self.add(camera)
        while not self.group.wait(every_s):
            tick()
            watchdog.look()
            ending = self.group.stopping.is_set()  # a stop, or a stage that failed
            if not (self._finishing or ending):
                self._let_in()
            if not self._finishing and (ending or self._all_ended()):
                self._finishing = True
                self.no_more_lanes()
                for camera in self.all_cameras():
                    if camera.main is not None:
                        camera.main.producer.stop()
            if over_s is None and (
                ending or (self._finishing and all(camera.closed() for camera in self.all_cameras()))
            ):
                over_s = time.monotonic()
            if self._finishing and over_s is None and (hung := self._hung()):
                log.warning("%s: nothing taken for %.0f s: closing the files now", ", ".join(hung), DRAIN_S)
                self.abort()
                break
            if over_s is not None and time.monotonic() - over_s > DRAIN_S:
                log.warning("still not finished %.0f s after the stop: closing the files now", DRAIN_S)
                self.abort()
                break

    def _hung(self) -> list[str]:
        """The sinks that have not ended, where each is of a camera that waits for none and takes nothing; else none."""
        left = [(camera, worker) for camera in self.all_cameras() for worker in camera.sinks if not worker.ended]
        if any(c.lane.frames.policy == "lossless" or w.inbox.idle_s() < DRAIN_S for c, w in left):
            return []
        return [f"{worker.sink.name} of {camera.name}" for camera, worker in left]

    def _all_ended(self) -> bool:
        return not self._waiting and all(
            camera.lane.tally.state in ("ended", "failed") for camera in self.cameras.values()
        )

    def failures(self) -> list[Exception]:
        """What went wrong for single cameras and sinks, for the exit code."""
        found: list[Exception] = []
        for camera in self.all_cameras():
            if camera.lane.tally.error is not None:
                found.append(SourceError(f"{camera.name}: {camera.lane.tally.error}"))
            if camera.main is not None and camera.main.error is not None:
                found.append(SourceError(f"{camera.main.name}: {camera.main.error}"))
            for worker in camera.sinks:
                if worker.error is not None:
                    found.append(worker.error if isinstance(worker.error, StreamposeError) else _as_bug(worker))
            if camera.tap is not None and camera.tap.error is not None:
                found.append(camera.tap.error)
        return found


def _as_bug(worker: SinkWorker) -> Exception:
    return RuntimeError(f"sink {worker.sink.name} of {worker.camera} failed: {worker.error!r}")


def worst(failures: list[Exception]) -> Exception | None:
    """The failure that decides the exit code: a bug before a sink before a camera."""
    for kind in (None, SinkError, StreamposeError):
        for failure in failures:
            if (kind is None and not isinstance(failure, StreamposeError)) or (kind and isinstance(failure, kind)):
                return failure
    return None
