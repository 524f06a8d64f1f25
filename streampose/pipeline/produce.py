"""The producer of one camera: pictures in, numbered and timed frames out, with every word that must be said between them.

It says, in the order in which they happen: `CameraState` when the source changed its state, `Break` before the first frame
of each segment, `Gap` for what no frame will ever cover (disconnected, stalled, corrupt), and `End`, once, last.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Protocol

from streampose.errors import StreamposeError
from streampose.messages import Break, CameraState, Control, End, Frame, Gap, GapCause, Image, SourceInfo, SourceState
from streampose.pipeline.channel import Channel, ChannelClosed
from streampose.pipeline.keeper import Keeper, KeepOptions, Lost, Opened, Paused, Resumed, Stalled
from streampose.pipeline.ledger import CameraLedger
from streampose.pipeline.patience import Pace
from streampose.pipeline.workers import WorkerGroup
from streampose.registry import SOURCES, load
from streampose.sources.base import Corrupt, Picture, Source

log = logging.getLogger(__name__)

HOLE_STEPS = 4.0  # a step so many times the usual one, and longer than
HOLE_S = 0.3  # this, lacks pictures: lost packets leave no other trace
BURST_S = 10.0  # so long after its first picture a connection may still bring what waited at the camera
LATE_S = 0.5  # pictures from before a stall that come for longer are no rest of it
MIN_STEP_S = 1e-6  # two frames of a camera never share a time


class WatchesPicture(Protocol):
    """What looks at the pictures of a camera for signs that it is blind (`sources.blind.Watch`)."""

    def see(self, image: Image, time_s: float) -> Sequence[tuple[SourceState, str]]: ...

    def reset(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ProduceOptions:
    """`keep`: how the source is kept running. `make_watch` makes the watch for blindness, None for none; only of a live
    source are the pictures looked at. `prepare` is called in the producer's thread with the width and height of the
    pictures before each segment's first goes out: what takes long for a new size holds up this camera only. `opened` is
    called there, too, with what each opened source is, before its first picture."""

    keep: KeepOptions = field(default_factory=KeepOptions)
    make_watch: Callable[[], WatchesPicture] | None = None
    prepare: Callable[[int, int], None] | None = None
    opened: Callable[[SourceInfo], None] | None = None


@dataclass(frozen=True, slots=True)
class _Mark:
    """An instant of a camera: its `time_s`, the monotonic and the wall time of it."""

    time_s: float
    monotonic_s: float
    wall_s: float | None

    def after(self, step_s: float) -> _Mark:
        """The instant `step_s` later."""
        wall_s = None if self.wall_s is None else self.wall_s + step_s
        return _Mark(self.time_s + step_s, self.monotonic_s + step_s, wall_s)


@dataclass(slots=True)
class _Unseen:
    """A gap whose end is not known yet; it lasts until the next one begins or a picture comes."""

    cause: GapCause
    start: _Mark
    frames: int | None = None
    detail: str = ""


class Producer:
    """The body of thread `produce:gate`. Ends when the recording does, or when `stop` or the group says so.

    Time: a camera that answers at once starts at its first frame; one that does not, at the start of the watch, so that
    what was missed is in the account. Over a break time goes on by the monotonic clock from the last frame; what a
    connection brought at once when it began, and so put time ahead of that clock, makes the break after it seem shorter.
    """

    def __init__(
        self,
        camera: str,
        make_source: Callable[[], Source],
        out: Channel[Frame | Control],
        ledger: CameraLedger,
        group: WorkerGroup,
        options: ProduceOptions | None = None,
    ) -> None:
        self.camera = camera
        self._out = out
        self._ledger = ledger
        self._group = group
        self._options = options or ProduceOptions()
        self._stop = threading.Event()
        self.ended = False
        self.said: set[str] = set()  # what was wrong, or what it was about
        self.keeper = Keeper(camera, make_source, group, self._stopped, self._options.keep)
        self._watch = self._options.make_watch() if self._options.make_watch is not None else None
        self._state: tuple[SourceState, str] | None = None
        self._kind = ""
        self._said_s = 0.0  # of what time the state was said
        self._late_s: float | None = None  # when the first picture came that is older than that
        self._info: SourceInfo | None = None
        self._live = self._options.keep.live
        self._index = 0
        self._segment = -1
        self._offset_s: float | None = None  # time_s of the camera = time_s of the run + offset
        self._begins = True  # the next picture is the first of its run
        self._break_for = "start"
        self._began = _Mark(0.0, time.monotonic(), None)
        self._last: _Mark | None = None  # the last frame
        self._run_began: _Mark | None = None  # the first frame of this connection
        self._ahead_s = 0.0  # by how much bursts put `time_s` ahead of the monotonic clock
        self._was_ahead_s = 0.0  # and did at that frame
        self._pace = Pace()  # of the frames, where no gap lies between
        self._unseen: _Unseen | None = None  # what nobody sees now; the gaps before it are told
        self._ends_s = 0.0  # where a recording that is cut would have ended

    def stop(self) -> None:
        """End this camera; heard within three seconds in every state."""
        self._stop.set()

    def _stopped(self) -> bool:
        return self._stop.is_set() or self._group.stopping.is_set()

    def run(self) -> None:
        """Produce to the end. An error ends this camera in state `failed` and concerns no other."""
        error: str | None = None
        try:
            try:
                self._produce()
            except StreamposeError as failure:
                error = str(failure)
                self._tell(logging.ERROR, error)
            except ChannelClosed:
                raise
            except Exception as failure:  # a worker boundary: one camera fails, the others go on
                error = f"bug: {type(failure).__name__}: {failure}"
                log.error("%s: failed", self.camera, exc_info=failure)
            self._end(error)
        finally:
            self._out.close()
            self.ended = True

    def _produce(self) -> None:
        self._began = _Mark(0.0, time.monotonic(), time.time() if self._live else None)
        self._say("connecting", "")
        with closing(self.keeper.events()) as events:
            for event in events:
                if isinstance(event, Picture):
                    self._picture(event)
                elif isinstance(event, Corrupt):
                    self._corrupt(event)
                elif isinstance(event, Opened):
                    self._open(event.info)
                elif isinstance(event, Stalled):
                    self._say("stalled", f"no picture for {event.silence_s:.1f} s")
                elif isinstance(event, Paused):
                    self._pause(event.reason)
                elif isinstance(event, Resumed):
                    self._begin_gap(_Unseen("disconnected", self._now(), None, "connecting after a pause"))
                    self._say("connecting", "its hours have begun")
                else:
                    self._lost(event)

    def _open(self, info: SourceInfo) -> None:
        """A live source says with its first picture what its times mean; a recording begins now, after all that was told."""
        self._info, self._live, self._begins = info, info.live, True
        self._offset_s = None if info.live else self._goes_on_at(time.monotonic())
        if self._options.opened is not None:
            self._options.opened(info)

    def _tell(self, level: int, text: str, about: str = "") -> None:
        """Log what is wrong, unless this, or something `about` the same, was said before, as in a first reading."""
        if (about or text) not in self.said:
            self.said.add(about or text)
            log.log(level, "%s: %s", self.camera, text)

    def _corrupt(self, corrupt: Corrupt) -> None:
        self._ledger.corrupt(corrupt.frames)
        self._index += corrupt.frames
        if corrupt.until_s is not None:
            self._ends_s = corrupt.until_s + (self._offset_s or 0.0)
        if not self._live:
            self._say_damage(corrupt)
        if self._unseen is not None and self._unseen.cause == "corrupt":
            self._unseen.frames = (self._unseen.frames or 0) + corrupt.frames
            return
        self._begin_gap(_Unseen("corrupt", self._damaged_from(corrupt), corrupt.frames, corrupt.what))

    def _damaged_from(self, corrupt: Corrupt) -> _Mark:
        if self._live and self._offset_s is None:  # no picture of this connection says what its times mean
            return self._now()
        time_s = corrupt.time_s + (self._offset_s or 0.0)
        if self._last is None:
            return replace(self._now(), time_s=max(time_s, 0.0))
        return self._last.after(max(time_s - self._last.time_s, 0.0))

    def _say_damage(self, corrupt: Corrupt) -> None:
        """Every picture file that cannot be read is named; a video that is damaged in many places is named once."""
        if self._info is not None and load(SOURCES, self._info.kind).stills:
            self._tell(logging.WARNING, corrupt.what)
        else:
            self._tell(logging.WARNING, f"{corrupt.what}; the record says where pictures are missing", "damage")

    def _lost(self, lost: Lost) -> None:
        self._offset_s = None
        self._note_outage(lost.reason)
        self._break_for = lost.reason
        self._say("reconnecting", lost.reason, lost.kind)
        log.debug("%s: next try in %.1f s", self.camera, lost.wait_s)

    def _pause(self, reason: str) -> None:
        self._offset_s = None
        self._note_outage(reason, "paused")
        self._break_for = "watched again after a pause"
        self._say("paused", reason)

    def _note_outage(self, reason: str, cause: GapCause = "disconnected") -> None:
        """From now on nothing is seen; had the picture stood still before, it was not seen since then."""
        if self._unseen is not None and self._unseen.cause == cause:
            return
        start = self._now()
        if self._unseen is None:
            if self._last is None:
                start = self._began
            elif self._stalls():
                self._begin_gap(_Unseen("stalled", self._last, None, self._state[1] if self._state else ""))
            else:
                start = self._last
        self._begin_gap(_Unseen(cause, start, None, reason))

    def _stalls(self) -> bool:
        return self._state is not None and self._state[0] == "stalled"

    def _picture(self, picture: Picture) -> None:
        assert self._info is not None
        height, width = picture.image.shape[:2]
        resized = (width, height) != (self._info.width, self._info.height)
        captured_s = picture.arrival_s if picture.captured_s is None else picture.captured_s
        begins, self._begins = self._begins, False
        if self._offset_s is None:
            self._offset_s = self._goes_on_at(captured_s) - picture.time_s
        time_s = picture.time_s + self._offset_s
        if self._last is not None:
            time_s = max(time_s, self._last.time_s + MIN_STEP_S)
            late_s = time_s - self._last.time_s
            if self._live and self._unseen is None and self._is_hole(late_s):
                self._begin_gap(_Unseen("stalled", self._last, None, f"no picture for {late_s:.1f} s"))
        here = _Mark(time_s, captured_s, picture.wall_s)
        if self._live:
            self._note_burst(here, begins)
        self._end_gap(here)
        if begins or picture.jump or (resized and self._segment >= 0):
            self._begin_segment(picture, begins)
        if not self._stalls() or here.time_s >= self._said_s or self._lives_on(picture.arrival_s):
            self._say("live", "", at=replace(here, time_s=max(here.time_s, self._said_s)))
        self._hand_on(picture, here)

    def _lives_on(self, arrival_s: float) -> bool:
        """Whether pictures from before a stall go on coming; what is handed out late, as a silent read fails, is no life."""
        if self._late_s is None:
            self._late_s = arrival_s
        return arrival_s - self._late_s > LATE_S

    def _note_burst(self, here: _Mark, begins: bool) -> None:
        """See how far the pictures of a connection that has just begun come before they are due by the monotonic clock."""
        if begins or self._run_began is None:
            if self._last is not None:  # what the break was too short for
                passed_s = here.monotonic_s - self._last.monotonic_s
                self._ahead_s = max(self._ahead_s + here.time_s - self._last.time_s - passed_s, 0.0)
            self._run_began, self._was_ahead_s = here, self._ahead_s
            return
        passed_s = here.monotonic_s - self._run_began.monotonic_s
        if passed_s <= BURST_S:
            self._ahead_s = max(self._ahead_s, self._was_ahead_s + here.time_s - self._run_began.time_s - passed_s)

    def _is_hole(self, step_s: float) -> bool:
        """Whether pictures are missing between the last frame and one `step_s` later, by the steps that are usual here."""
        usual_s = self._pace.step_s if self._pace.sure else None
        self._pace.add(step_s)
        return usual_s is not None and step_s > max(HOLE_STEPS * usual_s, HOLE_S)

    def _time_at(self, monotonic_s: float) -> float:
        """The time of the camera at an instant after its last frame; 0 at the first frame of one that answered at once."""
        if self._last is not None:
            passed_s = max(monotonic_s - self._last.monotonic_s, 0.0)
            if self._offset_s is None:  # between two connections the monotonic clock catches up
                passed_s = max(passed_s - self._ahead_s, min(passed_s, self._pace.step_s or 0.0))
            return self._last.time_s + passed_s
        if self._unseen is not None:
            return max(monotonic_s - self._began.monotonic_s, 0.0)
        return 0.0

    def _goes_on_at(self, monotonic_s: float) -> float:
        """`_time_at` of the first picture of a run, which no gap that was told reaches into, and which comes after what was
        said: a stall is of the time of its run, and what the clock catches up for ends there."""
        told_s = self._unseen.start.time_s if self._unseen is not None else 0.0
        return max(self._time_at(monotonic_s), self._said_s, told_s)

    def _now(self) -> _Mark:
        now_s = time.monotonic()
        if self._live:
            return _Mark(max(self._time_at(now_s), self._said_s), now_s, time.time())
        begins_s = self._offset_s or 0.0
        if self._last is not None and self._last.time_s >= begins_s:
            return self._last
        return _Mark(begins_s, now_s, None)

    def _begin_gap(self, unseen: _Unseen) -> None:
        self._end_gap(unseen.start)
        self._unseen = unseen

    def _end_gap(self, until: _Mark) -> None:
        """Tell of what was not seen up to now, where there is any."""
        unseen, self._unseen = self._unseen, None
        if unseen is None:
            return
        start = unseen.start if unseen.start.time_s <= until.time_s else until
        self._ledger.interrupted(start.time_s, start.wall_s)
        if until.time_s > start.time_s or unseen.frames:
            self._out.put(
                Gap(self.camera, unseen.cause, start.time_s, until.time_s, unseen.frames,
                    start.wall_s, until.wall_s, unseen.detail)
            )  # fmt: skip

    def _begin_segment(self, picture: Picture, run_begins: bool) -> None:
        assert self._info is not None
        height, width = picture.image.shape[:2]
        reason = picture.jump
        if not reason:
            reason = self._break_for if run_begins else f"size changed to {width}x{height}"
        self._info = replace(self._info, width=width, height=height)
        self._segment += 1
        if self._watch is not None:
            self._watch.reset()
        if self._options.prepare is not None:
            self._options.prepare(width, height)
        self._out.put(Break(self.camera, self._segment, self._info, reason))

    def _hand_on(self, picture: Picture, here: _Mark) -> None:
        frame = picture.to_frame(self.camera, self._index, self._segment, here.time_s)
        self._index += 1
        self._last = here
        self._ledger.decoded(frame)
        if self._live and self._watch is not None:
            for state, reason in self._watch.see(frame.image, frame.time_s):
                self._out.put(CameraState(self.camera, state, reason, frame.time_s, frame.wall_s))
        self._out.put(frame)

    def _say(self, state: SourceState, reason: str, kind: str = "", at: _Mark | None = None) -> None:
        """Say a state once: again only when it, or the kind of reason, changes."""
        if self._state is not None and (self._state[0], self._kind) == (state, kind):
            return
        self._state, self._kind, self._late_s = (state, reason), kind, None
        now = at or self._now()
        self._said_s = now.time_s
        level = logging.WARNING if state in ("stalled", "reconnecting") else logging.DEBUG
        log.log(level, "%s: %s%s", self.camera, state, f" ({reason})" if reason else "")
        self._out.put(CameraState(self.camera, state, reason, now.time_s, now.wall_s))

    def _end(self, error: str | None) -> None:
        """The last words. What was not seen until now is told; the counts are those of this moment, for frames that are
        still on their way the stage that ends them completes the account."""
        if self._live and (self._stalls() or self._last is None) and self._unseen is None:
            self._note_outage(error or "stopped before a picture came")
        now = self._now()
        if not self._live:
            now = now.after(max(self._ends_s - now.time_s, 0.0))
        self._end_gap(now)
        self._say("ended" if error is None else "failed", error or "", at=now)
        self._out.put(End(self.camera, self._ledger.counts, error))
