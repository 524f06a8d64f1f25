"""Network sources whose server refuses, denies, keeps silent, stops or is not there."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import av
import pytest

from streampose.errors import PermanentSourceError, TransientSourceError
from streampose.sources.base import Corrupt, Picture
from streampose.sources.video import VideoSource
from tests.clocks import OwnTime
from tests.loopback import tcp_server
from tests.sources.web_server import PATIENT, QUICK, SECRET, drain, failure, numbers


@pytest.mark.parametrize(
    ("path", "kind", "permanent"),
    [
        ("denied", "auth", True),
        ("forbidden", "auth", True),
        ("nothing.mp4", "not_found", False),
        ("broken", "other", False),
    ],
)
def test_what_a_server_answers_is_told_apart(server: str, path: str, kind: str, permanent: bool) -> None:
    error = failure(f"http://admin:{SECRET}@{server}/{path}?token=abcdef123456")
    assert error.kind == kind
    assert isinstance(error, PermanentSourceError) == permanent
    assert server in str(error)
    for secret in (SECRET, "p@ss", "abcdef", "admin"):
        assert secret not in str(error)
    assert error.__context__ is None
    assert error.__cause__ is None


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "http"])
def test_nobody_there_is_refused(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    error = failure(f"{scheme}://127.0.0.1:{port}/stream", PATIENT, 1.5)
    assert error.kind in ("refused", "other"), "not a wait that ran out"
    assert isinstance(error, TransientSourceError)


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "http"])
def test_a_silent_server_costs_no_more_than_the_limit(scheme: str) -> None:
    with tcp_server(lambda connection: None) as port:
        error = failure(f"{scheme}://u:{SECRET}@127.0.0.1:{port}/stream")
    assert error.kind == "timeout"
    assert isinstance(error, TransientSourceError)
    assert SECRET not in str(error)


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "http"])
def test_a_server_that_hangs_up_or_talks_nonsense_is_a_passing_failure(scheme: str) -> None:
    def hang_up(connection: socket.socket) -> None:
        connection.recv(10)
        connection.close()

    def nonsense(connection: socket.socket) -> None:
        connection.sendall(bytes(range(256)) * 20)
        connection.close()

    for answer in (hang_up, nonsense):
        with tcp_server(answer) as port:
            error = failure(f"{scheme}://127.0.0.1:{port}/stream", PATIENT)
        assert isinstance(error, TransientSourceError)


def test_rtsp_authentication_refused_is_told(tmp_path: Path) -> None:
    def deny(connection: socket.socket) -> None:
        for _ in range(4):
            request = connection.recv(4096).decode(errors="replace")
            sequence = next((line for line in request.splitlines() if line.startswith("CSeq")), "CSeq: 1")
            reply = f'RTSP/1.0 401 Unauthorized\r\n{sequence}\r\nWWW-Authenticate: Basic realm="cam"\r\n\r\n'
            connection.sendall(reply.encode())

    with tcp_server(deny) as port:
        error = failure(f"rtsp://admin:{SECRET}@127.0.0.1:{port}/h264")
    assert error.kind == "auth"
    assert isinstance(error, PermanentSourceError)


def test_rtsp_path_that_is_not_there_is_told() -> None:
    def answer(connection: socket.socket) -> None:
        request = connection.recv(4096).decode(errors="replace")
        sequence = next(line for line in request.splitlines() if line.startswith("CSeq"))
        connection.sendall(f"RTSP/1.0 404 Not Found\r\n{sequence}\r\n\r\n".encode())

    with tcp_server(answer) as port:
        error = failure(f"rtsp://127.0.0.1:{port}/h264")
    assert error.kind == "not_found"
    assert isinstance(error, TransientSourceError)


def test_a_stream_that_stops_sending_ends_within_the_read_limit(server: str) -> None:
    source = VideoSource(f"http://{server}/mjpeg-stall", QUICK)
    source.open()
    items: list[Picture | Corrupt] = []
    with OwnTime() as own, pytest.raises(TransientSourceError) as caught:
        drain(source, items)
    assert caught.value.kind == "timeout"
    assert numbers(items) == list(range(8))
    assert own.seconds < 6.0
    source.close()


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "http", "tcp"])
def test_a_host_whose_name_is_not_known_is_said_to_be_that(scheme: str) -> None:
    error = failure(f"{scheme}://u:{SECRET}@no-such-host.invalid:99/stream")
    assert isinstance(error, TransientSourceError), "the DNS may come back"
    assert str(error) == (
        f"{scheme}://***@no-such-host.invalid:99/stream cannot be reached: the name of its host is not known here; "
        "check it, or the DNS"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems say something else of this address")
@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "http", "tcp"])
def test_an_address_without_a_route_is_said_to_be_that_and_no_wait_that_ran_out(scheme: str) -> None:
    error = failure(f"{scheme}://u:{SECRET}@255.255.255.255:99/stream")  # all hosts of the network: no TCP goes there
    assert isinstance(error, TransientSourceError)
    assert error.kind == "unreachable"
    assert str(error) == (
        f"{scheme}://***@255.255.255.255:99/stream cannot be reached: no route from this machine to its address; check that "
        "it is on, and the network"
    )


def test_the_words_of_an_address_are_no_reason(server: str, tmp_path: Path) -> None:
    (tmp_path / "ssl-tls-certificate").write_bytes(b"garbage " * 200)
    error = failure(f"http://{server}/ssl-tls-certificate")
    assert (error.kind, "TLS" in str(error)) == ("other", False)


@pytest.mark.parametrize(("libav_says", "kind"), [(None, "other"), (av.logging.ERROR, "tls")])
def test_a_secure_scheme_to_a_plain_server_is_a_tls_failure_where_libav_says_so(
    libav_says: int | None, kind: str
) -> None:
    def plain(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
        connection.close()

    av.logging.set_level(libav_says)
    try:
        with tcp_server(plain) as port:
            error = failure(f"https://127.0.0.1:{port}/stream")
    finally:
        av.logging.set_level(None)
    assert error.kind == kind
    assert isinstance(error, TransientSourceError)
