"""Keep credentials out of every text: URLs lose user, password and tokens, whatever shape they are written in.

Users put passwords into URLs as they are (`rtsp://admin:p@ss/w%rd:@10.0.0.2/`), so no URL parser can be trusted to find
where they end: all before the last @ of the word goes. Too much may be hidden that way, never too little. What was said
to `remember` is taken out of any text besides, also where only a part of the URL is quoted (truncated log lines, headers);
there, too, every @ may be the one behind the password.
"""

from __future__ import annotations

import base64
import logging
import re
import traceback
from urllib.parse import quote, unquote

MARK = "***"
MIN_SECRET = 6  # shorter words would be found all over ordinary text; inside URLs they are removed all the same

_SCHEME = r"[A-Za-z][A-Za-z0-9+.\-]*://"
_KNOWN = r"(?:rtsps?|rtspu|rtmpt?s?|https?|srt|udp|tcp|tls|rtp|mmsh?|ftp|file|mqtts?|wss?|amqps?|redis)://"
_URL = re.compile(rf"({_SCHEME})((?:(?!{_KNOWN})\S)*)", re.IGNORECASE)
_SECRET = (
    r"[\w.\-]*(?:token|secret|passw|passphrase|pwd|psk|signature|(?:api|access|stream|auth|session)[_\-]?key|credential|jwt)"
    r"[\w.\-]*|key|sig|pass|pas|pw"
)
_NAME = rf"(?:{_SECRET}|[\w.\-]*(?:auth|session)[\w.\-]*|user|usr|username|login\w*)"
# An SRT stream id may hold user and password, in whatever form its server wants.
_PARAMETER = re.compile(rf"(?<=[?&;/#_])(?:(streamid)=([^&]+)|({_NAME})=([^&;#]+))", re.IGNORECASE)
_SURELY_SECRET = re.compile(_SECRET, re.IGNORECASE)  # `auth=digest` and `session=primary` are common words
_IN_STREAM_ID = re.compile(rf"(?:^|[:,;?&])(?:s|{_SECRET})=([^,&]+)", re.IGNORECASE)
_HEADER = re.compile(r"(\b(?:proxy-)?(?:authorization|cookie)['\"]?\s*[:=]\s*)[^\r\n]+", re.IGNORECASE)
_ASSIGNED = re.compile(r"\b((?:password|passwd|pwd)=)([^\s&;,]+)", re.IGNORECASE)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_HOST = re.compile(
    r"(?:(?P<address>\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+(?:%[\w.]+)?\])|(?P<name>\w(?:[\w.\-]*\w)?\.?))"
    r"(?P<port>:\d{1,5})?(?=[/?#]|$)"
)
_LEGAL = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:]|%[0-9A-Fa-f]{2})*")

_secrets: dict[str, re.Pattern[str]] = {}


def redact(text: str) -> str:
    """`text` with the credentials of every URL in it, of headers, and all remembered secrets replaced by ***."""
    for secret in sorted(_secrets, key=len, reverse=True):  # a short one may be the begin of a longer one
        text = _secrets[secret].sub(MARK, text)
    if "://" in text:
        text = _URL.sub(lambda found: found[1] + _clean(found[2]), text)
    text = _HEADER.sub(rf"\g<1>{MARK}", text)
    return _ASSIGNED.sub(rf"\g<1>{MARK}", text)


def one_line(text: str) -> str:
    """`text` with line breaks and other control characters, as names of files may have them, spelled out (`\\n`)."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def redact_url(url: str) -> str:
    """`url` without credentials, taken as one URL even where it holds spaces; a path comes back as it is."""
    found = re.match(rf"\s*{_SCHEME}", url)
    if found is None:
        return url
    return found[0] + _clean(url[found.end() :])


def _clean(rest: str) -> str:
    """What follows the scheme: user information away, then the values of telling parameters."""
    _, at, behind = rest.rpartition("@")
    if at:
        rest = f"{MARK}@{behind}"
    elif _may_be_cut_off(rest):
        return MARK
    return _PARAMETER.sub(lambda found: f"{found[1] or found[3]}={MARK}", rest)


def _may_be_cut_off(rest: str) -> bool:
    """Whether `user:passw` stands where host and port should: the line ended before its @."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0].rstrip(".,;:!)]}'\"")
    if authority.startswith("["):  # IPv6
        return False
    _, colon, port = authority.partition(":")
    return bool(colon) and not port.isdigit()


def split_credentials(url: str) -> tuple[str, str | None, str]:
    """(scheme with its "://", user information or None, the rest) of a URL whose password may be written as it is.

    RFC 3986 ends the user information at the last @ before the first slash; a password with a slash, a question mark or
    another @ in it, not encoded, moves that. So every @ is tried, and none: what looks most like a host behind it wins, an
    address before a name with dots before a plain word, one with a port before one without; of equals the last @. Where
    nothing looks like a host, it is RFC 3986's. A path has no scheme; for it all is rest.
    """
    found = re.match(_SCHEME, url)
    if found is None:
        return "", None, url
    scheme, rest = found[0], url[found.end() :]
    best, at = _host_likeness(rest), -1
    for position in (place for place, letter in enumerate(rest) if letter == "@"):
        likeness = _host_likeness(rest[position + 1 :])
        user = rest[:position].partition(":")[0]
        if likeness > best or (
            likeness == best > 0 and not re.search(r"[/?#]", user)
        ):  # a slash: rather a path than a user
            best, at = likeness, position
    if best == 0:
        at = re.split(r"[/?#]", rest, maxsplit=1)[0].rfind("@")
    return (scheme, None, rest) if at < 0 else (scheme, rest[:at], rest[at + 1 :])


def quote_credentials(url: str) -> str:
    """`url` with its user and password as a URL must spell them; one that is spelled legally already is left as it is."""
    scheme, userinfo, rest = split_credentials(url)
    if userinfo is None or _LEGAL.fullmatch(userinfo):
        return url
    user, colon, password = userinfo.partition(":")
    return f"{scheme}{quote(user, safe='')}{colon}{quote(password, safe='')}@{rest}"


def _host_likeness(text: str) -> int:
    """How much the beginning of `text` looks like host and port; 0: it does not."""
    found = _HOST.match(text)
    if found is None:
        return 0
    name = found["name"]
    if name is None:
        kind = 5
    elif name == "localhost" or re.search(r"\.[^\W\d]", name):
        kind = 3
    else:
        kind = 0 if name.isdigit() else 1
    return kind and kind + (found["port"] is not None)


def remember(url: str) -> None:
    """Take the user and password of `url`, and what parameters say that are secrets by their name, for secrets, in every
    spelling that libav or a server may quote.

    Which @ ends them cannot always be told (`admin:554/cam@hd` may be a host, its port and path, or a user and a password
    of a camera `hd`): so what stands between the first colon and any @ is taken for a password.
    """
    scheme, userinfo, _ = split_credentials(url)
    rest = url.removeprefix(scheme)
    for end in (found.start() for found in re.finditer("@", rest) if scheme):
        if ":" in rest[:end] or rest[:end] == userinfo:
            _remember_user(rest[:end])
    for found in _PARAMETER.finditer(rest if scheme else ""):
        if found[1]:
            _remember(_secrets_of(found[2]) | _secrets_of(unquote(found[2])))
        elif _SURELY_SECRET.fullmatch(found[3]):
            _remember({found[4], unquote(found[4])})


def _secrets_of(stream_id: str) -> set[str]:
    """The passwords in `#!::r=yard,u=me,s=password` (SRT's access control) or `read:yard:me:password` (MediaMTX)."""
    fields = [] if stream_id.startswith("#!") else stream_id.split(":")
    return {*_IN_STREAM_ID.findall(stream_id), *fields[3:4]}


def _remember_user(userinfo: str) -> None:
    user, _, password = userinfo.partition(":")
    plain = f"{unquote(user)}:{unquote(password)}"
    spellings = {userinfo, password, unquote(password), quote(unquote(password), safe=""), plain}
    spellings.add(base64.b64encode(plain.encode()).decode())
    _remember(spellings)


def _remember(secrets: set[str]) -> None:
    for secret in secrets:
        if len(secret) >= MIN_SECRET and secret not in _secrets:
            before = r"(?<!\w)" if re.match(r"\w", secret) else ""
            behind = r"(?!\w)" if re.search(r"\w$", secret) else ""
            _secrets[secret] = re.compile(before + re.escape(secret) + behind)


class RedactFilter(logging.Filter):
    """Cleans message, traceback and stack of a record; lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        _clean_record(record)
        return True


def install(libav_level: int | None = None) -> None:
    """From now on no log record of this process carries credentials, through whichever handler it goes.

    Records are cleaned where they are made, and once more at the root's handlers (for those that were made elsewhere,
    say unpickled). libav stays silent unless `libav_level` (a level of `av.logging`) asks for its lines, which then come
    through Python's logging and this same door.
    """
    if not isinstance(logging.getLogRecordFactory(), _CleanFactory):
        logging.setLogRecordFactory(_CleanFactory(logging.getLogRecordFactory()))
    for handler in logging.getLogger().handlers:
        if not any(isinstance(present, RedactFilter) for present in handler.filters):
            handler.addFilter(RedactFilter())
    if libav_level is not None:
        import av

        av.logging.set_level(libav_level)


class _CleanFactory:
    """A factory of log records that cleans what another one makes."""

    def __init__(self, make: object) -> None:
        self._make = make

    def __call__(self, *args: object, **kwargs: object) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **kwargs)  # type: ignore[operator]
        _clean_record(record)
        return record


def _clean_record(record: logging.LogRecord) -> None:
    try:
        said = record.getMessage()
    except (TypeError, ValueError, KeyError):  # a call of logging with wrong arguments must not end the program
        said = f"{record.msg} {record.args!r}"
        record.msg, record.args = redact(said), ()
    cleaned = redact(said)
    if record.name.partition(".")[0] == "streampose":  # what others say in several lines is left to them
        cleaned = one_line(cleaned)
    if cleaned != said:
        record.msg, record.args = cleaned, ()
    if record.exc_info and record.exc_info[0] is not None:
        trace = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        cleaned = redact(trace)
        if cleaned != trace:
            record.exc_text = cleaned
            record.exc_info = None  # a handler that formats the exception itself would undo it
    if record.stack_info:
        record.stack_info = redact(record.stack_info)
