"""Fetching from servers that are slow, break off, lie, redirect, know no ranges or are not there."""

from __future__ import annotations

import errno
import http.client
import http.server
import os
import socket
import threading
from pathlib import Path

import pytest

from streampose.errors import ModelError, UsageError
from streampose.models import fetch as fetching
from streampose.models.fetch import fetch
from streampose.models.resolve import resolve
from tests.file_server import Answer, Server, begin, contents, whole

pytestmark = pytest.mark.usefixtures("small_catalogue")


def truncating(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
    """Promises everything, sends a third of the file, hangs up."""
    handler.wfile.write(begin(handler, content)[: len(content) // 3])
    handler.close_connection = True


def silent(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
    """Promises everything, sends a little, then nothing until the other side has hung up."""
    handler.wfile.write(begin(handler, content)[:1000])
    handler.wfile.flush()
    handler.connection.settimeout(10)
    handler.connection.recv(1)
    handler.close_connection = True


def lying(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
    whole(handler, bytes(len(content)))


def without_ranges(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def redirecting(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
    if handler.path.startswith("/moved/"):
        whole(handler, content)
        return
    handler.send_response(302)
    handler.send_header("Location", f"/moved{handler.path}")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def missing(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_error(404)


@pytest.mark.parametrize("answer", [whole, truncating, redirecting, without_ranges], ids=lambda answer: answer.__name__)
def test_what_arrives_is_whole_and_usable(answer: Answer, server: Server, content: bytes, tmp_path: Path) -> None:
    server.answer = answer
    seen: list[tuple[int, int | None]] = []
    path = fetch("tiny", folder=tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert contents(tmp_path) == ["tiny.yaml", "tiny_96x64.safetensors"]
    assert (tmp_path / "tiny_96x64.safetensors").read_bytes() == content
    assert seen[-1] == (len(content), len(content))
    manifest, _ = resolve(path, "pose")
    assert (manifest.name, manifest.input.width, manifest.input.height) == ("tiny", 64, 96)
    assert manifest.architecture == {"network": "hrnet_tiny", "joints": 17}


def test_a_broken_download_goes_on_where_it_stopped(server: Server, content: bytes, tmp_path: Path) -> None:
    half = len(content) // 2
    (tmp_path / "tiny_96x64.safetensors.part").write_bytes(content[:half])
    fetch("tiny", folder=tmp_path)
    assert server.ranges == [f"bytes={half}-"]
    assert (tmp_path / "tiny_96x64.safetensors").read_bytes() == content


def test_what_no_hash_will_tell_is_not_gone_on_with_from_another_time(
    server: Server, content: bytes, tmp_path: Path
) -> None:
    """The rest of another file was put behind what had been begun, and the two were taken for one model."""
    (tmp_path / "tiny_96x64.safetensors.part").write_bytes(b"of another address")
    fetch("unsigned", folder=tmp_path, unverified=True)
    assert server.ranges == [None]
    assert (tmp_path / "tiny_96x64.safetensors").read_bytes() == content


@pytest.mark.parametrize("tags", [('"a"', '"a"'), ('"a"', '"b"'), ('W/"a"', 'W/"a"'), (None, None)])
def test_what_no_hash_will_tell_is_of_one_version(
    tags: tuple[str | None, str | None], server: Server, content: bytes, tmp_path: Path
) -> None:
    """A server may get another file while one is being sent; what it calls them, if anything, tells them apart."""
    half = len(content) // 2

    def changing(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
        tag = tags[len(server.ranges) > 1]
        if handler.headers.get("If-Range") not in (None, tag):
            del handler.headers["Range"]
        send = handler.end_headers

        def end_headers() -> None:
            if tag is not None:
                handler.send_header("ETag", tag)
            send()

        handler.end_headers = end_headers  # type: ignore[method-assign]
        rest = begin(handler, content)
        if len(server.ranges) > 1:
            handler.wfile.write(rest)
            return
        handler.wfile.write((rest if tags[0] == tags[1] else bytes(len(rest)))[:half])
        handler.close_connection = True

    server.answer = changing
    fetch("unsigned", folder=tmp_path, unverified=True)
    assert (tmp_path / "tiny_96x64.safetensors").read_bytes() == content
    assert server.ranges == [None, f"bytes={half}-" if tags[0] == '"a"' else None]


def test_without_a_hash_a_download_that_breaks_off_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.answer = truncating
    with pytest.raises(ModelError, match=r"stopped after \d+ bytes \(the connection ended early\); .* begins again"):
        fetch("unsigned", folder=tmp_path, unverified=True)
    assert contents(tmp_path) == []

    def gone(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
        (truncating if server.ranges[-2] is not None else missing)(handler, content)

    server.ranges.append("first")
    server.answer = gone
    with pytest.raises(ModelError, match="answers 404"):
        fetch("unsigned", folder=tmp_path, unverified=True)
    assert contents(tmp_path) == []


def test_a_download_that_was_whole_already_is_taken(server: Server, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tiny_96x64.safetensors.part").write_bytes(content)
    fetch("tiny", folder=tmp_path)
    assert (tmp_path / "tiny_96x64.safetensors").read_bytes() == content


def test_a_server_without_ranges_that_breaks_off_here_and_there_is_given_up(
    server: Server, content: bytes, tmp_path: Path
) -> None:
    def breaking_off(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
        if len(server.ranges) > 40:  # far more than are asked
            whole(handler, content)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: (3000, 1000, 2000)[len(server.ranges) % 3]])
        handler.close_connection = True

    server.answer = breaking_off
    with pytest.raises(ModelError, match=r"stopped after \d000 bytes \(the connection ended early\)"):
        fetch("tiny", folder=tmp_path)
    assert len(server.ranges) < 10


def test_a_part_longer_than_the_file_is_begun_again(server: Server, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tiny_96x64.safetensors.part").write_bytes(content + b"more")
    fetch("tiny", folder=tmp_path)
    assert (tmp_path / "tiny_96x64.safetensors").read_bytes() == content


def test_another_content_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    server.answer = lying
    with pytest.raises(ModelError, match="is not the published file"):
        fetch("tiny", folder=tmp_path)
    assert contents(tmp_path) == []


def test_a_server_that_falls_silent_is_given_up_and_gone_on_with(
    server: Server, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)

    def once(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
        if handler.headers.get("Range"):
            handler.close_connection = True
            return
        silent(handler, content)

    server.answer = once
    with pytest.raises(ModelError, match=r"stopped after 1000 bytes .* goes on from there"):
        fetch("tiny", folder=tmp_path, timeout_s=0.3)
    assert contents(tmp_path) == ["tiny_96x64.safetensors.part"]
    server.answer = whole
    fetch("tiny", folder=tmp_path)
    assert server.ranges[-1] == "bytes=1000-"
    assert (tmp_path / "tiny_96x64.safetensors").read_bytes() == content


def test_a_server_that_is_gone_half_way_is_gone_on_with(content: bytes, tmp_path: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    def serve_once() -> None:
        connection, _ = listening.accept()
        listening.close()
        connection.recv(4096)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        connection.sendall(head + content[:1000])
        connection.close()

    thread = threading.Thread(target=serve_once)
    thread.start()
    said = r"stopped after 1000 bytes \(cannot be reached \(.*refused\)\); the same command goes on"
    with pytest.raises(ModelError, match=said):
        fetch("tiny", folder=tmp_path, url=f"http://127.0.0.1:{port}/x", timeout_s=5)
    thread.join(5)
    assert contents(tmp_path) == ["tiny_96x64.safetensors.part"]


def test_a_network_that_goes_away_is_no_fault_of_the_disk(
    server: Server, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The route is lost for one reading; a cable cannot be pulled here, so the error is put in its place."""
    read, calls = http.client.HTTPResponse.read1, [0]

    def lost_once(self: http.client.HTTPResponse, n: int = -1) -> bytes:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        return read(self, min(n, 1000))

    monkeypatch.setattr(http.client.HTTPResponse, "read1", lost_once)
    fetch("tiny", folder=tmp_path)
    assert server.ranges[-1] == "bytes=1000-"
    assert (tmp_path / "tiny_96x64.safetensors").read_bytes() == content


def test_what_cannot_be_had_is_one_line(server: Server, tmp_path: Path) -> None:
    server.answer = missing
    with pytest.raises(ModelError, match="answers 404") as caught:
        fetch("tiny", folder=tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="use --from FILE"):
        fetch("tiny", folder=tmp_path, url="http://127.0.0.1:9/nobody")
    with pytest.raises(UsageError, match="not a known model"):
        fetch("tinny", folder=tmp_path)
    for address in ("nonsense", "file:///etc/passwd", "ftp://somewhere/x.pth"):
        with pytest.raises(UsageError, match="begins with https://"):
            fetch("tiny", folder=tmp_path, url=address)
    for address in ("http://[::1", "http://a..b/x", "http://127.0.0.1:9/é", "http://127.0.0.1:x/", "http://a b/x"):
        with pytest.raises(UsageError, match="is no address that can be asked"):
            fetch("tiny", folder=tmp_path, url=address)
    assert contents(tmp_path) == []


def test_what_a_server_says_in_several_lines_is_one(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)

    def in_circles(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
        handler.send_response(302)
        handler.send_header("Location", handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def no_http(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
        handler.wfile.write(b"this is no HTTP\r\n\r\n")
        handler.close_connection = True

    for answer, message in ((in_circles, "infinite loop"), (no_http, "BadStatusLine")):
        server.answer = answer
        with pytest.raises(ModelError, match=message) as caught:
            fetch("tiny", folder=tmp_path)
        assert "\n" not in str(caught.value)


def test_https_never_goes_on_to_http() -> None:
    import urllib.request

    handler = fetching._StaySecure()
    request = urllib.request.Request("https://example.org/a")
    with pytest.raises(ModelError, match="not encrypted"):
        handler.redirect_request(request, None, 302, "Found", "", "http://example.org/a")
