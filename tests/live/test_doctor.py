"""Doctor: what it says of cameras of known make, and what a script gets to know."""

from __future__ import annotations

import functools
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from streampose.cli.doctor import table
from streampose.doctor import Findings, Patient, _clock, examine, exit_code, total_load
from streampose.errors import TransientSourceError
from streampose.messages import Array, Image, SourceInfo
from streampose.sources.barcode import read_code
from streampose.sources.base import Corrupt, Picture, Source
from streampose.sources.decoder import PacketTap
from streampose.sources.libav import Skip
from streampose.sources.open import open_source
from tests.live.camera import CameraProcess
from tests.live.proxy import Network
from tests.loopback import tcp_server
from tests.media import picture, write_video
from tests.pipeline.scripted import ScriptedSource

SAMPLES = Path(__file__).parents[2] / "samples"


def clip(name: str) -> Patient:
    return Patient(name, lambda tap: open_source(str(SAMPLES / f"{name}.mp4"), tap=tap, threads=1))


class Refusing:
    def open(self, live_only: bool = False) -> SourceInfo:
        raise TransientSourceError("rtsp://admin:secret-word@gate/ refuses the connection", "refused")

    def frames(self, stopped: Callable[[], bool]) -> Iterator[Picture | Corrupt]:
        yield from ()

    def close(self) -> None:
        """Nothing is open."""


def two_people(images: Sequence[Image]) -> list[tuple[Array, Array]]:
    boxes = np.array([[10, 10, 40, 110], [60, 20, 80, 60]], np.float32)
    time.sleep(0.02)
    return [(boxes, np.ones(2, np.float32)) for _ in images]


def seventeen_points(images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]:
    time.sleep(0.005 * sum(len(some) for some in boxes))
    return [np.zeros((len(some), 17, 3), np.float32) for some in boxes]


def test_a_recording_is_measured_and_the_load_follows_from_the_costs() -> None:
    found, none = examine(
        [clip("cctv"), Patient("gone", lambda tap: Refusing())],
        3.0,
        detector=two_people,
        estimator=seventeen_points,
        pose_input_px=256,
    )
    assert (found.codec, found.width, found.height, found.live) == ("h264", 768, 576, False)
    assert found.fps == pytest.approx(10.0, rel=0.01)
    assert found.jitter_ms is None
    assert found.people == 2
    assert found.people_px == (40, 70, 100)
    assert found.needed_px == 52
    assert found.detect_ms == pytest.approx(20, abs=15)
    assert found.pose_ms == pytest.approx(5, abs=4)
    assert found.detect_ms is not None
    assert found.pose_ms is not None
    assert found.load == pytest.approx((found.detect_ms + 2 * found.pose_ms) * found.fps / 1e3)
    assert found.holdable_fps == pytest.approx(1e3 / (found.detect_ms + 2 * found.pose_ms))
    assert none.error is not None
    assert "secret-word" not in none.error
    assert exit_code([found, none]) == 3
    assert exit_code([found]) == 0
    assert total_load([found, none]) == found.load
    said = table([found, none])
    assert "40 / 70 / 100" in said
    assert "secret-word" not in said
    assert "refuses the connection" in said


@pytest.mark.parametrize("skip", ["none", "nonref", "nonkey"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_what_is_not_decoded_is_sent_all_the_same(skip: Skip, b_frames: int, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_video(clip, frames=100, fps=25.0, gop=10, b_frames=b_frames)
    with av.open(str(clip)) as container:
        bits = 8 * sum(packet.size for packet in container.demux(video=0))
    patient = Patient("gate", lambda tap: open_source(str(clip), tap=tap, threads=1, skip=skip), skip != "none")
    (found,) = examine([patient], 60.0)
    assert found.kbps == pytest.approx(bits / 1e3 / (100 / 25), rel=0.1)
    assert found.sent_fps == pytest.approx(25.0)
    assert found.fps is not None
    if skip == "nonkey":
        assert found.fps == pytest.approx(2.5)
        assert "2.50 of 25.00" in table([found])
    else:
        assert found.fps <= 25.01


def test_only_boxes_that_a_run_takes_for_people_are_counted_and_posed() -> None:
    """The detector of a run gives unsure ones, too, which only follow somebody who is known."""
    posed: list[int] = []

    def unsure(images: Sequence[Image]) -> list[tuple[Array, Array]]:
        return [(boxes, np.array([0.6, 0.15], np.float32)) for boxes, _ in two_people(images)]

    def counting(images: Sequence[Image], boxes: Sequence[Array]) -> list[Array]:
        posed.extend(len(some) for some in boxes)
        return seventeen_points(images, boxes)

    (found,) = examine([clip("cctv")], 1.0, detector=unsure, estimator=counting, threshold=0.4)
    assert found.people == 1
    assert found.people_px == (100, 100, 100)
    assert set(posed) == {1}


def test_every_n_th_frame_is_cheaper() -> None:
    seldom = replace(clip("cctv"), detect_every=4, pose_every=2)
    often_found, seldom_found = examine([clip("cctv"), seldom], 2.0, detector=two_people, estimator=seventeen_points)
    assert seldom_found.load is not None
    assert often_found.load is not None
    assert seldom_found.load < 0.6 * often_found.load


def test_more_than_the_machine_can_hold_and_people_too_small_are_problems() -> None:
    def slow(images: Sequence[Image]) -> list[tuple[Array, Array]]:
        time.sleep(0.11)
        return [(np.array([[10, 10, 20, 40]], np.float32), np.ones(1, np.float32)) for _ in images]

    (found,) = examine([clip("cctv")], 2.0, detector=slow, estimator=seventeen_points, pose_input_px=256)
    (held,) = [problem for problem in found.problems if "can hold" in problem]
    assert held.endswith("raise detect.every or pose.every"), "of a recording no frame may be dropped"
    assert any("people are 30 px high; the pose network wants 52" in problem for problem in found.problems)
    assert exit_code([found]) == 1


@pytest.mark.parametrize(
    ("loads", "word"),
    [
        ((0.6, 0.6, None), "each camera can be held, all of them cannot: 120 % of the time, more than 90 %: raise"),
        ((0.4, 0.4, None), "nothing is wrong"),
        ((None, None), "nothing is wrong"),
    ],
)
def test_what_only_all_cameras_together_exceed_is_named(loads: Sequence[float | None], word: str) -> None:
    found = [Findings(str(number), fps=10.0, load=load) for number, load in enumerate(loads)]
    assert table(found).splitlines()[-1].startswith(word)
    assert exit_code(found) == (word != "nothing is wrong")


def test_a_camera_of_which_hardly_a_picture_is_whole_is_said_to_be_that() -> None:
    damaged = Corrupt("a damaged frame", 0.1)
    (found,) = examine([Patient("gate", lambda tap: ScriptedSource([2, *[damaged] * 18]))], 1.0)
    assert found.loss == pytest.approx(0.9)
    assert found.problems == ["90.0 % of the pictures are damaged or missing: look at the network, or use TCP"]
    assert exit_code([found]) == 1


def bursts(connection: socket.socket) -> None:
    """MJPEG over HTTP, three pictures at a time and none lost, for as long as somebody listens."""
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n")
    data = cv2.imencode(".jpg", picture(0))[1].tobytes()
    for wait_s in cycle((0.02, 0.02, 0.2)):
        head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data + b"\r\n")
        time.sleep(wait_s)


def test_of_a_camera_without_a_clock_nothing_is_said_that_only_a_clock_can_tell() -> None:
    with tcp_server(bursts) as port:
        url = f"http://127.0.0.1:{port}/"
        (found,) = examine([Patient("gate", lambda tap: open_source(url, tap=tap, threads=1))], 2.0)
    assert (found.codec, found.live, found.clockless, found.wall_source) == ("mjpeg", True, True, "arrival")
    assert found.frames > 8
    assert (found.missing, found.loss, found.jitter_ms, found.drift_ppm) == (0, 0.0, None, None)
    assert found.nominal_fps is None, "it announced none"
    assert found.problems == []
    lines = {line.rsplit(maxsplit=1)[0].strip(): line.rsplit(maxsplit=1)[1] for line in table([found]).splitlines()[1:]}
    assert [lines[name] for name in ("announced fps", "jitter ms", "clock drift ppm")] == ["-"] * 3


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[str]:
    """An HTTP server with a live playlist of segments of a second, `live.m3u8`, and a picture, `snapshot.jpg`."""
    for number in range(12):
        ticks = [90_000 * number + 7500 * place for place in range(12)]
        write_video(tmp_path / f"{number}.ts", pts=ticks)
    cv2.imwrite(str(tmp_path / "snapshot.jpg"), picture(3))
    began_s = time.monotonic()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

        def send_head(self) -> Any:
            if self.path == "/live.m3u8":
                first = int(time.monotonic() - began_s)
                lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
                lines += [f"#EXTINF:1.0,\n{number}.ts" for number in range(first, min(first + 3, 12))]
                (tmp_path / "live.m3u8").write_text("\n".join([*lines, ""]))
            return super().send_head()

    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        served.handle_error = lambda request, address: None  # type: ignore[method-assign]  # clients hang up here
        thread = threading.Thread(target=served.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join(5)


def test_cameras_that_are_asked_for_what_they_send_are_well(recorder: str) -> None:
    """Segments come many pictures at a time, and a request gives one: neither is a fault of the network."""
    segmented, single = examine(
        [
            Patient("segments", lambda tap: open_source(f"{recorder}/live.m3u8", tap=tap, threads=1)),
            Patient("snapshots", lambda tap: open_source(f"{recorder}/snapshot.jpg", tap=tap, threads=1)),
        ],
        4.0,
    )
    assert (segmented.live, segmented.segmented, single.clockless) == (True, True, True)
    assert segmented.fps == pytest.approx(12.0, rel=0.05)
    assert (segmented.jitter_ms, segmented.drift_ppm, segmented.missing) == (None, None, 0)
    assert single.frames > 3
    assert single.nominal_fps is None
    assert (segmented.problems, single.problems, exit_code([segmented, single])) == ([], [], 0)


@pytest.mark.parametrize("ppm", [-5000.0, 0.0, 300.0, 20_000.0])
def test_drift_is_found_within_its_own_error_under_delays_that_only_delay(ppm: float) -> None:
    draw = np.random.default_rng(3)
    arrivals_true = np.arange(0, 30, 0.1)
    times = arrivals_true * (1 + 1e-6 * ppm)
    arrivals = arrivals_true + draw.exponential(0.01, len(times))
    found = Findings("gate")
    _clock(found, times, arrivals)
    assert found.drift_ppm is not None
    assert found.drift_sigma_ppm is not None
    assert found.drift_ppm == pytest.approx(ppm, abs=4 * found.drift_sigma_ppm + 20)
    assert found.drift_sigma_ppm < 500
    assert found.jitter_ms == pytest.approx(10, abs=4)


class Watched:
    """A camera's source; notes how far the time that a picture shows lies behind that of its arrival, ms, once the camera
    reports its clock."""

    def __init__(self, source: Source, process: CameraProcess) -> None:
        self.source, self.process = source, process
        self.open, self.close = source.open, source.close
        self.offsets_ms: list[float] = []

    def frames(self, stopped: Callable[[], bool]) -> Iterator[Picture | Corrupt]:
        for item in self.source.frames(stopped):
            if isinstance(item, Picture) and item.wall_source == "rtcp":
                code = read_code(item.image)
                assert code is not None
                arrival_s = time.time() - time.monotonic() + item.arrival_s
                self.offsets_ms.append(1e3 * (self.process.began_s + code[1] - arrival_s))
            yield item


@pytest.mark.rtsp
@pytest.mark.slow
def test_cameras_are_told_apart(rtsp: None) -> None:
    watched: list[Watched] = []

    def source(url: str, tap: PacketTap, **how: Any) -> Source:
        return open_source(url, tap=tap, threads=1, **how)

    with (
        CameraProcess({"mount": "/good", "fps": 10}, {"mount": "/b", "bframes": 2, "fps": 15, "gop": 30}) as process,
        Network() as network,
    ):
        url = f"rtsp://127.0.0.1:{process.port}/good"
        lossy = network.proxy(lambda: process.port)
        lossy.faults.loss = 0.1

        def watch(tap: PacketTap) -> Watched:
            watched.append(Watched(source(url, tap), process))
            return watched[0]

        good, keys, reordered, bad = examine(
            [
                Patient("good", watch),
                Patient("keys", lambda tap: source(url, tap, skip="nonkey"), skips=True),
                Patient("reordered", lambda tap: source(f"rtsp://127.0.0.1:{process.port}/b", tap)),
                Patient("bad", lambda tap: source(lossy.url("/good"), tap, transport="udp")),
            ],
            6.0,
        )
    assert good.problems == []
    assert good.fps == pytest.approx(10, rel=0.05)
    assert (good.gop, good.bframes, good.wall_source, good.live) == (10, False, "rtcp", True)
    assert good.wall_offset_ms == pytest.approx(max(watched[0].offsets_ms), abs=50), "that of the least delayed picture"
    assert good.wall_offset_ms < 50, "a picture is not decoded before it was taken"
    assert good.drift_ppm is not None
    assert good.drift_sigma_ppm is not None
    assert abs(good.drift_ppm) < 2000 + 4 * good.drift_sigma_ppm
    assert keys.problems == []
    assert keys.fps == pytest.approx(1, rel=0.05)
    assert keys.sent_fps == pytest.approx(10, rel=0.05)
    assert keys.kbps == pytest.approx(good.kbps, rel=0.1)
    assert (reordered.bframes, reordered.gop) == (True, 30)
    assert bad.loss > 0.05
    assert any("damaged or missing" in problem for problem in bad.problems)
    assert exit_code([good]) == 0
    assert exit_code([good, bad]) == 1


@pytest.mark.rtsp
@pytest.mark.slow
def test_a_camera_whose_clock_is_an_hour_off_is_said_to_be_that(rtsp: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is ours that is wrong: nobody can set the camera's."""
    with CameraProcess({"mount": "/good", "fps": 10}) as process:
        url, true_time = f"rtsp://127.0.0.1:{process.port}/good", time.time
        monkeypatch.setattr("time.time", lambda: true_time() - 3600.0)
        (found,) = examine([Patient("gate", lambda tap: open_source(url, tap=tap, threads=1))], 6.0)
    assert found.wall_source == "arrival"
    assert found.wall_offset_ms == pytest.approx(3.6e6, abs=1000)
    assert found.problems == [
        "its clock is +3600 s off ours, so that its pictures have the times of their arrival: set its clock, or ours (NTP)"
    ]
