"""Executes a configuration from the terminal: signals, reload, window, status line, report and exit code."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from streampose.cli.reload import Reload
from streampose.config import Config
from streampose.errors import InterruptedRun, SinkError, StreamposeError
from streampose.pipeline.workers import WorkerGroup
from streampose.sinks.reserve import Reserved

if TYPE_CHECKING:
    from streampose.build import Built
    from streampose.build_models import Models
    from streampose.cli.status import Status

log = logging.getLogger(__name__)
LATE_S = 1.0  # at the end a configuration that is being read is waited for so long, twice


class Signals:
    """SIGINT and SIGTERM: once finishes what is queued, twice closes the files now. SIGHUP asks for a reload.

    Handlers only take notes; the main loop acts on them, since nothing may be locked inside a handler. Before `begin`
    there is nothing to finish or to close, and the first signal ends it all: InterruptedRun.
    """

    def __init__(self) -> None:
        self.begun = False
        self.times = 0
        self.last = 0
        self.reload = False

    def __enter__(self) -> Signals:
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        if hasattr(signal, "SIGHUP"):
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._note_reload)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.times and not self.begun:
            name = signal.Signals(self.last).name
            raise InterruptedRun(f"ended by {name} before a camera was opened", 128 + self.last) from None

    def begin(self) -> None:
        """From now on files are open."""
        self.begun = True

    def _note(self, number: int, _: FrameType | None) -> None:
        self.times += 1
        self.last = number
        if not self.begun:
            raise KeyboardInterrupt  # goes through whoever catches every Exception, as converters do

    def _note_reload(self, _: int, __: FrameType | None) -> None:
        self.reload = True


def execute(load: Callable[[], Config]) -> None:
    """Run what `load` gives, to its end; print the report; raise what went wrong, for the exit code. `load` has seen that
    it can be done: what cannot should not wait for the networks."""
    from streampose.build_models import load_models
    from streampose.build_sinks import check_outputs, reserved_files

    started_s = time.monotonic()
    config = load()
    check_outputs(config)
    with Signals() as signals, reserved() as outputs:
        outputs.take(reserved_files(config))
        models = load_models(config)
        failures = execute_with(config, models, signals, reload=load, started_s=started_s, outputs=outputs)
    finish(failures, signals)


@contextmanager
def reserved() -> Iterator[Reserved]:
    """What is reserved in the block is so until its end. It is let go in a thread, since its disk may hang."""
    outputs = Reserved()
    try:
        yield outputs
    finally:
        with WorkerGroup(LATE_S) as letting_go:
            letting_go.start("release", partial(outputs.keep, ()), abandonable=True)
            letting_go.stop()


def finish(failures: list[Exception], signals: Signals) -> None:
    """Raise what decides the exit code: a bug as it is; of failures, which were said as they came, how many there were."""
    from streampose.pipeline.run import worst

    chosen = worst(failures)
    if isinstance(chosen, StreamposeError):
        failed = StreamposeError(count(failures))
        failed.exit_code = chosen.exit_code
        raise failed from chosen
    if chosen is not None:
        raise chosen
    if signals.times:
        name = signal.Signals(signals.last).name
        raise InterruptedRun(f"ended by {name}; every file is closed", 128 + signals.last)


def count(failures: list[Exception]) -> str:
    """How many failed: `2 sources and 1 output failed, as said above`."""
    outputs = sum(isinstance(failure, SinkError) for failure in failures)
    numbers = {"source": len(failures) - outputs, "output": outputs}
    words = [f"{number} {noun}{'' if number == 1 else 's'}" for noun, number in numbers.items() if number]
    return f"{' and '.join(words)} failed, as said above"


def execute_with(
    config: Config,
    models: Models,
    signals: Signals,
    *,
    reload: Callable[[], Config] | None = None,
    started_s: float | None = None,
    others: Set[Path] = frozenset(),
    outputs: Reserved | None = None,
    tell: Callable[[str], None] = print,
) -> list[Exception]:
    """Run one configuration with loaded models: the live way, or, for offline smoothing, in two readings.
    `others`: the files with which other runs of the same call begin. `outputs`: what is reserved, which changes with a
    reload. `tell` takes the report."""
    from streampose.build import first_reading, second_reading
    from streampose.cli.status import Status, report

    signals.begin()
    first = first_reading(config, models, others)
    if not config.smooth.offline:
        with Status(first.run.all_cameras) as status:
            _loop(first, status, signals, config, reload, outputs)
        tell(report(first.run.all_cameras()))
        if started_s is not None and status.first_result_s is not None:
            log.debug("first result %.2f s after the start", status.first_result_s - started_s)
        return first.run.failures()
    with Status(first.run.all_cameras, "1/2 look: ") as status:
        _loop(first, status, signals, config)
    if signals.times > 1:
        for kept in first.kept.values():
            kept.people.clear()  # nobody waits while they are smoothed
    second = second_reading(config, models, first, others)
    heard = min(signals.times, 1)  # one lets what was looked at be written; a second closes the files, in any reading
    with Status(second.run.all_cameras, "2/2 write: ", again=True) as status:
        _loop(second, status, signals, config, heard=heard)
    tell(report(second.run.all_cameras()))
    return second.run.failures()


def _loop(
    built: Built,
    status: Status,
    signals: Signals,
    config: Config,
    reload: Callable[[], Config] | None = None,
    outputs: Reserved | None = None,
    heard: int = 0,
) -> None:
    """The main thread while the others work: signals, reload, window, status. So many signals were `heard` before."""
    run = built.run
    reading = WorkerGroup(LATE_S)
    again = Reload(built, config, reload, reading, outputs)

    def hear() -> None:
        nonlocal heard
        while heard < signals.times:
            heard += 1
            if heard == 1:
                run.stop()
            else:
                run.abort()

    def tick() -> None:
        hear()
        again.tick()
        if signals.reload and not again.under_way:
            signals.reload = False
            again.begin()
        if built.display is not None and not built.display.poll(0.001):
            run.stop()
        status.tick()

    hear()  # before a short recording is through
    try:
        with reading:
            try:
                run.execute(tick, 0.1 if built.display is None else 0.02)
            finally:
                reading.stop()
    finally:
        if built.display is not None:
            built.display.close()
