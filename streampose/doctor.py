"""Examines cameras before a watch: opens each for some seconds and measures what it really delivers and what that costs.

Reception and decoding are measured first, each camera in its own thread, with one decoder thread so that decoding is
charged to it. The networks run afterwards, on a few of the pictures, so that they do not disturb the clocks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from streampose.errors import SourceError
from streampose.messages import Array, Image, SourceInfo
from streampose.pipeline.workers import WorkerGroup
from streampose.redact import redact
from streampose.sources import probe
from streampose.sources.base import Corrupt, PassedOver, Picture, Source, SourceItem
from streampose.sources.clock import believable

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

Tap: TypeAlias = "Callable[[av.Packet[VideoStream], VideoStream, float | None], None]"
OpenWithTap: TypeAlias = "Callable[[Tap], Source]"

SETTLE_S = 1.5  # what libav held back while it analysed the stream comes at once; times are taken after that
KEPT_PICTURES = 6  # for the networks, spread over the seconds
HOLE_STEPS = 1.6  # a step this many times the usual one lacks a picture
RATE_KEPT = 0.9  # of the announced rate
LOSS_LIMIT = 0.01
JITTER_LIMIT = 1.0  # of the time between two pictures: more than that and newest-wins drops pictures for nothing
DRIFT_BLOCKS = 8
SURE_DRIFT_PPM = 2000.0  # a clock that runs off so much faster is broken rather than unadjusted
BOX_PADDING = 1.25  # of a person's box in the crop (published by HRNet)
CELL_PX = 4.0  # pixels of the network's input that one heatmap cell stands for
LOAD_LIMIT = 0.9  # of the time there is


class DetectsPeople(Protocol):
    """Boxes (N, 4) xyxy in pixels and scores (N,) of the people in each picture."""

    def __call__(self, images: Sequence[Image]) -> list[tuple[Array, Array]]: ...


class EstimatesPose(Protocol):
    """Key points (N, K, 3) x, y, score for the boxes (N, 4) of each picture."""

    def __call__(self, images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]: ...


@dataclass(frozen=True, slots=True)
class Patient:
    """A camera to examine: `open_with` makes its source, which gives every packet to the tap it is handed. `skips`: not
    every packet is decoded."""

    name: str
    open_with: OpenWithTap
    skips: bool = False
    detect_every: int = 1
    pose_every: int = 1


@dataclass(slots=True)
class Findings:
    """What one camera delivers. Times in ms or s as named, sizes in pixels; None where nothing could be told.

    `fps` is the rate of its pictures, by the camera's own clock, `sent_fps` that of all packets: with `skips` not every one
    is made a picture. `jitter_ms` is the standard deviation of arrival against that
    clock. `drift_ppm` is how much faster the camera's clock runs than ours, `drift_sigma_ppm` the standard error of that;
    `wall_offset_ms` how far its wall clock (RTCP) is from ours when its least delayed picture was decoded: its error and
    the delay of coding and network together; of a clock that is not believed, about that. `loss` is the part of pictures
    damaged or missing. Of a `clockless` camera, whose pictures are timed by their arrival, neither jitter nor drift nor a
    missing picture can be told, and of a `segmented` one, whose pictures come many at a time, neither jitter nor drift.

    `people_px` are the 10th, 50th and 90th percentile of the heights of people seen; `needed_px` the height from which the
    pose network sees every pixel it can use. `load` is the part of one second that a second of this camera costs the
    networks; `holdable_fps` the rate at which it alone would fill them.
    """

    name: str
    url: str = ""
    error: str | None = None
    open_s: float | None = None
    codec: str | None = None
    width: int = 0
    height: int = 0
    live: bool = False
    clockless: bool = False
    segmented: bool = False
    nominal_fps: float | None = None
    skips: bool = False
    frames: int = 0
    fps: float | None = None
    sent_fps: float | None = None
    jitter_ms: float | None = None
    gop: float | None = None
    bframes: bool = False
    kbps: float | None = None
    drift_ppm: float | None = None
    drift_sigma_ppm: float | None = None
    wall_source: str = "none"
    wall_offset_ms: float | None = None
    corrupt: int = 0
    missing: int = 0
    loss: float = 0.0
    decode_ms: float | None = None
    detect_ms: float | None = None
    pose_ms: float | None = None
    people: float | None = None
    people_px: tuple[int, int, int] | None = None
    needed_px: int | None = None
    load: float | None = None
    holdable_fps: float | None = None
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; figures to six digits."""
        return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in asdict(self).items()}


@dataclass(slots=True)
class _Notes:
    """What was written down while a camera was read. Parallel lists, one entry a picture or a packet; `packets`: how many
    had come with each picture; `told`: how far the capture times that its sender gave were after our clock."""

    arrivals: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    packets: list[int] = field(default_factory=list)
    offsets: list[float] = field(default_factory=list)
    wall_source: str = "none"
    cpu_s: float = 0.0
    corrupt: int = 0
    keys: list[bool] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)
    pictures: list[Image] = field(default_factory=list)

    def tap(self, packet: av.Packet[VideoStream], stream: VideoStream, wall_s: float | None) -> None:
        self.keys.append(bool(packet.is_keyframe))
        self.sizes.append(packet.size)
        if (told_s := probe.capture_s(packet)) is not None:
            self.told.append(told_s - time.time())
        if packet.pts is not None and packet.time_base is not None:
            self.stamps.append(float(packet.pts * packet.time_base))


def examine(
    patients: Sequence[Patient],
    seconds: float = 8.0,
    *,
    detector: DetectsPeople | None = None,
    estimator: EstimatesPose | None = None,
    pose_input_px: int | None = None,
    threshold: float = 0.0,
) -> list[Findings]:
    """Watch every camera for `seconds`, side by side, then run the networks on some of its pictures.

    `pose_input_px` is the height of the pose network's input, `threshold` the least score with which a run would take a box
    for a person. A camera that cannot be read is a finding, not an error.
    """
    findings = [Findings(patient.name, skips=patient.skips) for patient in patients]
    notes = [_Notes() for _ in patients]
    with WorkerGroup() as group:
        for patient, found, noted in zip(patients, findings, notes, strict=True):
            group.start(f"doctor:{patient.name}", lambda p=patient, f=found, n=noted: _watch(p, seconds, f, n))  # type: ignore[misc]
    for patient, found, noted in zip(patients, findings, notes, strict=True):
        if found.error is None:
            _receive(found, noted)
            _look(found, noted, detector, estimator, pose_input_px, threshold)
            _promise(found, patient)
            found.problems = _problems(found)
        else:
            found.problems = [found.error]
    return findings


def total_load(findings: Sequence[Findings]) -> float | None:
    """What all cameras together cost the networks, as a part of the time there is; None without networks."""
    loads = [found.load for found in findings if found.load is not None]
    return sum(loads) if loads else None


def overload(findings: Sequence[Findings]) -> list[str]:
    """What is wrong with no camera alone but with all: a line where the networks can hold each and not all of them."""
    loads = [found.load for found in findings if found.load is not None]
    if sum(loads) <= LOAD_LIMIT or max(loads) > LOAD_LIMIT:
        return []
    return [
        f"each camera can be held, all of them cannot: {100 * sum(loads):.0f} % of the time, more than "
        f"{100 * LOAD_LIMIT:.0f} %: raise detect.every or pose.every, or set max_age"
    ]


def exit_code(findings: Sequence[Findings]) -> int:
    """0: all is well; 1: it can be watched, but something is wrong; 3: a camera cannot be read."""
    if any(found.error is not None for found in findings):
        return 3
    return 1 if any(found.problems for found in findings) or overload(findings) else 0


def _watch(patient: Patient, seconds: float, found: Findings, noted: _Notes) -> None:
    """The body of thread `doctor:gate`."""
    source: Source | None = None
    began_s = time.monotonic()
    try:
        source = patient.open_with(noted.tap)
        info = source.open()
        found.open_s = time.monotonic() - began_s
        _describe(found, info)
        until_s = time.monotonic() + seconds + (SETTLE_S if info.live else 0.0)
        cpu_s = time.thread_time()
        for item in source.frames(lambda: time.monotonic() >= until_s):
            noted.cpu_s += time.thread_time() - cpu_s
            _note(item, noted, seconds)
            if not info.live and not isinstance(item, PassedOver) and item.time_s >= seconds:
                break
            cpu_s = time.thread_time()
        if not noted.times:
            found.error = f"{found.url}: no picture in {seconds:g} s"
    except SourceError as error:
        if not noted.times:
            found.error = redact(str(error))
        else:
            found.problems.append(redact(str(error)))
    finally:
        if source is not None:
            source.close()


def _describe(found: Findings, info: SourceInfo) -> None:
    found.url, found.codec, found.live, found.nominal_fps = info.url, info.codec, info.live, info.nominal_fps
    found.width, found.height = info.width, info.height
    found.clockless, found.segmented = info.clockless, info.segmented


def _note(item: SourceItem, noted: _Notes, seconds: float) -> None:
    if not isinstance(item, Picture):
        noted.corrupt += item.frames if isinstance(item, Corrupt) else 0
        return
    if len(noted.pictures) * seconds <= item.time_s * KEPT_PICTURES and len(noted.pictures) < KEPT_PICTURES:
        noted.pictures.append(item.image)
    noted.arrivals.append(item.arrival_s)
    noted.times.append(item.time_s)
    noted.packets.append(len(noted.sizes))
    noted.wall_source = item.wall_source
    if item.wall_source == "rtcp" and item.wall_s is not None:
        noted.offsets.append(item.wall_s - (time.time() - (time.monotonic() - item.arrival_s)))


def _receive(found: Findings, noted: _Notes) -> None:
    """Rate, jitter, drift, loss and the make-up of the stream."""
    found.frames, found.corrupt = len(noted.times), noted.corrupt
    found.decode_ms = 1e3 * noted.cpu_s / max(found.frames + noted.corrupt, 1)
    found.wall_source = noted.wall_source
    if noted.offsets:
        found.wall_offset_ms = 1e3 * float(np.max(noted.offsets))
    elif noted.told:
        found.wall_offset_ms = 1e3 * float(np.median(noted.told))
    keys = np.flatnonzero(noted.keys)
    found.gop = float(np.median(np.diff(keys))) if len(keys) > 1 else None
    stamps = np.array(noted.stamps)
    found.bframes = bool(np.any(np.diff(stamps) < 0)) if len(stamps) > 1 else False
    times, arrivals = np.array(noted.times), np.array(noted.arrivals)
    settled = times - times[0] >= SETTLE_S if found.live else np.ones(len(times), np.bool_)
    times, arrivals = times[settled], arrivals[settled]
    if len(times) >= 3:
        _pace(found, times, arrivals)
        _flow(found, times, np.array(noted.packets)[settled], noted.sizes)
    found.loss = (found.corrupt + found.missing) / max(found.frames + found.corrupt + found.missing, 1)


def _pace(found: Findings, times: npt.NDArray[np.float64], arrivals: npt.NDArray[np.float64]) -> None:
    """Rate, what is missing in it, jitter and drift, of three pictures at least. Pictures that were skipped leave holes
    that tell of nothing missing, and so do arrivals."""
    steps = np.diff(times)
    usual_s = float(np.median(steps))
    found.fps = (len(times) - 1) / float(times[-1] - times[0])
    if found.live and not found.clockless:
        holes = steps[steps > HOLE_STEPS * usual_s]
        found.missing = 0 if found.skips else int(np.sum(np.round(holes / usual_s) - 1))
        if not found.segmented:
            _clock(found, times, arrivals)


def _flow(
    found: Findings, times: npt.NDArray[np.float64], packets: npt.NDArray[np.int64], sizes: Sequence[int]
) -> None:
    """Packets and bits a second: of what came between two pictures, whether or not it was decoded. `packets`: how many had
    come with each picture; what a decoder gives at its end, after the last of them, has a count that is too high."""
    last = int(np.searchsorted(packets, packets[-1])) - 1
    if last < 1 or times[last] <= times[0]:
        return
    lasts_s = float(times[last] - times[0])
    found.sent_fps = int(packets[last] - packets[0]) / lasts_s
    found.kbps = 8e-3 * sum(sizes[packets[0] : packets[last]]) / lasts_s


def _clock(found: Findings, times: npt.NDArray[np.float64], arrivals: npt.NDArray[np.float64]) -> None:
    """Jitter and drift. The network can only delay, so the drift is that of the least delayed picture of each block of
    time; blocks, because delays that follow each other are alike and would make the error look small."""
    ahead = times - arrivals
    blocks = np.array_split(np.arange(len(times)), DRIFT_BLOCKS)
    best = np.array([block[np.argmax(ahead[block])] for block in blocks if len(block)])
    x = arrivals[best] - arrivals[best].mean()
    y = ahead[best] - ahead[best].mean()
    spread = float(np.sum(x * x))
    if len(best) < DRIFT_BLOCKS or spread <= 0:
        return
    slope = float(np.sum(x * y)) / spread
    found.jitter_ms = 1e3 * float(np.std(ahead - slope * arrivals))
    found.drift_ppm = 1e6 * slope
    found.drift_sigma_ppm = 1e6 * math.sqrt(float(np.sum((y - slope * x) ** 2)) / (len(best) - 2) / spread)


def _look(
    found: Findings,
    noted: _Notes,
    detector: DetectsPeople | None,
    estimator: EstimatesPose | None,
    pose_input_px: int | None,
    threshold: float,
) -> None:
    """What the networks see and cost, on the kept pictures; the first run of each warms up and is not timed."""
    if detector is None or not noted.pictures:
        return
    detector(noted.pictures[:1])
    began_s = time.perf_counter()
    seen = [detector([picture])[0] for picture in noted.pictures]
    found.detect_ms = 1e3 * (time.perf_counter() - began_s) / len(seen)
    boxes = [some[scores >= threshold] for some, scores in seen]
    found.people = float(np.mean([len(some) for some in boxes]))
    heights = np.concatenate([some[:, 3] - some[:, 1] for some in boxes]) if boxes else np.zeros(0)
    if len(heights):
        low, middle, high = np.percentile(heights, (10, 50, 90))
        found.people_px = (round(low), round(middle), round(high))
    if pose_input_px is not None:
        found.needed_px = math.ceil(pose_input_px / BOX_PADDING / CELL_PX)
    if estimator is None or not len(heights):
        return
    estimator(noted.pictures[:1], boxes[:1])
    began_s = time.perf_counter()
    for picture, some in zip(noted.pictures, boxes, strict=True):
        estimator([picture], [some])
    found.pose_ms = 1e3 * (time.perf_counter() - began_s) / len(heights)


def _promise(found: Findings, patient: Patient) -> None:
    """The load at the rate received, and the rate at which this camera alone would fill the networks."""
    if found.detect_ms is None:
        return
    pose_ms = (found.pose_ms or 0.0) * (found.people or 0.0)
    frame_ms = found.detect_ms / patient.detect_every + pose_ms / patient.pose_every
    found.holdable_fps = 1e3 / frame_ms
    if found.fps is not None:
        found.load = frame_ms * found.fps / 1e3


def _problems(found: Findings) -> list[str]:
    """What somebody should look at, a line each."""
    problems = list(found.problems)
    sent_fps = found.fps if found.sent_fps is None else found.sent_fps
    if sent_fps is not None and found.nominal_fps and sent_fps < RATE_KEPT * found.nominal_fps and found.live:
        problems.append(f"delivers {sent_fps:.1f} of the {found.nominal_fps:g} frames a second it announces")
    if found.jitter_ms is not None and found.fps is not None and found.jitter_ms > JITTER_LIMIT * 1e3 / found.fps:
        problems.append(f"pictures come {found.jitter_ms:.0f} ms early or late: look at the network")
    if found.loss > LOSS_LIMIT:
        problems.append(
            f"{100 * found.loss:.1f} % of the pictures are damaged or missing: look at the network, or use TCP"
        )
    if found.drift_ppm is not None and abs(found.drift_ppm) - 3 * (found.drift_sigma_ppm or 0.0) > SURE_DRIFT_PPM:
        problems.append(f"its clock runs {found.drift_ppm / 1e4:+.2f} % off ours")
    off_s = 0.0 if found.wall_offset_ms is None or found.wall_source == "rtcp" else found.wall_offset_ms / 1e3
    if not believable(off_s):
        problems.append(
            f"its clock is {off_s:+.0f} s off ours, so that its pictures have the times of their arrival: set its clock, "
            "or ours (NTP)"
        )
    if found.people_px is not None and found.needed_px is not None and found.people_px[1] < found.needed_px:
        problems.append(
            f"people are {found.people_px[1]} px high; the pose network wants {found.needed_px}: a larger stream or closer"
        )
    if found.load is not None and found.fps is not None and found.load > LOAD_LIMIT:
        problems.append(
            f"sends {found.fps:.1f} frames a second, the networks alone can hold {found.holdable_fps:.1f}: "
            f"raise detect.every or pose.every{', or set max_age' if found.live else ''}"
        )
    return problems
