"""An HTTP server on loopback whose addresses behave well or badly, and what becomes of a source that reads from it."""

from __future__ import annotations

import contextlib
import functools
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest

from streampose.errors import SourceError, TransientSourceError
from streampose.sources.barcode import read_code
from streampose.sources.base import Corrupt, Picture
from streampose.sources.decoder import PacketTap
from streampose.sources.libav import VideoOptions
from streampose.sources.video import VideoSource
from tests.clocks import OwnTime
from tests.loopback import tcp_server
from tests.media import picture

QUICK = VideoOptions(open_timeout_s=1.0, read_timeout_s=1.0)
PATIENT = VideoOptions(open_timeout_s=20.0, read_timeout_s=20.0)
SECRET = "p%40ss%2Fw%25rd"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files with byte ranges, and some addresses that misbehave."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        actions: dict[str, Callable[[], None]] = {
            "/mjpeg": self.mjpeg, "/mjpeg-stall": self.mjpeg_stall,
            "/play": self.playlist, "/fragments": self.fragments,
            "/mjpeg-slow": functools.partial(self.mjpeg, 10, 0.15),
            "/denied": functools.partial(self.send_error, 401), "/broken": functools.partial(self.send_error, 503),
            "/forbidden": functools.partial(self.send_error, 403), "/whole.mp4": self.whole,
        }  # fmt: skip
        actions.get(self.path.partition("?")[0], self.file)()

    def file(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        data = path.read_bytes()
        asked = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        start, end = int(asked[0] or 0), int(asked[2] or len(data) - 1)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
        self.send_header("Content-Length", str(end - start + 1))
        self.end_headers()
        self.wfile.write(data[start : end + 1])
        return None

    def playlist(self) -> None:
        """`live.m3u8` by a name that does not tell what it is."""
        data = Path(self.translate_path("/live.m3u8")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.apple.mpegurl")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def whole(self) -> None:
        """Without byte ranges, whatever is asked for."""
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data)

    def mjpeg(self, frames: int = 20, step_s: float = 0.05) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(frames):
            data = cv2.imencode(".jpg", picture(number))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")
            self.wfile.flush()
            time.sleep(step_s)

    def fragments(self) -> None:
        """`frag.mp4` by and by, as a recorder sends what it sees: no length, and no end but that of the connection."""
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.end_headers()
        data = Path(self.translate_path("/frag.mp4")).read_bytes()
        for at in range(0, len(data), 4096):
            self.wfile.write(data[at : at + 4096])

    def mjpeg_stall(self) -> None:
        self.mjpeg(8)
        self.server.stalled.wait(10)  # type: ignore[attr-defined]


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Hands out `folder`; gives host and port."""
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        httpd.handle_error = lambda request, address: None  # type: ignore[method-assign]  # clients hang up here
        httpd.stalled = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{httpd.server_address[1]}"
        httpd.stalled.set()  # type: ignore[attr-defined]
        httpd.shutdown()
        thread.join(5)


def watch(url: str, options: VideoOptions = QUICK, at_most: int = 10_000) -> list[Picture | Corrupt]:
    source = VideoSource(url, options)
    try:
        source.open()
        items: list[Picture | Corrupt] = []
        for item in source.frames(lambda: len(items) >= at_most):
            items.append(item)
        return items
    finally:
        source.close()


def drain(source: VideoSource, into: list[Picture | Corrupt]) -> None:
    """Everything the source gives, also where it ends in an error."""
    for item in source.frames(lambda: False):
        into.append(item)


def watch_to_the_end(said: bytes, content_type: str, tap: PacketTap | None = None) -> list[Picture | Corrupt]:
    """What a live source gives of a camera that says `said` to who asks, without its length, and hangs up."""

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode() + said)
        connection.shutdown(socket.SHUT_WR)

    items: list[Picture | Corrupt] = []
    with tcp_server(talk, patience_s=5.0) as port:
        source = VideoSource(f"http://127.0.0.1:{port}/video.cgi", QUICK, tap=tap)
        source.open()
        with pytest.raises(TransientSourceError, match="ended the stream"):
            drain(source, items)
        source.close()
    return items


def numbers(items: list[Picture | Corrupt]) -> list[int | None]:
    codes = [read_code(item.image) for item in items if isinstance(item, Picture)]
    return [code[0] if code else None for code in codes]


def failure(url: str, options: VideoOptions = QUICK, within_s: float = 3.5) -> SourceError:
    """How it ends, which takes no longer than `within_s` of the time that this process gets to live."""
    with OwnTime() as own, pytest.raises(SourceError) as caught:
        watch(url, options)
    assert own.seconds < within_s
    return caught.value
