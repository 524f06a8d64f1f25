"""A run: starts the threads of a pipeline, waits for its end in the main thread, and says how it went.

Endings: every camera ended; `stop` (finish what is queued, close the files); `abort` (close the files now); a failed
stage. In each of them every sink closes its files before `run` returns.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from streampose.errors import SinkError, SourceError, StreamposeError
from streampose.pipeline.lane import Lane
from streampose.pipeline.produce import Producer
from streampose.pipeline.sink_worker import SinkWorker
from streampose.pipeline.workers import Worker, WorkerGroup

log = logging.getLogger(__name__)
DRAIN_S = 10.0  # what is queued when a run is stopped must be done in this time, then everything is aborted


@dataclass(slots=True, eq=False)
class CameraRun:
    """One camera of a run: its producer, its lane, its sinks."""

    lane: Lane
    producer: Producer
    sinks: list[SinkWorker]

    @property
    def name(self) -> str:
        return self.lane.camera

    def outputs(self) -> list[str]:
        return [path for worker in self.sinks for path in worker.sink.outputs()]


@dataclass(slots=True, eq=False)
class Run:
    """The threads of a run. `stages` are (thread name, body) of what all cameras share; `join_lane` hands a new camera
    to them, `no_more_lanes` lets them end once the last camera has."""

    group: WorkerGroup
    stages: list[tuple[str, Callable[[], None]]]
    join_lane: Callable[[Lane], None]
    no_more_lanes: Callable[[], None]
    cameras: dict[str, CameraRun] = field(default_factory=dict)
    gone: list[CameraRun] = field(default_factory=list)
    _stopped_at: float | None = None

    def add(self, camera: CameraRun) -> None:
        """Start the threads of a camera: sinks first, so that nothing is made before it is taken."""
        self.cameras[camera.name] = camera
        self.group.adopt(camera.lane.frames)
        for worker in camera.sinks:
            self.group.adopt(worker.inbox)
            self.group.start(f"{worker.sink.name}:{camera.name}", worker.run)
        self.join_lane(camera.lane)
        self.group.start(f"produce:{camera.name}", camera.producer.run)

    def remove(self, name: str) -> None:
        """End one camera; the others go on. Its files are closed when its last frame is written."""
        camera = self.cameras.pop(name)
        camera.producer.stop()
        self.gone.append(camera)

    def stop(self) -> None:
        """Take no more frames, finish those that are queued, close the files."""
        self._stopped_at = self._stopped_at or time.monotonic()
        self.group.stop()

    def abort(self) -> None:
        """Close the files now."""
        self.group.abort()

    def execute(self, tick: Callable[[], None], every_s: float = 0.1, *, grows: bool = False) -> None:
        """Run to the end; `tick` is called in this thread every `every_s` seconds. With `grows`, cameras may be added
        until `stop`. Raises what failed the run as a whole."""
        with self.group:
            workers: list[Worker] = [self.group.start(name, body) for name, body in self.stages]
            for camera in list(self.cameras.values()):
                self.add(camera)
            if not grows:
                self.no_more_lanes()
            while not self.group.wait(every_s):
                tick()
                if grows and self._stopped_at is not None:
                    self.no_more_lanes()
                    grows = False
                if self._stopped_at is not None and time.monotonic() - self._stopped_at > DRAIN_S:
                    log.warning("still not finished %.0f s after the stop: closing the files now", DRAIN_S)
                    self._stopped_at = float("inf")
                    self.abort()
                    break
            tick()
        log.debug("%d stages ended", len(workers))

    def failures(self) -> list[StreamposeError | Exception]:
        """What went wrong for single cameras and sinks, for the exit code."""
        found: list[StreamposeError | Exception] = []
        for camera in [*self.gone, *self.cameras.values()]:
            if camera.lane.tally.error is not None:
                found.append(SourceError(f"{camera.name}: {camera.lane.tally.error}"))
            for worker in camera.sinks:
                if worker.error is not None:
                    found.append(worker.error if isinstance(worker.error, StreamposeError) else _as_bug(worker))
        return found


def _as_bug(worker: SinkWorker) -> Exception:
    return RuntimeError(f"sink {worker.sink.name} of {worker.camera} failed: {worker.error!r}")


def worst(failures: list[StreamposeError | Exception]) -> StreamposeError | Exception | None:
    """The failure that decides the exit code: a bug before a sink before a camera."""
    for kind in (None, SinkError, StreamposeError):
        for failure in failures:
            if (kind is None and not isinstance(failure, StreamposeError)) or (kind and isinstance(failure, kind)):
                return failure
    return None
