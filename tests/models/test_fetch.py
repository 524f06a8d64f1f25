"""Fetching from servers that are slow, break off, lie, redirect, know no ranges or are not there."""

from __future__ import annotations

import errno
import hashlib
import http.client
import http.server
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from streampose.errors import ModelError, UsageError
from streampose.models import fetch as fetching
from streampose.models import manifest as manifests
from streampose.models.catalogue import KnownModel, catalogue
from streampose.models.fetch import fetch
from streampose.models.resolve import resolve
from tests.made_models import seeded_pose_network, write_pose_model

Answer = Callable[[http.server.BaseHTTPRequestHandler, bytes], None]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint as it would be published."""
    folder = tmp_path_factory.mktemp("published")
    manifest, weights = manifests.load(write_pose_model(folder, preset="hrnet_tiny"))
    assert manifest.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    return weights.read_bytes()


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


@pytest.fixture
def server(content: bytes) -> Iterator[Server]:
    running = Server(content)
    yield running
    running.close()


@pytest.fixture(autouse=True)
def _catalogue(server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue of one model, at the test's server, verified by the beginning of its hash as published ones are."""
    known = KnownModel(
        task="pose", network="hrnet_tiny", joints=17, url=server.url, sha256=hashlib.sha256(content).hexdigest()[:8],
        size=(64, 96), licence="none",
    )  # fmt: skip
    unsigned = known.model_copy(update={"sha256": ""})
    detector = unsigned.model_copy(update={"task": "detect"})
    monkeypatch.setattr(
        fetching, "catalogue", lambda: {"tiny": known, "unsigned": unsigned, "unsigned_detector": detector}
    )


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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


def test_a_second_fetch_asks_nobody(server: Server, tmp_path: Path) -> None:
    fetch("tiny", folder=tmp_path)
    before = len(server.ranges)
    fetch("tiny", folder=tmp_path)
    assert len(server.ranges) == before


def test_a_broken_download_goes_on_where_it_stopped(server: Server, content: bytes, tmp_path: Path) -> None:
    half = len(content) // 2
    (tmp_path / "tiny_96x64.safetensors.part").write_bytes(content[:half])
    fetch("tiny", folder=tmp_path)
    assert server.ranges == [f"bytes={half}-"]
    assert (tmp_path / "tiny_96x64.safetensors").read_bytes() == content


def test_a_download_that_was_whole_already_is_taken(server: Server, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tiny_96x64.safetensors.part").write_bytes(content)
    fetch("tiny", folder=tmp_path)
    assert (tmp_path / "tiny_96x64.safetensors").read_bytes() == content


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


def test_what_nobody_vouched_for_and_is_no_model_is_not_kept(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_text("no checkpoint")
    with pytest.raises(ModelError, match="not a checkpoint"):
        fetch("unsigned", source=junk, unverified=True, folder=tmp_path / "models")
    assert contents(tmp_path / "models") == []
    with pytest.raises(ModelError, match="no PyTorch checkpoint"):
        fetch("unsigned_detector", source=junk, unverified=True, folder=tmp_path / "models")
    assert contents(tmp_path / "models") == []


def test_right_weights_stay_where_only_their_manifest_cannot_be_written(
    content: bytes, tmp_path: Path, server: Server
) -> None:
    (tmp_path / "tiny.yaml").mkdir()
    for _ in range(2):
        with pytest.raises(ModelError, match=r"tiny\.yaml: cannot be written"):
            fetch("tiny", folder=tmp_path)
        assert contents(tmp_path) == ["tiny.yaml", "tiny_96x64.safetensors"]
    (tmp_path / "tiny.yaml").rmdir()
    assert manifests.load(fetch("tiny", folder=tmp_path))[0].name == "tiny"
    assert len(server.ranges) == 1


def test_files_that_are_called_the_same_do_not_take_each_others_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of these no publisher's address is known, and what they are called is up to whoever brought them."""
    names = ("pose_hrnet_w32_256x192", "pose_hrnet_w32_384x288")
    tiny = {name: catalogue()[name].model_copy(update={"network": "hrnet_tiny"}) for name in names}
    monkeypatch.setattr(fetching, "catalogue", lambda: tiny)
    for seed, name in enumerate(names):
        brought = tmp_path / name / "model.pth"
        brought.parent.mkdir()
        torch.save(seeded_pose_network("hrnet_tiny", seed=seed).state_dict(), brought)
        fetch(name, source=brought, unverified=True, folder=tmp_path / "models")
    for name in names:
        manifest, weights = manifests.load(tmp_path / "models" / f"{name}.yaml")
        assert (manifest.name, weights.name) == (name, f"{name}.pth")


def test_a_file_of_another_model_does_not_take_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor its published precision, cost and licence: neither another network, nor the same for another input."""
    name = "pose_hrnet_w48_384x288"
    tiny = catalogue()[name].model_copy(update={"network": "hrnet_tiny"})
    monkeypatch.setattr(fetching, "catalogue", lambda: {name: tiny})

    def bring(file: str, joints: int = 17, preset: str = "hrnet_tiny") -> Path:
        torch.save(seeded_pose_network(preset, joints).state_dict(), tmp_path / file)
        return fetch(name, source=tmp_path / file, unverified=True, folder=tmp_path / "models")

    kept = bring("mine.pth").read_text()
    for asked, said in (
        (("other.pth", 17, "litehrnet_tiny"), f"{name}: is hrnet_tiny of 17 joints, this file is litehrnet_tiny of 17"),
        (("more.pth", 21), "this file is hrnet_tiny of 21 joints"),
        (
            ("pose_hrnet_w48_256x192.pth",),
            r"is for an input of 256x192 .* by its name, pose_hrnet_w48_384x288 has 384x288",
        ),
    ):
        with pytest.raises(ModelError, match=said):
            bring(*asked)
        assert contents(tmp_path / "models") == [f"{name}.pth", f"{name}.yaml"]
        assert manifests.load(tmp_path / "models" / f"{name}.yaml")[1].is_file()
    assert (tmp_path / "models" / f"{name}.yaml").read_text() == kept


def test_from_a_file(content: bytes, tmp_path: Path, server: Server) -> None:
    brought = tmp_path / "brought.safetensors"
    brought.write_bytes(content)
    fetch("tiny", source=brought, folder=tmp_path / "models")
    assert contents(tmp_path / "models") == ["tiny.yaml", "tiny_96x64.safetensors"]
    assert server.ranges == []
    brought.write_bytes(content[:-1])
    with pytest.raises(ModelError, match="is not the published file"):
        fetch("tiny", source=brought, folder=tmp_path / "others")
    assert contents(tmp_path / "others") == []


def test_without_a_published_hash_somebody_must_answer_for_it(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="states no sha256"):
        fetch("unsigned", folder=tmp_path)
    with pytest.raises(ModelError, match="is not the published file"):
        fetch("unsigned", folder=tmp_path, sha256="0" * 64)
    for short in ("", "3", hashlib.sha256(content).hexdigest()[:63], "g" * 64):
        with pytest.raises(UsageError, match="a whole sha256 is wanted"):
            fetch("unsigned", folder=tmp_path, sha256=short)
    with pytest.raises(UsageError, match="the published tiny has"):
        fetch("tiny", folder=tmp_path, sha256="0" * 64)
    fetch("unsigned", folder=tmp_path, sha256=hashlib.sha256(content).hexdigest())
    fetch("unsigned", folder=tmp_path / "again", unverified=True)


def test_a_file_that_nobody_states_the_hash_of_takes_the_place_of_the_one_before(
    content: bytes, tmp_path: Path, server: Server
) -> None:
    fetch("unsigned", folder=tmp_path / "models", unverified=True)
    asked = len(server.ranges)
    manifest, weights = manifests.load(write_pose_model(tmp_path / "new", preset="hrnet_tiny", seed=1))
    assert weights.read_bytes() != content
    path = fetch("unsigned", source=weights, folder=tmp_path / "models", unverified=True)
    assert manifests.load(path)[0].sha256 == manifest.sha256
    assert manifests.load(fetch("unsigned", folder=tmp_path / "models", unverified=True))[0].sha256 == manifest.sha256
    junk = tmp_path / "junk.safetensors"
    junk.write_text("no checkpoint")
    with pytest.raises(ModelError, match="not a checkpoint"):
        fetch("unsigned", source=junk, folder=tmp_path / "models", unverified=True)
    assert contents(tmp_path / "models") == ["tiny_96x64.safetensors", "unsigned.yaml"]
    assert manifests.load(path)[0].sha256 == manifest.sha256
    assert len(server.ranges) == asked, "without a file the one that is here serves"


def test_https_never_goes_on_to_http() -> None:
    import urllib.request

    handler = fetching._StaySecure()
    request = urllib.request.Request("https://example.org/a")
    with pytest.raises(ModelError, match="not encrypted"):
        handler.redirect_request(request, None, 302, "Found", "", "http://example.org/a")
