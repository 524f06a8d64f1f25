"""No credentials in any text, whatever a URL, a log record or a traceback looks like."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from streampose import redact as module
from streampose.redact import RedactFilter, install, redact, redact_url, remember
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
def test_a_remembered_password_is_gone_from_any_text(password: str, host: str) -> None:
    assume(password.strip() == password and password.strip("*") and password not in "header of realm for")
    url = f"rtsp://admin:{password}@{host}/x"
    remember(url)
    assert password not in redact(f"said <{password}> in a header of realm '{password}' for {url}")
    module._secrets.clear()


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
