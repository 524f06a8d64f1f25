"""An HTTP server of one file on loopback, whose behaviour is a test's own."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable
from pathlib import Path

Answer = Callable[[http.server.BaseHTTPRequestHandler, bytes], None]


class Server:
    """An HTTP server of one file; `answer` is how it behaves, `ranges` the Range headers it was sent."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.answer: Answer = whole
        self.ranges: list[str | None] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.ranges.append(self.headers.get("Range"))
                outer.answer(self, outer.content)

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/tiny_96x64.safetensors"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def begin(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> bytes:
    """Headers of a well-behaved answer, with ranges; what is to be sent."""
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start = int(asked[1]) if asked else 0
    if start >= len(content) and asked:
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(content)}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return b""
    handler.send_response(206 if asked else 200)
    if asked:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content) - start))
    handler.end_headers()
    return content[start:]


def whole(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
    handler.wfile.write(begin(handler, content))


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
