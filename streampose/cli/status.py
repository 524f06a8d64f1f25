"""What a run says on the terminal while it goes: a progress bar for recordings, a line a second for live cameras and for
recordings of unknown length."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from streampose.messages import SourceInfo
from streampose.pipeline.lane import Tally
from streampose.pipeline.outlet import Outlet
from streampose.pipeline.run import CameraRun
from streampose.redact import one_line
from streampose.units import count

PLAIN_EVERY_S = 10.0  # where the output is a file, one line in ten seconds is enough
NAMED_FILES = 8  # of more than these the report names the first and the last


class Status:
    """Called a few times a second from the main thread; prints to standard error, never to standard output. `again`: what is
    read was opened, and said to be, before."""

    def __init__(self, cameras: Callable[[], Sequence[CameraRun]], title: str = "", *, again: bool = False) -> None:
        self._cameras = cameras
        self._title = title
        self._again = again
        self._tty = sys.stderr.isatty()
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._announced: dict[CameraRun, SourceInfo] = {}
        self._last_s = time.monotonic()
        self._seen: dict[CameraRun, tuple[float, int, int]] = {}
        self.first_result_s: float | None = None

    def __enter__(self) -> Status:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tick(self) -> None:
        now_s = time.monotonic()
        cameras = self._cameras()
        for camera in cameras:
            self._announce(camera)
            if self.first_result_s is None and camera.lane.tally.frames:
                self.first_result_s = now_s
        bars = [c for c in cameras if self._tty and (i := c.lane.tally.info) and not i.live and i.duration_s]
        if bars:
            self._progress(bars)
        due_s = 1.0 if self._tty else PLAIN_EVERY_S
        if now_s - self._last_s >= due_s:
            for camera in cameras:
                if camera not in bars:
                    self._line(camera, now_s)
            self._last_s = now_s

    def _print(self, text: str) -> None:
        text = one_line(text)
        with contextlib.suppress(OSError):  # a log on a full disk, or a reader of it that is gone, ends no watch
            if self._bar is not None:
                self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
            else:
                print(text, file=sys.stderr, flush=True)

    def _announce(self, camera: CameraRun) -> None:
        """Say what was opened: a recording once, a live camera also when it was opened anew. Pictures of another size
        alone are no opening; a folder of photographs has many."""
        info, before = camera.lane.tally.info, self._announced.get(camera)
        if info is None or info is before:
            return
        self._announced[camera] = info
        resized = before is not None and (before.width, before.height) != (info.width, info.height)
        if not self._again and (before is None or (info.live and not resized)):
            rate = f", {info.nominal_fps:g} fps" if info.nominal_fps else ""
            codec = f", {info.codec}" if info.codec else ""
            self._print(
                f"{camera.name}: {info.url} ({info.width}×{info.height}{rate}{codec}), "
                f"{'live' if info.live else info.kind}, policy {camera.lane.frames.policy}"
            )

    def _progress(self, recordings: Sequence[CameraRun]) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f} s  {task.fields[people]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        for camera in recordings:
            tally = camera.lane.tally
            info = tally.info
            if info is None or not info.duration_s:
                continue
            if camera.name not in self._tasks:
                name = f"{self._title}{camera.name}"
                self._tasks[camera.name] = self._bar.add_task(name, total=info.duration_s, people=count(0, "person"))
            over = tally.state in ("ended", "failed")
            done_s = info.duration_s if over else min(tally.time_s, info.duration_s)
            people = "" if over else count(tally.people, "person")
            self._bar.update(self._tasks[camera.name], completed=done_s, people=people)

    def _line(self, camera: CameraRun, now_s: float) -> None:
        tally = camera.lane.tally
        before_s, put, frames = self._seen.get(camera, (self._last_s, 0, 0))
        put_now = camera.lane.frames.stats().frames
        span_s = max(now_s - before_s, 1e-3)
        self._seen[camera] = (now_s, put_now, tally.frames)
        came = tally.frames - frames
        people = f", {count(tally.people, 'person')}" if came else ""  # what was seen before the last line is over
        if tally.state in ("ended", "failed"):
            return  # it was said, and is in the report
        if tally.info is not None and not tally.info.live:
            whole = f" of {tally.info.duration_s:.0f}" if tally.info.duration_s else ""
            self._print(f"{self._title}{camera.name}: {tally.time_s:.0f}{whole} s, {came / span_s:.1f} fps{people}")
            return
        age = f", age {camera.lane.age.last_s * 1e3:.0f} ms" if came else ""
        self._print(
            f"{self._title}{camera.name}: {how(tally)}, {(put_now - put) / span_s:.1f} fps in, {came / span_s:.1f} fps out"
            f"{people}{age}, {tally.dropped} dropped{behind(camera.lane.outputs, now_s)}{broken(camera)}"
        )


def broken(camera: CameraRun) -> str:
    """The sinks that an error ended, and a main stream that is not there to be recorded: `, record ended`, or nothing."""
    words = [f"{worker.sink.name} ended" for worker in camera.sinks if worker.error is not None]
    if camera.tap is not None and camera.tap.error is not None:
        words.append("source stream ended")
    elif camera.main is not None and camera.main.state not in ("live", "paused"):
        words.append(f"source stream {camera.main.state}")
    return "".join(f", {word}" for word in words)


def behind(outputs: Sequence[Outlet], now_s: float) -> str:
    """The sinks that are passed over: `, record behind for 12 s (57 missed)`, or nothing. `now_s` is monotonic."""
    passed_over = [(o, since_s) for o in outputs if (since_s := o.behind_since_s) is not None and not o.closed]
    return "".join(f", {o.sink} behind for {now_s - since_s:.0f} s ({o.missed} missed)" for o, since_s in passed_over)


def how(tally: Tally) -> str:
    """The state of a camera and, beside it, what is wrong with its picture: `live, frozen (the same picture for 20 s)`."""
    words = [(tally.state, tally.reason), (tally.blind, tally.blind_reason)]
    return ", ".join(f"{state} ({reason})" if reason else state for state, reason in words if state)


def report(cameras: Sequence[CameraRun]) -> str:
    """The last words: for each camera what was seen (of a live one also for how long it was watched, and how much of that is
    missing), and where its files are, as far as they were kept."""
    lines = []
    for camera in cameras:
        tally = camera.lane.tally
        ages = camera.lane.age.summary_ms()
        lost = f", {tally.dropped} dropped" if tally.dropped else ""
        corrupt = f", {tally.counts.corrupt} corrupt" if tally.counts is not None and tally.counts.corrupt else ""
        live = tally.ledger.gaps > 0 if tally.info is None else tally.info.live
        length = f"{tally.ledger.watched_s:.1f} s watched, {tally.ledger}" if live else f"{tally.time_s:.1f} s"
        age = f", age p95 {ages['p95']:.0f} ms" if ages and live else ""
        missed = "".join(f", {o.missed} missed by {o.sink}" for o in camera.lane.outputs if o.missed)
        lines.append(
            f"{camera.name}: {count(tally.frames, 'frame')}, {length}, "
            f"{count(len(tally.ids), 'person')}{lost}{corrupt}{missed}{age}{broken(camera)}"
        )
        lines += [f"  {line}" for paths in camera.outputs() for line in _files(paths, camera.whole())]
    return "\n".join(lines)


def _files(paths: Sequence[str], closed: bool) -> list[str]:
    """Those of a sink that are there. Where its disk may hang (not all is `closed`) it is not looked at."""
    there = [path for path in paths if os.path.exists(path)] if closed else list(paths)
    if len(there) <= NAMED_FILES:
        return there
    return [there[0], f"… {len(there) - 2} more", there[-1]]
