"""Eight cameras, some of them in hell: every fault, many times, seeded and bounded; what must hold is checked at the end.

    python -m tests.live.chaos --seconds 240 --seed 1 [--plot rss.png]

Three cameras are stable, four sit behind a network that misbehaves, one is a process that is stopped, killed and comes back
as another model. Each disturbed camera goes through its faults in random order, all of them before any twice. The report
says for each fault how often it struck and how long after its end the next picture came.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.live.camera import CameraProcess, missing
from tests.live.proxy import Network, Proxy
from tests.live.rig import Rig, Watched
from tests.live.rows import Row, broken, judged, settle, slope, table

FPS = 8
BACK_S = 5.0
WARM_S = 60.0  # until every decoder and arena was there once
SILENT_S = 7.0  # at most; longer than a silence is borne, so that tries begin and end in it
STATED_LOSS = 0.02  # of a stable camera's pictures may give way to newer ones
HOUR_TICKS = 3600 * 90_000
CUTTING = {"refuse", "reset", "hang up", "wrap", "slam", "deny", "garbage", "drip", "dead", "kill", "end session"}
"""After these the next picture counts only in a new segment: one may still have been on its way."""
MODELS: list[dict[str, Any]] = [
    {"width": 160, "height": 120},
    {"width": 320, "height": 240},
    {"codec": "h265"},
    {"codec": "mjpeg"},
    {"bframes": 2},
]


@dataclass
class Strike:
    """One fault that struck one camera, and how long after its end the next picture came."""

    camera: str
    fault: str
    back_s: float


@dataclass
class Report:
    """What happened in a run."""

    seconds: float
    seed: int
    strikes: list[Strike] = field(default_factory=list)
    rss_mb: list[tuple[float, float]] = field(default_factory=list)
    cameras: list[Watched] = field(default_factory=list)
    threads: tuple[int, int] = (0, 0)
    files: tuple[int, int] = (0, 0)
    stop_s: float = 0.0
    abandoned: int = 0

    def memory(self) -> tuple[float, float]:
        """Slope of the resident memory over the second half of the run and half of its 95 % interval, MB a minute."""
        rise, half = slope([(t / 60.0, m) for t, m in self.rss_mb if t > self.seconds / 2])
        return rise, half

    def table(self) -> str:
        by_fault: dict[str, list[float]] = defaultdict(list)
        for strike in self.strikes:
            by_fault[strike.fault].append(strike.back_s)
        lines = [f"{'fault':<12}{'struck':>8}{'back, mean s':>14}{'worst s':>9}"]
        for fault, backs in sorted(by_fault.items()):
            lines.append(f"{fault:<12}{len(backs):>8}{sum(backs) / len(backs):>14.2f}{max(backs):>9.2f}")
        lines.append(
            f"\n{'camera':<12}{'decoded':>8}{'seen':>7}{'dropped':>9}{'corrupt':>9}{'segments':>10}{'gaps':>6}{'gap s':>8}"
        )
        for camera in self.cameras:
            counts = camera.ledger.counts
            lines.append(
                f"{camera.name:<12}{counts.decoded:>8}{camera.count:>7}{sum(counts.dropped.values()):>9}{counts.corrupt:>9}"
                f"{camera.segments:>10}{camera.causes.total():>6}{camera.gap_s:>8.1f}"
            )
        rise, half = self.memory()
        lines.append(
            f"\n{len(self.strikes)} faults in {self.seconds:.0f} s (seed {self.seed}); stopped in {self.stop_s:.2f} s; "
            f"threads {self.threads[0]} -> {self.threads[1]}, open files {self.files[0]} -> {self.files[1]}, "
            f"readers abandoned {self.abandoned}, memory {self.rss_mb[-1][1]:.0f} MB, slope {rise:+.2f} ± {half:.2f} MB/min"
        )
        return "\n".join(lines)

    def rows(self, back_s: float = BACK_S, stated_loss: float = STATED_LOSS) -> list[Row]:
        """Everything that must hold. A machine that is busy otherwise needs more time and loses more."""
        stable = [camera for camera in self.cameras if camera.name.startswith("stable")]
        worst = max(self.strikes, key=lambda strike: strike.back_s)
        backs = sorted(strike.back_s for strike in self.strikes)
        late = [strike for strike in self.strikes if strike.back_s > back_s]
        lost = max(camera.dropped_later / max(camera.count, 1) for camera in stable)
        broke = sum(camera.segments - 1 + camera.causes["disconnected"] + camera.causes["corrupt"] for camera in stable)
        holes = [hole for camera in self.cameras for hole in camera.uncovered(FPS)]
        told = sum(camera.causes.total() for camera in self.cameras)
        threads, files = self.threads[1] - self.threads[0], self.files[1] - self.files[0]
        return [
            judged(
                f"chaos: {len({s.fault for s in self.strikes})} kinds of fault, {len(self.strikes)} strikes",
                f"back within {back_s:g} s of the server",
                f"median {backs[len(backs) // 2]:.2f} s, worst {worst.back_s:.2f} s ({worst.fault})",
                not late,
            ),
            judged("chaos: stable cameras' connections", "undisturbed", f"{broke} broken", not broke),
            judged("chaos: stable cameras' pictures", f"at most {stated_loss:.0%} give way", f"{lost:.1%}",
                   all(c.dropped_later <= stated_loss * c.count + 1 for c in stable)),
            judged("chaos: time neither seen nor in the ledger", "none", f"{len(holes)} stretches, {told} gaps told",
                   not holes),
            judged("chaos: threads and files left open", "none", f"{threads} threads, {files} files",
                   threads <= 0 and files <= 0),
            judged("chaos: the stop", "within 3 s", f"{self.stop_s:.2f} s", self.stop_s < 3.0),
            self.memory_row(),
        ]  # fmt: skip

    def memory_row(self) -> Row:
        rise, half = self.memory()
        last = f"{self.rss_mb[-1][1]:.0f} MB"
        aim = "slope of zero within its 95 % interval"
        if self.seconds < WARM_S * 2:
            return Row("memory over the faults", aim, f"{last}; too short a run to tell", "not judged")
        return judged("memory over the faults", aim, f"{last}, {rise:+.2f} ± {half:.2f} MB/min", rise - half <= 0.0)

    def check(self, back_s: float = BACK_S, stated_loss: float = STATED_LOSS) -> None:
        wrong = broken(self.rows(back_s, stated_loss))
        assert not wrong, "\n" + table(wrong) + "\n" + "\n".join(str(s) for s in self.strikes if s.back_s > back_s)


class Hell:
    """What is done to one camera, in an endless random order in which nothing comes twice before all else came once."""

    def __init__(
        self, camera: Watched, faults: dict[str, Callable[[], None]], draw: random.Random, report: Report
    ) -> None:
        self.camera, self.faults, self.draw, self.report = camera, faults, draw, report

    def order(self) -> Iterator[str]:
        while True:
            yield from self.draw.sample(sorted(self.faults), len(self.faults))

    def run(self, stopping: threading.Event, until_s: float) -> None:
        """The body of thread `chaos:gate`: strike, let go, wait for a picture, breathe."""
        self.camera.wait_for_frames(3, 15.0)
        for fault in self.order():
            if stopping.is_set() or time.monotonic() > until_s:
                return
            segments = self.camera.segments + (fault in CUTTING)
            self.faults[fault]()
            let_go_s = time.monotonic()
            goal = self.camera.count + 1
            while not (self.camera.count >= goal and self.camera.segments >= segments):
                if stopping.is_set() or time.monotonic() > let_go_s + 3 * BACK_S:
                    break
                time.sleep(0.02)
            if not stopping.is_set():
                self.report.strikes.append(Strike(self.camera.name, fault, time.monotonic() - let_go_s))
            time.sleep(self.draw.uniform(0.3, 1.0))


def network_faults(proxy: Proxy, draw: random.Random) -> dict[str, Callable[[], None]]:
    """Everything a network and a camera's stamps can do."""

    def for_a_while(fault: str, value: Any, calm: Any, *, cut: bool, at_most_s: float = 2.5) -> Callable[[], None]:
        def strike() -> None:
            setattr(proxy.faults, fault, value)
            if cut:
                proxy.cut(reset=draw.random() < 0.5)
            time.sleep(draw.uniform(0.5, at_most_s))
            setattr(proxy.faults, fault, calm)
            if cut:
                proxy.cut()  # a server that is back knows nothing of the connections it had before

        return strike

    def refuse() -> None:
        proxy.refuse(True)
        time.sleep(draw.uniform(0.5, 2.5))
        proxy.refuse(False)

    def dead() -> None:
        proxy.dead(True)
        time.sleep(draw.uniform(0.5, SILENT_S))
        proxy.dead(False)

    def jump() -> None:
        proxy.faults.jump_ticks = draw.choice([-7, -1, 2, 9]) * HOUR_TICKS

    def odd() -> None:
        proxy.faults.odd_frame_ticks = draw.choice([-6, 6]) * HOUR_TICKS

    def wrap() -> None:
        proxy.faults.start_ticks = (1 << 32) - 90_000
        proxy.cut()

    faults = {
        "refuse": refuse,
        "dead": dead,
        "reset": lambda: proxy.cut(reset=True),
        "hang up": proxy.cut,
        "jump": jump,
        "odd stamp": odd,
        "wrap": wrap,
    }
    for fault in ("slam", "deny", "garbage", "drip"):
        faults[fault] = for_a_while(fault, True, False, cut=True)
    faults["silent"] = for_a_while("silent", True, False, cut=False, at_most_s=SILENT_S)
    for fault in ("loss", "flip", "double", "swap"):
        faults[fault] = for_a_while(fault, 0.2, 0.0, cut=False)
    return faults


def process_faults(process: CameraProcess, mount: str, draw: random.Random) -> dict[str, Callable[[], None]]:
    """Everything a camera itself can do."""

    def hang() -> None:
        process.hang()
        time.sleep(draw.uniform(0.5, SILENT_S))
        process.go_on()

    def come_back_as_another() -> None:
        process.kill()
        time.sleep(draw.uniform(0.2, 1.5))
        process.wishes = [{"mount": mount, "fps": FPS, **draw.choice(MODELS)}]
        process.revive()

    def end_sessions() -> None:
        process.ask(drop_clients=True)

    def freeze() -> None:
        process.ask(freeze=mount, on=True)
        time.sleep(1.0)
        process.ask(freeze=mount, on=False)

    return {"hang": hang, "kill": come_back_as_another, "end session": end_sessions, "freeze": freeze}


def run(seconds: float, seed: int) -> Report:
    """The whole of it; raises AssertionError where an account does not close."""
    report = Report(seconds, seed)
    process = psutil.Process()
    kinds: list[dict[str, Any]] = [
        {"mount": "/h264", "fps": FPS},
        {"mount": "/h265", "codec": "h265", "fps": FPS},
        {"mount": "/mjpeg", "codec": "mjpeg", "fps": FPS},
        {"mount": "/reordered", "bframes": 2, "fps": FPS},
    ]
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        calm = stack.enter_context(CameraProcess(*kinds))
        poor = stack.enter_context(CameraProcess({"mount": "/poor", "fps": FPS}))
        before = (threading.active_count(), process.num_fds())
        rig = Rig(forget=True)
        with rig:
            for name, mount, transport in (
                ("stable-1", "/h264", "tcp"),
                ("stable-2", "/h265", "udp"),
                ("stable-3", "/mjpeg", "tcp"),
            ):
                rig.watch(name, f"rtsp://127.0.0.1:{calm.port}{mount}", config={"transport": transport})
            until_s = time.monotonic() + seconds
            hells: list[Hell] = []
            for number, (mount, transport) in enumerate(
                [("/h264", "tcp"), ("/h265", "tcp"), ("/h264", "udp"), ("/reordered", "tcp")]
            ):
                draw = random.Random(seed * 100 + number)
                proxy = network.proxy(lambda: calm.port, seed=seed * 100 + number)
                camera = rig.watch(f"net{number}-{transport}", proxy.url(mount), config={"transport": transport})
                hells.append(Hell(camera, network_faults(proxy, draw), draw, report))
            draw = random.Random(seed * 100 + 99)
            camera = rig.watch("process", network.proxy(lambda: poor.port).url("/poor"))
            hells.append(Hell(camera, process_faults(poor, "/poor", draw), draw, report))
            for hell in hells:
                rig.group.start(f"chaos:{hell.camera.name}", lambda h=hell: h.run(rig.group.stopping, until_s))  # type: ignore[misc]
            began_s = time.monotonic()
            while time.monotonic() < until_s and not rig.group.stopping.is_set():
                report.rss_mb.append((time.monotonic() - began_s, process.memory_info().rss / 1e6))
                time.sleep(min(1.0, seconds / 20))
            for hell in hells:
                hell.camera.wait_for_frames(1, 3 * BACK_S)
        report.cameras, report.stop_s = rig.watched, rig.stop_s
        report.abandoned = sum(camera.producer.keeper.abandoned for camera in rig.watched)
        for proxy in network.proxies:
            network.do(proxy._stop())
        settle_s = time.monotonic() + 5.0
        while rig.group.abandoned() and time.monotonic() < settle_s:
            time.sleep(0.1)
        time.sleep(0.3)
        report.threads = (before[0], threading.active_count())
        report.files = (before[1] + len([p for p in (calm, poor) if p.alive]) - 2, process.num_fds())
    return report


def plot(report: Report, path: Path) -> None:
    """Resident memory over the run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3))
    axes = figure.subplots()
    axes.plot([t for t, _ in report.rss_mb], [m for _, m in report.rss_mb])
    axes.set_xlabel("s")
    axes.set_ylabel("resident memory, MB")
    axes.set_ylim(bottom=0)
    rise, half = report.memory()
    axes.set_title(f"8 cameras, {len(report.strikes)} faults: {rise:+.2f} ± {half:.2f} MB/min in the second half")
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="a picture of the memory over the run")
    wanted = parser.parse_args()
    if why := missing():
        raise SystemExit(why)
    settle()
    report = run(wanted.seconds, wanted.seed)
    print(report.table())
    if wanted.plot is not None:
        plot(report, wanted.plot)
    report.check()


if __name__ == "__main__":
    main()
