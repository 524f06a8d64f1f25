"""The limits of a connection: the longest silence holds in every phase, the whole of opening is bounded, pace is not."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import av
import pytest

from streampose.errors import SourceError, TransientSourceError
from streampose.sources.base import Picture
from streampose.sources.libav import VideoOptions, libav_options
from streampose.sources.video import VideoSource
from tests.live.rtsp_script import script
from tests.loopback import tcp_server
from tests.media import picture

LONG_S = 60.0
SILENCE = VideoOptions(open_timeout_s=LONG_S, read_timeout_s=0.5)
PHASES = ("connected", "OPTIONS", "DESCRIBE", "SETUP", "PLAY", "first packet", "first packets")


def answer(connection: socket.socket, text: bytes, send: Callable[[bytes], None]) -> None:
    """Read one RTSP request and answer it."""
    request = b""
    while b"\r\n\r\n" not in request:
        got = connection.recv(4096)
        if not got:
            raise ConnectionError
        request += got
    sequence = next(line[5:].strip() for line in request.split(b"\r\n") if line[:5].lower() == b"cseq:")
    send(text.replace(b"{cseq}", sequence))


def failure(url: str, options: VideoOptions) -> tuple[SourceError, float, int]:
    """How the source ends, after how many seconds and pictures."""
    source, shown = VideoSource(url, options), 0
    began_s = time.monotonic()
    try:
        source.open()
        for item in source.frames(lambda: False):
            shown += isinstance(item, Picture)
    except SourceError as error:
        return error, time.monotonic() - began_s, shown
    finally:
        source.close()
    raise AssertionError("it ended without an error")


@pytest.mark.parametrize("phase", PHASES)
def test_a_camera_that_falls_silent_is_let_go_in_whatever_phase(phase: str, tmp_path: Path) -> None:
    """After its whole silence, not after the whole time of opening, and not after another silence: libav begins a second
    one where it has analysed in vain, and where its parser held a packet back. What stops in the middle of the analysis
    after a picture or less may be slow: that is waited for."""
    limits = VideoOptions(open_timeout_s=LONG_S, read_timeout_s=1.5)
    camera = script("h264", tmp_path)
    silences: list[float] = []

    def talk(connection: socket.socket) -> None:
        for text in camera.answers[: PHASES.index(phase)]:
            answer(connection, text, connection.sendall)
        for packet in camera.packets[: {"first packet": 3, "first packets": 9}.get(phase, 0)]:
            connection.sendall(packet)
        silences.append(time.monotonic())

    with tcp_server(talk, patience_s=0.5) as port:
        error, took_s, _ = failure(f"rtsp://127.0.0.1:{port}/x", limits)
        silent_s = time.monotonic() - silences[0]
    assert isinstance(error, TransientSourceError)
    assert error.kind == "timeout"
    assert "read_timeout allows 1.5 s of silence" in str(error)
    assert 1.4 <= silent_s < (6.0 if phase == "first packet" else 4.0)
    assert took_s < LONG_S / 2


@pytest.mark.parametrize(
    "url", ["rtsps://{}/x", "https://{}/x", "rtmp://{}/x/y", "http://{}/x", "http://{}/x.m3u8", "tcp://{}"]
)
def test_the_longest_silence_holds_for_every_scheme(url: str) -> None:
    with tcp_server(lambda connection: None, patience_s=0.5) as port:
        error, took_s, _ = failure(url.format(f"127.0.0.1:{port}"), SILENCE)
    assert isinstance(error, TransientSourceError)
    assert error.kind == "timeout"
    assert took_s < LONG_S / 2


def test_a_port_where_nothing_arrives_is_silent() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    error, took_s, _ = failure(f"udp://127.0.0.1:{port}", SILENCE)
    assert error.kind == "timeout"
    assert took_s < LONG_S / 2


def test_a_slow_camera_that_does_answer_is_not_cut_off(tmp_path: Path) -> None:
    """Each answer takes long, all of them together more than the longest silence."""
    camera = script("h264", tmp_path)
    took_s: list[float] = []

    def talk(connection: socket.socket) -> None:
        began_s = time.monotonic()
        for text in camera.answers:

            def send(message: bytes) -> None:
                time.sleep(0.4)
                connection.sendall(message)

            answer(connection, text, send)
        took_s.append(time.monotonic() - began_s)
        for packet in camera.packets:
            connection.sendall(packet)
        connection.shutdown(socket.SHUT_WR)

    limits = VideoOptions(open_timeout_s=LONG_S, read_timeout_s=1.5)
    with tcp_server(talk, patience_s=0.5) as port:
        error, _, shown = failure(f"rtsp://127.0.0.1:{port}/x", limits)
    assert took_s[0] > limits.read_timeout_s
    assert (error.kind, shown) == ("ended", 12)


def test_a_byte_at_a_time_is_bounded_by_the_whole_of_opening(tmp_path: Path) -> None:
    """Connecting and analysing share one limit: what the first took is gone for the second."""
    camera = script("h264", tmp_path)

    def talk(connection: socket.socket) -> None:
        for text in camera.answers:
            answer(connection, text, connection.sendall)
            time.sleep(0.3)
        for packet in camera.packets:
            for at in range(len(packet)):
                connection.sendall(packet[at : at + 1])
                time.sleep(0.1)

    limits = VideoOptions(open_timeout_s=2.0, read_timeout_s=1.5)
    with tcp_server(talk, patience_s=0.5) as port:
        error, took_s, _ = failure(f"rtsp://127.0.0.1:{port}/x", limits)
    assert error.kind == "timeout"
    assert "connecting" in str(error)
    assert "open_timeout 2 s in all" in str(error)
    assert took_s >= 1.9


@pytest.mark.slow
def test_between_the_segments_of_a_live_playlist_nothing_need_come(tmp_path: Path) -> None:
    """The next segment is due after its length, which is more than the longest silence."""
    with av.open(
        str(tmp_path / "whole.m3u8"), "w", format="hls", options={"hls_time": "2", "hls_list_size": "0"}
    ) as out:
        stream = out.add_stream("libx264", rate=10, options={"preset": "ultrafast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 192, 128, "yuv420p", 20
        for number in range(100):
            frame = av.VideoFrame.from_ndarray(picture(number), format="bgr24")
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    playlist = (tmp_path / "whole.m3u8").read_text().replace("#EXT-X-ENDLIST\n", "").split("#EXTINF")
    assert len(playlist) >= 6
    began_s = time.monotonic()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep the test's output clean."""

        def do_GET(self) -> None:
            data = (tmp_path / Path(self.path).name).read_bytes() if self.path != "/live.m3u8" else b""
            if not data:
                there = min(3 + int((time.monotonic() - began_s) / 2.0), len(playlist))
                data = "#EXTINF".join(playlist[:there]).encode()
            self.send_response(200)
            self.send_header(
                "Content-Type", "application/vnd.apple.mpegurl" if self.path == "/live.m3u8" else "video/mp2t"
            )
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        source = VideoSource(f"http://127.0.0.1:{server.server_address[1]}/live.m3u8", SILENCE)
        info = source.open()
        shown = [item for item in islice(source.frames(lambda: False), 60) if isinstance(item, Picture)]
        source.close()
        server.shutdown()
        thread.join(5)
    assert info.live
    assert len(shown) == 60
    arrivals = [item.arrival_s for item in shown]
    assert max(b - a for a, b in pairwise(arrivals)) > SILENCE.read_timeout_s


@pytest.mark.parametrize("url", ["rtsp://a/x", "rtsps://a/x", "http://a/x", "rtmp://a/x", "udp://a:1", "srt://a:1"])
def test_libav_waits_for_the_network_as_long_as_the_longest_silence(url: str) -> None:
    given = libav_options(url, VideoOptions(open_timeout_s=10.0, read_timeout_s=2.5))
    assert {given[key] for key in ("timeout", "rw_timeout") if key in given} == {"2500000"}
