"""Runs a source for ever, which itself runs only once: reads it in a thread of its own, watches it, and tries again.

Limits inside the source are not enough: libav has calls that no timeout of its own covers, so the watch is kept here,
outside of it. A reader that does not come back is abandoned (a thread in a native call cannot be ended from Python) and a
new one takes its place; their number is bounded. A recording is read once and its end is the end. What was live stays a
camera: a recording in its place (a playlist that got its end, a clip that a relay shows instead) is an outage, for it was
seen already or is something else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from streampose.errors import FailureKind, PermanentSourceError, SourceError, TransientSourceError
from streampose.hours import Hours
from streampose.messages import SourceInfo
from streampose.pipeline.channel import Channel, ChannelClosed
from streampose.pipeline.patience import Backoff, Pace
from streampose.pipeline.workers import Worker, WorkerGroup
from streampose.sources.base import Corrupt, PassedOver, Picture, Source, SourceItem
from streampose.sources.limits import SEGMENT_S

log = logging.getLogger(__name__)

POLL_S = 0.1  # how often a waiting keeper looks whether it was stopped
SILENT_PICTURES = 4.0  # so many missing pictures in a row are a stall, whatever the rate; twice as many are given up
AT_ONCE_S = 0.5  # what comes within this after the first picture of a connection may have waited at the camera
SLOWEST_FPS = 0.05  # what announces less announces nonsense
HANDOVER = 4  # pictures between reader and keeper: enough that neither waits for the other's thread to be scheduled


@dataclass(frozen=True, slots=True)
class KeepOptions:
    """When a keeper loses patience, in seconds.

    `live`: the source is a camera and is opened again whenever it ends. `stall_s` without a picture it is said to stall,
    after `give_up_s` it is given up and opened anew; a slow camera has longer, by the steps between its pictures. Until
    those are known, and until the first picture of each connection, it has `unpaced_s`: a key frame may be far away (that
    the network is silent is the source's own matter). A source that decodes key frames only tells of what it passes over
    by `PassedOver`, which is as good as a picture here. One that says that it delivers whole segments is said to stall after
    half of `quiet_s` and is given up after all of it, a little longer than the source itself waits. `open_s` bounds the
    opening. `backoff_first_s` doubles up to `backoff_cap_s`.
    A camera that answers, but refuses (user or password, codec), is asked only every `refused_backoff_s` or so: some lock
    the account of whoever insists. One that has given pictures before may be starting up: it is asked as often as any
    other for the first `refused_grace_s` of its refusals, then ever less often. With `retry_refused` off it fails at once,
    as does what cannot be asked at all (a wrong scheme or option).
    `stop_grace_s`: how long a reader that was told to end is waited for; it is said to be stuck once it has been deaf for
    `deaf_s`, longer than its source allows the network. `steady_s` of pictures make a failure a new one. `max_stuck` readers
    may be deaf at a time. Outside its `hours` a camera is not connected; `local_time`
    tells the time of day they are of.
    """

    live: bool = False
    stall_s: float = 2.0
    give_up_s: float = 3.0
    unpaced_s: float = 20.0
    quiet_s: float = SEGMENT_S + 5.0
    open_s: float = 15.0
    backoff_first_s: float = 0.5
    backoff_cap_s: float = 2.5
    refused_backoff_s: float = 30.0
    refused_grace_s: float = 60.0
    retry_refused: bool = True
    stop_grace_s: float = 1.0
    deaf_s: float = 2.0 * SEGMENT_S
    steady_s: float = 5.0
    max_stuck: int = 3
    hours: Hours | None = None
    local_time: Callable[[], datetime] = datetime.now


@dataclass(frozen=True, slots=True)
class Opened:
    """The source is connected, but no picture has come yet."""

    info: SourceInfo


@dataclass(frozen=True, slots=True)
class Stalled:
    """No picture has come for `silence_s` seconds; the connection still stands."""

    silence_s: float


@dataclass(frozen=True, slots=True)
class Lost:
    """The source ended or could not be opened, for `reason`; the next try is in `wait_s` seconds."""

    reason: str
    kind: FailureKind
    wait_s: float


@dataclass(frozen=True, slots=True)
class Paused:
    """The hours of the camera are over, for `reason`: its connection is closed and nothing is asked of it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """The hours of the camera have begun: it is connected again."""


@dataclass(frozen=True, slots=True)
class _OffDuty:
    """Why a run is over: the hours of the camera are."""


@dataclass(frozen=True, slots=True)
class _Finished:
    error: Exception | None


Event: TypeAlias = Opened | Picture | Corrupt | Stalled | Lost | Paused | Resumed


class Reading:
    """One run of a source in its own thread `read:gate`."""

    def __init__(
        self,
        name: str,
        make_source: Callable[[], Source],
        group: WorkerGroup,
        stopped: Callable[[], bool],
        live_only: bool,
    ) -> None:
        self._name = f"read:{name}"
        self._make_source = make_source
        self._stopped = stopped
        self._live_only = live_only
        self._told = False
        self._inbox: Channel[Opened | SourceItem | _Finished] = Channel(self._name, HANDOVER, "lossless")
        self.worker: Worker = group.start(self._name, self._read, abandonable=True)

    def next(self, timeout_s: float) -> Opened | SourceItem | _Finished | None:
        """The next item, None where none came in time."""
        try:
            return self._inbox.get(timeout_s)
        except TimeoutError:
            return None

    def end(self, grace_s: float) -> bool:
        """Tell the reader to end; whether it did within `grace_s`."""
        self._told = True
        self._inbox.abort()
        self.worker.thread.join(grace_s)
        return not self.worker.running

    def _ending(self) -> bool:
        return self._told or self._stopped()

    def _read(self) -> None:
        error: Exception | None = None
        source: Source | None = None
        try:
            source = self._make_source()
            self._inbox.put(Opened(source.open(self._live_only)))
            for item in source.frames(self._ending):
                self._inbox.put(item)
        except ChannelClosed:
            pass  # told to end while handing over
        except SourceError as failure:
            # Its traceback holds the frames, and they the decoder with its threads and buffers: with the error itself
            # among their locals they would all wait for the garbage collector.
            error = failure.with_traceback(None)
            error.__context__ = error.__cause__ = None
        except Exception as failure:  # noqa: BLE001  (a worker boundary: what went wrong is handed to the keeper)
            error = failure
        try:
            self._inbox.put(_Finished(error))
        except ChannelClosed:
            log.debug("%s ended late: %s", self._name, error)
        finally:
            if source is not None:
                self._close(source)

    def _close(self, source: Source) -> None:
        try:
            source.close()
        except Exception as failure:  # a worker boundary: what could not be let go costs no camera
            log.error("%s: its source could not be closed", self._name, exc_info=failure)


class Keeper:
    """Gives the events of one camera until it is stopped (or, for a recording, until its end).

    `backoff` may be given in place of the one that `options` describe.
    """

    def __init__(
        self,
        name: str,
        make_source: Callable[[], Source],
        group: WorkerGroup,
        stopped: Callable[[], bool],
        options: KeepOptions,
        backoff: Backoff | None = None,
    ) -> None:
        self._name = name
        self._make_source = make_source
        self._group = group
        self._stopped = stopped
        self._options = options
        self._backoff = backoff or Backoff(options.backoff_first_s, options.backoff_cap_s)
        self._live = options.live
        self._pace = Pace()
        self._barren = 0  # connections in a row that were given up after what came at once
        self._was_live = False  # it has given pictures that were live
        self._welcome = False  # it has given pictures, so it knows these credentials and sends what can be decoded
        self._refuses_since_s: float | None = None
        self._deaf: list[tuple[Worker, float]] = []  # readers that were told to end, and when
        self._stuck: set[Worker] = set()  # those of which it was said
        self.runs = 0
        self.abandoned = 0

    def events(self) -> Generator[Event, None, None]:
        """Everything that happens, in order. Raises the error of a recording, or of a camera not to be asked again."""
        while not self._stopped():
            if self._off_duty():
                yield from self._pause()
                continue
            if not self._has_room():
                what = f"{len(self._deaf)} readers are stuck in native calls"
                yield Lost(what, "timeout", self._options.stall_s)
                self._rest(self._options.stall_s)
                continue
            self.runs += 1
            began_s = time.monotonic()
            reading = Reading(self._name, self._make_source, self._group, self._stopped, self._was_live)
            try:
                over = yield from self._watch(reading)
            finally:
                self._release(reading)
            if over is None:
                return
            if isinstance(over, _OffDuty):
                continue
            lost = self._lose(over, time.monotonic() - began_s)
            yield lost
            self._rest(lost.wait_s)

    def _off_duty(self) -> bool:
        hours = self._options.hours
        return hours is not None and self._live and not hours.open_at(self._options.local_time())

    def _pause(self) -> Generator[Event, None, None]:
        """Wait for the hours of the camera."""
        assert self._options.hours is not None
        yield Paused(f"outside its hours, until {self._options.hours.opens_after(self._options.local_time())}")
        while self._off_duty() and not self._stopped():
            time.sleep(POLL_S)
        if not self._stopped():
            self._backoff.reset()
            yield Resumed()

    def _watch(self, reading: Reading) -> Generator[Event, None, Exception | _OffDuty | None]:
        """The events of one run; returns why it is over, None where nothing should follow."""
        info: SourceInfo | None = None
        first_s: float | None = None
        shown: Picture | None = None
        at_once = False  # all pictures so far came together
        last_s = time.monotonic()
        stalled = False
        while not self._stopped():
            item = reading.next(POLL_S)
            if self._off_duty():
                return _OffDuty()
            now_s = time.monotonic()
            self._say_deaf(now_s)
            if item is None:
                if not self._live:
                    continue
                silence_s = now_s - last_s
                if silence_s > (self._options.open_s if info is None else self._give_up_s(info, shown is not None)):
                    self._forget_pace(at_once)
                    what = "no answer" if info is None else "no picture"
                    return TransientSourceError(f"{what} for {silence_s:.1f} s, given up", "timeout")
                if info is not None and not stalled and silence_s > self.patience_s(info):
                    stalled = True
                    yield Stalled(silence_s)
                continue
            if isinstance(item, _Finished):
                return self._over(item.error)
            if isinstance(item, PassedOver):
                last_s = now_s
                continue
            if isinstance(item, Opened):
                info = item.info
                self._live = info.live
                last_s = now_s
            elif isinstance(item, Picture):
                first_s = item.arrival_s if first_s is None else first_s
                at_once = item.arrival_s - first_s <= AT_ONCE_S
                if shown is not None and not item.jump and not (at_once and self._is_slower):
                    self._pace.add(item.time_s - shown.time_s)
                shown = item
                self._was_live |= self._live
                last_s = now_s
                stalled = False
                self._welcome, self._refuses_since_s = True, None
                if now_s - first_s >= self._options.steady_s:
                    self._backoff.reset()
            yield item
        return None

    def _forget_pace(self, at_once: bool) -> None:
        """A connection is given up; `at_once`: after pictures that came together."""
        self._barren = self._barren + 1 if at_once else 0
        if self._is_slower:
            self._pace = Pace()

    @property
    def _is_slower(self) -> bool:
        """Whether the camera has become slower than its pace says, for nothing follows what it sends at once."""
        return self._barren > 1

    def patience_s(self, info: SourceInfo) -> float:
        """How long a camera may be silent; one of a picture in five seconds is not stalled after two."""
        step_s = self._pace.step_s
        if step_s is None:
            step_s = 1.0 / info.nominal_fps if info.nominal_fps and info.nominal_fps > SLOWEST_FPS else 0.0
        quiet_s = self._options.quiet_s if info.segmented else 0.0
        return max(self._options.stall_s, quiet_s / 2.0, SILENT_PICTURES * step_s)

    def _give_up_s(self, info: SourceInfo, shown: bool) -> float:
        """How long a camera that is open may be without a picture; `shown`: it has given one in this connection."""
        options, step_s, patience_s = self._options, self._pace.step_s, self.patience_s(info)
        quiet_s = options.quiet_s if info.segmented else 0.0
        if step_s is None or not shown:
            return max(options.give_up_s, options.unpaced_s, quiet_s, 2.0 * patience_s)
        return max(options.give_up_s, patience_s, quiet_s, 2.0 * SILENT_PICTURES * step_s)

    def _over(self, error: Exception | None) -> Exception | None:
        """What the end of a run means: nothing for a recording that was read, another try for a camera."""
        if not self._live:
            if error is not None:
                raise error
            return None
        if self._stopped():
            return None
        return error or TransientSourceError("ended the stream", "ended")

    def _lose(self, error: Exception, took_s: float) -> Lost:
        """What a failed run of `took_s` seconds means."""
        if isinstance(error, PermanentSourceError) and (error.kind == "usage" or not self._options.retry_refused):
            raise error
        if not isinstance(error, SourceError):
            log.error("%s: a bug in its source; it is opened again", self._name, exc_info=error)
            wait_s = self._backoff.next_s(self._refused_step_s(), took_s)
            return Lost(f"bug: {type(error).__name__}: {error}", "other", wait_s)
        refused = isinstance(error, PermanentSourceError)
        return Lost(str(error), error.kind, self._backoff.next_s(self._refused_step_s() if refused else 0.0, took_s))

    def _refused_step_s(self) -> float:
        """Up to how long to wait before asking again who refuses."""
        options, now_s = self._options, time.monotonic()
        if not self._welcome:
            return options.refused_backoff_s
        if self._refuses_since_s is None:
            self._refuses_since_s = now_s
        return min(max(now_s - self._refuses_since_s - options.refused_grace_s, 0.0), options.refused_backoff_s)

    def _release(self, reading: Reading) -> None:
        """Let go of a reader. One that waits for the network ends when that is silent for long; nobody waits for it."""
        told_s = time.monotonic()
        if not reading.end(self._options.stop_grace_s):
            self._group.abandon(reading.worker)
            self._deaf.append((reading.worker, told_s))
            self.abandoned += 1

    def _has_room(self) -> bool:
        self._say_deaf(time.monotonic())
        self._deaf = [(worker, told_s) for worker, told_s in self._deaf if worker.running]
        self._stuck &= {worker for worker, _ in self._deaf}
        return len(self._deaf) < self._options.max_stuck

    def _say_deaf(self, now_s: float) -> None:
        """Say once of a reader that it is stuck."""
        for worker, told_s in self._deaf:
            if worker.running and told_s <= now_s - self._options.deaf_s and worker not in self._stuck:
                log.warning("%s: stuck in a native call for %.0f s, abandoned", worker.name, now_s - told_s)
                self._stuck.add(worker)

    def _rest(self, wait_s: float) -> None:
        until_s = time.monotonic() + wait_s
        while not self._stopped() and not self._off_duty() and (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, POLL_S))
