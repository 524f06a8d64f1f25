"""Thousands of damaged recordings and lying cameras through the real source: clean errors and counts, nothing else.

    python -m tests.live.fuzz --seconds 60 --seed 1            recordings and RTSP, half of the time each
    python -m tests.live.fuzz --worker rtsp --seed 1 --first 812 --cases 1        that one case again, here

Cases are numbered; case n of a seed is always the same one. They run in a process of their own, since what is tried is
native code: a crash of it ends that process, is reported with its case, and the next process goes on behind it.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from streampose.errors import SourceError
from streampose.sources.base import Picture
from streampose.sources.decoder import MAX_PIXELS
from streampose.sources.libav import VideoOptions
from streampose.sources.video import VideoSource
from tests.live.rows import Row, judged, table
from tests.live.rtsp_script import Camera, script
from tests.live.spoil import spoil
from tests.media import TIME_BASE, damage, write_video

ROOT = Path(__file__).parents[2]
FILES = {
    "a.ts": ("h264", 2), "b.mp4": ("h264", 2), "c.mkv": ("hevc", 0), "d.webm": ("vp8", 0), "e.h264": ("h264", 0),
    "f.avi": ("mjpeg", 0), "g.mp4": ("vp9", 0), "h.flv": ("h264", 0), "i.ts": ("hevc", 2),
}  # fmt: skip
CODECS = ("h264", "hevc", "mjpeg")
TRANSPORTS: tuple[Literal["tcp", "udp"], ...] = ("tcp", "udp")
LIMIT_S = 0.5  # of opening and of each read, on loopback
SLOW_S = 4.0  # a case may take both limits, what libav does between, and a busy machine's time
GRACE_S = 30.0  # a process that is so much later than it should be hangs
SIDE_BY_SIDE = 4
WHAT = ("files", "rtsp")


def write_files(folder: Path) -> dict[str, Path]:
    """A whole recording of each kind."""
    for name, (codec, b_frames) in FILES.items():
        base = Fraction(1, 12) if name.endswith("avi") else TIME_BASE
        raw = "h264" if name.endswith("h264") else None
        write_video(folder / name, codec=codec, b_frames=b_frames, frames=20, time_base=base, container_format=raw)
    return {name: folder / name for name in FILES}


def outcome(url: str, options: VideoOptions) -> str:
    """Run `url` to its end and say how it went; anything but a SourceError escapes."""
    source = VideoSource(url, options)
    last_s = -1.0
    try:
        source.open()
        for item in source.frames(lambda: False):
            if isinstance(item, Picture):
                assert item.time_s > last_s
                assert item.image.shape[0] * item.image.shape[1] <= MAX_PIXELS
                last_s = item.time_s
    except SourceError as error:
        if len(str(error).splitlines()) != 1:
            raise AssertionError(f"not one line: {error!r}") from error
        return f"{type(error).__name__}: {error.kind}"
    finally:
        source.close()
    return "read to its end"


def file_cases(folder: Path, seed: int) -> Callable[[int], tuple[str, str]]:
    """Case n: a recording with some bytes overwritten; gives its kind and how it went."""
    whole = write_files(folder)

    def case(number: int) -> tuple[str, str]:
        name = list(FILES)[number % len(FILES)]
        rng = np.random.default_rng([seed, number])
        flips, after = int(rng.integers(1, 80)), int(rng.integers(0, 400))
        damaged = damage(
            whole[name], folder / f"damaged-{name}", seed=int(rng.integers(1 << 30)), flips=flips, after=after
        )
        return name, outcome(str(damaged), VideoOptions(threads=(0, 0, 2)[number // len(FILES) % 3]))

    return case


def rtsp_cases(camera: Camera, folder: Path, seed: int) -> Callable[[int], tuple[str, str]]:
    """Case n: a camera that says something wrong; gives what, and how it went."""
    good = {codec: script(codec, folder) for codec in CODECS}
    over = [VideoOptions(LIMIT_S, LIMIT_S, transport) for transport in TRANSPORTS]

    def case(number: int) -> tuple[str, str]:
        draw = random.Random(f"{seed}/{number}")
        kind, camera.script = spoil(good[CODECS[number % len(CODECS)]], draw)
        if draw.random() < 0.3 and kind != "answer cut":
            _, camera.script = spoil(camera.script, draw)
        options = over[number % len(over)]
        return f"{kind}, {options.transport}", outcome(f"rtsp://127.0.0.1:{camera.port}/x", options)

    return case


def work(what: str, seed: int, first: int, cases: int, seconds: float) -> None:
    """Body of the process: a line of JSON for each case, before it ("try") and after it.

    Cameras mostly keep one waiting, so several are looked at side by side.
    """
    until_s = time.monotonic() + seconds
    numbers = iter(range(first, first + cases))
    side_by_side = 1 if what == "files" else SIDE_BY_SIDE

    def say(**line: object) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(side_by_side)]
        if what == "files":
            judges = [file_cases(folders[0], seed)]
        else:
            judges = [rtsp_cases(stack.enter_context(Camera()), folder, seed) for folder in folders]

        def body(case: Callable[[int], tuple[str, str]]) -> None:
            for number in numbers:
                if time.monotonic() > until_s:
                    return
                say(**{"try": number})
                began_s = time.monotonic()
                kind, went = case(number)
                say(did=number, kind=kind, went=went, s=round(time.monotonic() - began_s, 3))

        with ThreadPoolExecutor(side_by_side) as pool:
            for done in [pool.submit(body, case) for case in judges]:
                done.result()


@dataclass
class Fuzz:
    """What came out of all cases of one sort. `bad`: a line for each crash, hang, or error that is not clean."""

    what: str
    seed: int
    cases: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    went: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    bad: list[str] = field(default_factory=list)

    def rows(self) -> list[Row]:
        sorts = ", ".join(f"{count} {went}" for went, count in self.went.most_common(3))
        return [
            judged(
                f"fuzz, {self.what}: {self.cases} cases of {len(self.kinds)} kinds",
                "clean errors and counts only",
                "; ".join(self.bad[:3]) or sorts or "nothing ran",
                not self.bad and self.cases > 0,
            ),
            judged(f"fuzz, {self.what}: time of a case", f"within {SLOW_S:g} s", f"at most {self.slowest_s:.2f} s",
                   self.slowest_s < SLOW_S),
        ]  # fmt: skip


def run(what: str, *, seconds: float, seed: int = 1, cases: int = 1_000_000) -> Fuzz:
    """As many cases as fit into `seconds`, at most `cases`, in processes of their own."""
    report = Fuzz(what, seed)
    until_s = time.monotonic() + seconds
    first = 0
    while first < cases and (left_s := until_s - time.monotonic()) > 0 and len(report.bad) < 10:
        last = _one_process(report, first, cases - first, left_s)
        if last is None:
            break
        first = last + 1
    return report


def _one_process(report: Fuzz, first: int, cases: int, seconds: float) -> int | None:
    """Cases from `first` on until the process ends; the last case that it had begun when it died, None where it did not."""
    command = [sys.executable, "-m", "tests.live.fuzz", "--worker", report.what, "--seed", str(report.seed),
               "--first", str(first), "--cases", str(cases), "--seconds", f"{seconds:.1f}"]  # fmt: skip
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=errors, text=True)
        try:
            code = process.wait(seconds + GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
        out.seek(0)
        errors.seek(0)
        tried, open_ = _note(report, (json.loads(line) for line in out if line.endswith("\n")))
        said = errors.read().strip().splitlines()
    if code == 0:
        return None
    if code is None:
        why = f"hung for {GRACE_S:g} s"
    else:
        why = signal.Signals(-code).name if code < 0 else said[-1] if said else f"exit {code}"
    suspects = " or ".join(str(number) for number in sorted(open_))
    report.bad.append(f"case {suspects} of seed {report.seed}: {why}")
    return tried


def _note(report: Fuzz, lines: Iterator[dict[str, object]]) -> tuple[int, set[int]]:
    """Count what was done; gives the last case that was begun and those that were not finished."""
    last, open_ = 0, set()
    for line in lines:
        if "try" in line:
            last = max(last, int(str(line["try"])))
            open_.add(int(str(line["try"])))
            continue
        open_.discard(int(str(line["did"])))
        report.cases += 1
        report.kinds[str(line["kind"])] += 1
        report.went[str(line["went"])] += 1
        report.slowest_s = max(report.slowest_s, float(str(line["s"])))
    return last, open_


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--worker", choices=WHAT)
    wanted = parser.parse_args()
    if wanted.worker:
        work(wanted.worker, wanted.seed, wanted.first, wanted.cases, wanted.seconds)
        return
    reports = [run(what, seconds=wanted.seconds / 2, seed=wanted.seed, cases=wanted.cases) for what in WHAT]
    print(table([row for report in reports for row in report.rows()]))
    for report in reports:
        print(f"\n{report.what}: {dict(report.kinds)}\n{dict(report.went)}")
        print("\n".join(report.bad))


if __name__ == "__main__":
    main()
