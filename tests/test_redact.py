"""No credentials in any text, whatever a URL, a log record or a traceback looks like."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from streampose import redact as module
from streampose.config import validate
from streampose.errors import PermanentSourceError, TransientSourceError
from streampose.redact import (
    RedactFilter,
    install,
    quote_credentials,
    redact,
    redact_url,
    remember,
    split_credentials,
)
from streampose.sources.libav import VideoOptions
from streampose.sources.video import VideoSource

printable = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x24F, exclude_categories=("Z", "C")), min_size=1, max_size=20
)
hosts = st.sampled_from(["10.0.0.2", "cam.local:554", "[fe80::1]:8554", "host"])
paths = st.sampled_from(["", "/", "/h264", "/Streaming/Channels/101?transportmode=unicast", "/live.sdp?a=b&c=d"])
schemes = st.sampled_from(["rtsp", "rtsps", "http", "https", "rtmp", "RTSP"])


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Every test begins without remembered secrets and with the record factory of before."""
    factory, secrets = logging.getLogRecordFactory(), dict(module._secrets)
    module._secrets.clear()
    yield
    module._secrets.clear()
    module._secrets.update(secrets)
    logging.setLogRecordFactory(factory)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://user:pass@host/x", "rtsp://***@host/x"),
        ("rtsp://admin:p@ss/w%rd:@10.0.0.2:554/h264", "rtsp://***@10.0.0.2:554/h264"),
        ("rtsp://:p@ss/w%rd:@cam", "rtsp://***@cam"),
        ("rtsp://user@host/x", "rtsp://***@host/x"),
        ("cannot open 'rtsp://u:p@h/1' and 'http://a:b@c/2'.", "cannot open 'rtsp://***@h/1' and 'http://***@c/2'."),
        ("a rtsp://u:p@h/1,rtsp://v:q@i/2", "a rtsp://***@h/1,rtsp://***@i/2"),
        ("http://h/a?token=abc&x=1", "http://h/a?token=***&x=1"),
        ("http://h/a?x=1&access_token=abc#f", "http://h/a?x=1&access_token=***#f"),
        ("http://h/a?API-Key=abc", "http://h/a?API-Key=***"),
        ("rtsp://h:554/user=admin&password=tlJwpbo6&channel=1", "rtsp://h:554/user=***&password=***&channel=1"),
        ("srt://h:9000?mode=caller&passphrase=abc&latency=9", "srt://h:9000?mode=caller&passphrase=***&latency=9"),
        ("srt://h:9000?streamid=#!::u=admin,s=pw&pbkeylen=16", "srt://h:9000?streamid=***&pbkeylen=16"),
        ("rtmp://h/live?streamkey=abc&psk=d&stream_key=e", "rtmp://h/live?streamkey=***&psk=***&stream_key=***"),
        ("rtsp://host:554/ok refused", "rtsp://host:554/ok refused"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("rtsp://user:passw", "rtsp://***"),  # a line that was cut off
        ("Authorization: Basic dXNlcjpwYXNz\nCSeq: 2", "Authorization: ***\nCSeq: 2"),
        ("--set password=hunter2 more", "--set password=*** more"),
        ("/videos/a@b.mp4 and mail x@y.z", "/videos/a@b.mp4 and mail x@y.z"),
        ("", ""),
    ],
)
def test_known_shapes(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


def test_one_url_is_clean_to_its_end_even_with_spaces() -> None:
    assert redact_url(" rtsp://admin:my secret@cam/x") == " rtsp://***@cam/x"
    assert redact_url("http://cam/a?user=me too&password=my secret&x=1") == "http://cam/a?user=***&password=***&x=1"


@given(scheme=schemes, user=printable | st.just(""), password=printable, host=hosts, path=paths)
@example(scheme="rtsp", user="", password="p@ss/w%rd:", host="host", path="/x")
@example(scheme="rtsp", user="admin", password="@@@", host="host", path="")
@example(scheme="rtsp", user="1", password="1?2#3", host="cam.local:554", path="/")
def test_whatever_the_password_it_is_gone_and_the_host_stays(
    scheme: str, user: str, password: str, host: str, path: str
) -> None:
    assume("://" not in f"{user}:{password}")
    for spelled in (password, quote(password, safe="")):
        url = f"{scheme}://{user}:{spelled}@{host}{path}"
        expected = f"{scheme}://***@{host}{path}"
        assert redact(url) == expected
        assert redact_url(url) == expected
        assert redact(f"error opening {url} at once") == f"error opening {expected} at once"


@given(password=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=6, max_size=20), host=hosts)
@example(password="pass with spaces", host="host")
@example(password="x://y:z", host="host")
@example(password="00000?", host="host")  # reads as the port of a host `admin`, as do the next two
@example(password="554/cam", host="host")
@example(password="12345#@1:2/3@[", host="host")
def test_a_remembered_password_is_gone_from_any_text(password: str, host: str) -> None:
    assume(password.strip() == password and password.strip("*") and password not in "header of realm for")
    url = f"rtsp://admin:{password}@{host}/x"
    remember(url)
    assert password not in redact(f"said <{password}> in a header of realm '{password}' for {url}")
    module._secrets.clear()


def test_what_parameters_say_that_are_secrets_by_their_name_is_gone_from_any_text() -> None:
    url = "srt://10.0.0.2:9000?streamid=read:yard:u:s3cr3t&passphrase=Sup3r%20Secret&username=operator"
    remember(url)
    said = redact(f"srt: wrong key 'Sup3r Secret' or Sup3r%20Secret of read:yard:u:s3cr3t; see the operator; {url}")
    assert said == (
        "srt: wrong key '***' or *** of read:yard:u:***; see the operator; "
        "srt://10.0.0.2:9000?streamid=***&passphrase=***&username=***"
    )
    public = validate({"cameras": {"yard": {"url": url}}}).public()
    assert "cret" not in json.dumps(public)


@pytest.mark.parametrize(
    "stream_id",
    [
        "#!::r=entrance,m=request,u=operator,s=s3cr:et?1", "%23!::r=entrance,m=request,u=operator,s=s3cr:et%3F1",
        "read:entrance:operator:s3cr3t", "read:entrance:operator:s3cr3t:fast=enabled", "entrance",
        "#!::r=live/entrance?secret=s3cr3t,m=request", "read:entrance:token=s3cr3t",
    ],
)  # fmt: skip
def test_of_a_stream_id_only_passwords_are_gone_from_any_text(stream_id: str) -> None:
    url = f"srt://10.0.0.5:8890?streamid={stream_id}&latency=200000"
    remember(url)
    said = f"entrance: live, request of operator enabled; out/entrance.jsonl; {unquote(stream_id)}"
    hidden = said.replace("s3cr:et?1", "***").replace("s3cr3t", "***")
    assert redact(f"{said}; {url}") == f"{hidden}; srt://10.0.0.5:8890?streamid=***&latency=200000"


def test_common_words_that_parameters_say_stay_in_other_text() -> None:
    url = "rtsp://cam/live?auth=digest&session=primary&userauth=enabled&auth_key=s3cr3t"
    remember(url)
    said = redact(f"gate: digest login, primary stream enabled, s3cr3t; {url}")
    assert said == (
        "gate: digest login, primary stream enabled, ***; "
        "rtsp://cam/live?auth=***&session=***&userauth=***&auth_key=***"
    )


@pytest.mark.parametrize("password", ["00000?@secret", "554/ab@cam.local/x", "1@2@3@4@5", "p@ss/word"])
def test_no_part_of_a_password_stays_where_an_at_sign_in_it_could_be_its_end(password: str) -> None:
    remember(f"rtsp://admin:{password}@host/x")
    assert redact(f"<{password}> and <admin:{password}>") == "<***> and <***>"


def test_a_remembered_password_is_gone_where_only_its_base64_is_quoted() -> None:
    remember("rtsp://admin:p%40ss%2Fw%25rd%3A@cam/x")
    for spelling in ("p%40ss%2Fw%25rd%3A", "p@ss/w%rd:", "YWRtaW46cEBzcy93JXJkOg=="):
        assert redact(f"Sending: {spelling} now") == "Sending: *** now"


def test_short_passwords_do_not_eat_ordinary_words() -> None:
    remember("rtsp://a:in@cam/x")
    assert redact("in the beginning") == "in the beginning"
    remember("rtsp://a:123456@cam/x")
    assert redact("pts 91234567 of 123456") == "pts 91234567 of ***"


@given(st.text(max_size=200))
def test_any_text_passes_and_twice_is_once(text: str) -> None:
    once = redact(text)
    assert redact(once) == once
    if "://" not in text and "=" not in text and ":" not in text:
        assert once == text


@given(st.text("abcxyzABC0189", min_size=1, max_size=20))
def test_urls_without_credentials_are_left_alone(word: str) -> None:
    url = f"http://host:8080/{word}/index.m3u8?part={word}"
    assert redact_url(url) == url


def logged(record: object, *args: object, **kwargs: object) -> str:
    """What a handler that was added after `install` writes."""
    logger = logging.getLogger("test_redact")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        logger.error(record, *args, **kwargs)  # type: ignore[arg-type]
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


def test_log_records_are_clean_whichever_handler_writes_them() -> None:
    install()
    install()  # twice is once
    assert logged("opening %s failed", "rtsp://u:secret@h/x") == "opening rtsp://***@h/x failed\n"
    assert logged("plain %d", 3) == "plain 3\n"
    assert "secret" not in logged("wrong %d", "rtsp://u:secret@h/x")


def test_tracebacks_are_clean() -> None:
    install()

    def fail() -> None:
        raise ValueError("cannot open rtsp://u:secret@h/x")

    try:
        fail()
    except ValueError:
        text = logged("it broke", exc_info=True)
    assert "secret" not in text
    assert "ValueError: cannot open rtsp://***@h/x" in text
    assert "in fail" in text


def test_the_filter_cleans_records_made_elsewhere() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "see %s", ("http://a:secret@b",), None)
    assert RedactFilter().filter(record)
    assert record.getMessage() == "see http://***@b"


def test_libavs_own_lines_are_clean(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """libav says the address it cannot open; with its log switched on, that line comes through the same door."""
    import av

    caplog.set_level(1, "libav")  # libav's DEBUG is below Python's
    install(av.logging.DEBUG)
    try:
        source = VideoSource("http://admin:sesame77@127.0.0.1:1/x", VideoOptions(open_timeout_s=1.0))
        with pytest.raises(Exception, match=r"127\.0\.0\.1") as caught:
            source.open()
    finally:
        av.logging.set_level(None)
    lines = [record.getMessage() for record in caplog.records]
    assert any("http://***@127.0.0.1:1/x" in line for line in lines)
    assert not any("sesame77" in line for line in lines)
    assert "sesame77" not in str(caught.value)
    assert "sesame77" not in caplog.text


@pytest.mark.parametrize(
    ("url", "userinfo", "rest"),
    [
        ("rtsp://user:p@ss/w%rd:@host:554/path", "user:p@ss/w%rd:", "host:554/path"),
        ("rtsp://user:p@ss/w%rd:@cam/path", "user:p@ss/w%rd:", "cam/path"),
        ("rtsp://:p@ss/w%rd:@10.0.0.2", ":p@ss/w%rd:", "10.0.0.2"),
        ("rtsp://:secret@cam/x", ":secret", "cam/x"),
        ("rtsp://@cam/x", "", "cam/x"),
        ("rtsp://me@corp.com:pw@10.0.0.9/", "me@corp.com:pw", "10.0.0.9/"),
        ("rtsp://user:a?b#c@[fe80::1]:554/x", "user:a?b#c", "[fe80::1]:554/x"),
        ("rtsp://admin:12/3@10.0.0.4/x", "admin:12/3", "10.0.0.4/x"),
        ("rtsp://u/s:er@10.0.0.4/x", "u/s:er", "10.0.0.4/x"),
        # hosts of other kinds: fully qualified, of other letters, a mere number
        ("rtsp://u:pw@cam.local./x", "u:pw", "cam.local./x"),
        ("rtsp://u:p/w@камера.рф:554/x", "u:p/w", "камера.рф:554/x"),
        ("rtsp://u:pw@167772164/x", "u:pw", "167772164/x"),
        ("rtsp://камера.рф/x@y", None, "камера.рф/x@y"),
        # an @ in the path is no end of credentials
        ("rtsp://10.0.0.2/path@home", None, "10.0.0.2/path@home"),
        ("rtsp://nvr:554/cam@hd", None, "nvr:554/cam@hd"),
        ("rtsp://u:pw@10.0.0.2/s@hd", "u:pw", "10.0.0.2/s@hd"),
        ("http://h/a?x=1@2", None, "h/a?x=1@2"),
    ],
)
def test_where_credentials_end(url: str, userinfo: str | None, rest: str) -> None:
    scheme, _, _ = url.partition("://")
    assert split_credentials(url) == (f"{scheme}://", userinfo, rest)


def test_a_path_has_no_credentials() -> None:
    assert split_credentials("/videos/a:b@c.mp4") == ("", None, "/videos/a:b@c.mp4")
    assert quote_credentials("/videos/a:b@c.mp4") == "/videos/a:b@c.mp4"


@given(url=st.sampled_from(["rtsp://admin:p%40ss@cam/x", "rtsp://admin:pass@10.0.0.2:554/a@b", "http://cam/x?a=b"]))
def test_what_is_spelled_legally_is_left_as_it_is(url: str) -> None:
    assert quote_credentials(url) == url


anything = st.text(st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_categories=("Cc", "Cs")), max_size=10)
LEGAL = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:]|%[0-9A-Fa-f]{2})*")


class Doorman:
    """An RTSP server on loopback that asks for a password (Basic, RFC 7617), notes it, and has no such stream."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port: int = self._listening.getsockname()[1]
        self.told: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(1.0)
                    self._ask(connection)

    def _ask(self, connection: socket.socket) -> None:
        waiting = b""
        while got := connection.recv(4096):
            waiting += got
            while b"\r\n\r\n" in waiting:
                request, _, waiting = waiting.partition(b"\r\n\r\n")
                fields = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:] if b": " in line)
                status, more = b"401 Unauthorized", b'WWW-Authenticate: Basic realm="cam"\r\n'
                if b"Authorization" in fields:
                    self.told.append(base64.b64decode(fields[b"Authorization"].removeprefix(b"Basic ")).decode())
                    status, more = b"404 Not Found", b""
                connection.sendall(b"RTSP/1.0 %s\r\nCSeq: %s\r\n%s\r\n" % (status, fields[b"CSeq"], more))


@pytest.fixture(scope="module")
def doorman() -> Iterator[Doorman]:
    server = Doorman()
    yield server
    server.close()


@settings(max_examples=200, deadline=None)
@given(user=anything, password=anything, as_keys=st.booleans())
@example(user="user", password="p@ss/w%rd:", as_keys=False)
@example(user="", password="p@ss/w%rd:", as_keys=False)
@example(user="me@corp.com", password="a/b?c#d@e:f g%zz", as_keys=False)
@example(user="", password="@@@//", as_keys=True)
@example(user="admin", password="100%41", as_keys=True)
def test_the_server_gets_exactly_that_password_and_nobody_else_does(
    doorman: Doorman, user: str, password: str, as_keys: bool
) -> None:
    """Whatever user and password, written into the URL as they are or given by keys."""
    install()
    assume(as_keys or ":" not in user)
    assume(user or password)
    address = f"127.0.0.1:{doorman.port}/x"
    if as_keys:
        config = validate({"cameras": {"gate": {"url": f"rtsp://{address}", "user": user, "password": password}}})
        url = config.cameras["gate"].full_url
    else:
        url = f"rtsp://{user}:{password}@{address}"
    expected = f"{user}:{password}"
    if not as_keys and LEGAL.fullmatch(expected):
        expected = unquote(expected)  # spelled as a URL must: it means what a URL means
    doorman.told.clear()
    source = VideoSource(url, VideoOptions(open_timeout_s=2.0, read_timeout_s=2.0))
    with pytest.raises(TransientSourceError, match="has no such stream") as caught:
        source.open()
    assert set(doorman.told) == {expected}
    assert str(caught.value).startswith(f"rtsp://***@{address} ")
    said = logged("%s: %s", source.name, caught.value)
    sink_text = json.dumps({"source": source.name, "reason": str(caught.value)}) + said + repr(caught.value)
    without = sink_text.replace(f"rtsp://***@{address}", "")
    for secret in (password, quote(password, safe=""), user):
        assert (
            len(secret) < 3 or secret not in without or secret in "has no such stream; check the path behind the host"
        )


@pytest.mark.parametrize(
    "camera",
    [
        {"url": "rtsp://10.0.0.2/s", "user": "sk_live_4f9a8b7c", "password": "pw123456"},
        {"url": "rtsp://10.0.0.2/s", "user": "sk_live_4f9a8b7c", "password": ""},
        {"url": "rtsp://sk_live_4f9a8b7c:pw123456@10.0.0.2/s"},
        {"url": "rtsp://10.0.0.2/s", "detect_url": "rtsp://sk_live_4f9a8b7c:pw123456@10.0.0.2/t"},
    ],
)
def test_the_configuration_in_a_record_has_neither_user_nor_password(camera: dict[str, str]) -> None:
    text = json.dumps(validate({"cameras": {"gate": camera}}).public())
    assert "10.0.0.2/s" in text
    assert "sk_live_4f9a8b7c" not in text
    assert "pw123456" not in text


def test_credentials_that_libav_would_cut_are_refused_in_one_line() -> None:
    source = VideoSource(f"rtsp://admin:{'x' * 130}@127.0.0.1:1/x", VideoOptions(open_timeout_s=1.0))
    with pytest.raises(PermanentSourceError, match="a shorter password is needed") as caught:
        source.open()
    assert "xxx" not in str(caught.value)
