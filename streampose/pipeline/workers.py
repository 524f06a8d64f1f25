"""WorkerGroup: the only owner of threads. Nothing runs that nobody joins.

Used as a with-block, after trio's nursery: the block ends when every worker has ended; the first failure that concerns
all aborts every channel, and all errors are raised in the main thread. A thread stuck in a native call cannot be ended
from Python: after the deadline it is named, abandoned (all are daemons) and reported, and the block goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from streampose.pipeline.channel import Channel, ChannelClosed

log = logging.getLogger(__name__)


class Worker:
    """One owned thread: its name, its error once it has failed, and whether it was given up."""

    def __init__(self, name: str, thread: threading.Thread) -> None:
        self.name = name
        self.thread = thread
        self.error: BaseException | None = None
        self.abandoned = False

    @property
    def running(self) -> bool:
        return self.thread.is_alive()


class WorkerGroup:
    """Starts, names and joins every thread of a run.

    `channels` may grow by `adopt`; they are aborted when a worker fails. `stopping` is the word that every source and
    keeper listens to. `deadline_s` bounds the wait for each worker once the group stops.
    """

    def __init__(self, deadline_s: float = 3.0) -> None:
        self.deadline_s = deadline_s
        self.stopping = threading.Event()
        self._channels: list[Channel[Any]] = []
        self._workers: list[Worker] = []
        self._lock = threading.Lock()  # guards the two lists, which producers extend from their own threads
        self.ended = threading.Condition()

    def adopt(self, channel: Channel[Any]) -> None:
        """Abort `channel` too when the group fails."""
        with self._lock:
            self._channels.append(channel)

    def start(self, name: str, target: Callable[[], None], *, abandonable: bool = False) -> Worker:
        """Run `target` in a thread called `name`. ChannelClosed ends it quietly; any other exception fails the group.

        An `abandonable` worker may be given up by `abandon` without failing the run (a decoder stuck in a native call).
        """

        def body() -> None:
            try:
                target()
            except ChannelClosed:
                log.debug("%s: its channel was closed", name)
            except BaseException as error:  # noqa: BLE001  (the worker boundary: recorded here, raised in the main thread)
                if not worker.abandoned:
                    worker.error = error
                    self.abort()
            finally:
                with self.ended:
                    self.ended.notify_all()

        thread = threading.Thread(target=body, name=name, daemon=True)
        worker = Worker(name, thread)
        with self._lock:
            thread.start()  # before the lock is free: what does not run yet would be forgotten as ended
            self._workers = [w for w in self._workers if w.running or w.error or not abandonable] + [worker]
        return worker

    def abandon(self, worker: Worker) -> None:
        """Give up a stuck worker: it is no longer waited for, and what it raises later is ignored."""
        worker.abandoned = True
        log.debug("%s: abandoned", worker.name)

    def given_up(self) -> bool:
        """Whether the thread that asks was abandoned: it comes back too late and is to do nothing more."""
        thread = threading.current_thread()
        with self._lock:
            return any(worker.abandoned for worker in self._workers if worker.thread is thread)

    def abandoned(self) -> list[str]:
        """Names of the abandoned workers that still run."""
        with self._lock:
            return [w.name for w in self._workers if w.abandoned and w.running]

    def stop(self) -> None:
        """Ask the sources to end; what is queued is finished."""
        self.stopping.set()

    def abort(self) -> None:
        """End everything now: every channel is aborted, every waiter wakes."""
        self.stopping.set()
        with self._lock:
            channels = list(self._channels)
        for channel in channels:
            channel.abort()

    def wait(self, timeout_s: float) -> bool:
        """Wait until every worker has ended; whether that is so within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        with self.ended:
            while self._waited_for():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self.ended.wait(min(left, 0.2))
        return True

    def errors(self) -> list[BaseException]:
        with self._lock:
            return [w.error for w in self._workers if w.error is not None]

    def _waited_for(self) -> list[Worker]:
        with self._lock:
            workers = list(self._workers)
        return [w for w in workers if w.running and not w.abandoned]

    def __enter__(self) -> WorkerGroup:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is not None:
            self.abort()
        if not self.wait(self.deadline_s if self.stopping.is_set() else float("inf")):
            self.abort()
            self.wait(self.deadline_s)
        stuck = [w.name for w in self._waited_for()]
        if stuck:
            log.error("still running after %.1f s, left behind: %s", self.deadline_s, ", ".join(stuck))
        errors = self.errors()
        if error is not None:
            errors = [error, *(e for e in errors if e is not error)]
        raise_all(errors, error)


def raise_all(errors: Iterable[BaseException], current: BaseException | None = None) -> None:
    """Raise one error as it is, several as a group; `current` is already on its way and is left to it when alone."""
    found = list(errors)
    if not found or (len(found) == 1 and found[0] is current):
        return
    if len(found) == 1:
        raise found[0]
    raise BaseExceptionGroup("several parts of the run failed", found)
