"""What libav must be told to open an address, and what its errors mean.

libav's exceptions do not say what happened: a camera that accepts and then keeps silent is "invalid data", a stall is
"timeout" or "exit" by whichever limit struck first. So a failure is classed by when it happened, its code, and how long
it took, into the few kinds that a caller can act on.
"""

from __future__ import annotations

import errno
import logging
import math
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from streampose.errors import FailureKind, PermanentSourceError, SourceError, TransientSourceError
from streampose.redact import quote_credentials, redact_url, split_credentials
from streampose.sources.limits import OPEN_TIMEOUT_S, READ_TIMEOUT_S, SEGMENT_S, OpenLimit, ReadLimit
from streampose.sources.said import say_once
from streampose.sources.suffixes import RECORDED

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel
    from av.container import InputContainer

    from streampose.sources.repeats import Seen

Phase = Literal["open", "read"]
Transport = Literal["tcp", "udp"]
Skip = Literal["none", "nonref", "nonkey"]
NETWORK_SCHEMES = frozenset(
    {"rtsp", "rtsps", "rtmp", "rtmps", "rtmpt", "http", "https", "udp", "rtp", "tcp", "srt", "mms", "mmsh"}
)
ANALYSIS_US = 500_000  # libav's default of 5 s would be waited for in full by streams whose rate it cannot settle
CLOCKLESS = frozenset({"mpjpeg", "mjpeg", "image2pipe", "h264", "hevc"})  # formats without stamps: libav invents 25 fps
SEGMENTED = frozenset({"hls", "dash"})  # deliver whole segments at once, and nothing between two
HW_ORDER = ("cuda", "vaapi", "videotoolbox", "qsv", "d3d11va", "vulkan", "drm")

_PHRASES: Mapping[FailureKind, str] = {
    "refused": "refuses the connection; check that it is on, and its address and port",
    "auth": "refuses the user or password; check both in the URL, or `user` and `password`",
    "not_found": "has no such stream; check the path behind the host",
    "tls": "cannot be reached securely (TLS); check its certificate, or use the scheme without s",
    "timeout": "did not answer in time",
    "unreachable": "cannot be reached: no route from this machine to its address; check that it is on, and the network",
    "ended": "ended the stream",
    "codec": "sends no video that can be decoded",
    "usage": "cannot be asked that way",
    "other": "cannot be read",
}


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How a video is opened and decoded.

    `read_timeout_s` is the longest silence of the network, while connecting as well as later; `open_timeout_s` bounds the
    whole of connecting and analysing. `transport` is RTSP's. `skip` leaves out pictures before decoding: those no other
    refers to, or all but key frames. `threads` per decoder: 0 lets libav choose, within each picture; more than 1 also
    decodes several pictures of a recording at a time. `hwaccel`: none, auto, or a device type of libav. `libav` goes to
    libav as it is. `seen`, of a camera that is opened again and again, keeps what is not to be given twice.
    """

    open_timeout_s: float = OPEN_TIMEOUT_S
    read_timeout_s: float = READ_TIMEOUT_S
    transport: Transport = "tcp"
    skip: Skip = "none"
    threads: int = 0
    hwaccel: str = "none"
    libav: Mapping[str, str] = field(default_factory=dict)
    seen: Seen | None = None

    def __post_init__(self) -> None:
        for name, known in (("transport", get_args(Transport)), ("skip", get_args(Skip))):
            if (given := getattr(self, name)) not in known:
                raise PermanentSourceError(
                    f"{name}: {given!r} is not known; known are {', '.join(known)}", kind="usage"
                )
        if "stimeout" in self.libav:
            raise PermanentSourceError(
                "libav option stimeout does nothing since FFmpeg 5; use open_timeout and read_timeout", kind="usage"
            )


WEBCAM_DEVICE = "v4l2"  # libav's input device
LONGEST_RTSP_CREDENTIALS = 127  # libav cuts what is longer, and would be refused for a reason that nobody sees


def check_credentials(url: str) -> None:
    """Raise PermanentSourceError where libav could not hand on the user and password of `url` (quoted) whole."""
    _, userinfo, _ = split_credentials(url)
    if scheme_of(url) in ("rtsp", "rtsps") and len(userinfo or "") > LONGEST_RTSP_CREDENTIALS:
        raise PermanentSourceError(
            f"{redact_url(url)}: user and password are {len(userinfo or '')} characters long as a URL spells them; "
            f"FFmpeg takes {LONGEST_RTSP_CREDENTIALS} for RTSP, so a shorter password is needed",
            kind="usage",
        )


def scheme_of(url: str) -> str:
    """The scheme of a URL in lower case, "" for a path."""
    scheme, mark, _ = url.partition("://")
    return scheme.lower() if mark and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) else ""


def is_camera(url: str) -> bool:
    """Whether a URL reads as that of a camera: over HTTP, one whose path does not end as a recording's does."""
    path = quote_credentials(url).partition("?")[0]
    return not (scheme_of(url) in ("http", "https") and Path(path).suffix.lower() in RECORDED)


def open_container(
    url: str, options: VideoOptions, *, webcam: bool = False, plain_bytes: bool = False
) -> InputContainer:
    """Open `url`, to be read by `limits.packets_of`, within `options.open_timeout_s`; with `plain_bytes` its packets are
    what it holds, whatever that is. Raises what `av.open` raises."""
    format_name = WEBCAM_DEVICE if webcam else "data" if plain_bytes else None
    if scheme_of(url) not in NETWORK_SCHEMES and not webcam:
        return _open(url, options, None, format_name)
    # RTSP says beforehand what it sends, and can be read on after it was interrupted; others must be analysed to the end.
    analysis_s = options.read_timeout_s if scheme_of(url) in ("rtsp", "rtsps") else math.inf
    opening, reading = OpenLimit(options.open_timeout_s, analysis_s), ReadLimit(options.read_timeout_s)
    container = _open(url, options, (opening, reading), format_name)
    if SEGMENTED & set(container.format.name.split(",")):
        reading.silence_s = max(reading.silence_s, SEGMENT_S)
    elif opening.over or time.monotonic() - opening.analysed_since_s >= options.read_timeout_s:
        # So long an analysis has seen nothing but silence (that a limit ended it is no error to libav), or a picture now
        # and then. Of those it kept some, and a silence need not be waited for twice.
        reading.doubt(opening.analysed_since_s)
    return container


def _open(
    url: str, options: VideoOptions, timeout: tuple[OpenLimit, ReadLimit] | None, format_name: str | None
) -> InputContainer:
    import av

    arguments: dict[str, Any] = {
        "format": format_name,
        "options": {**libav_options(url, options), **options.libav},
        "timeout": timeout,
    }
    if int(av.__version__.split(".")[0]) < 19:
        arguments["metadata_errors"] = "replace"  # later ones always do
    accel = _hwaccel(options.hwaccel)
    if accel is not None:
        try:
            container = cast("InputContainer", av.open(url, "r", hwaccel=accel, **arguments))
        except (RuntimeError, av.error.ExternalError, av.error.UnknownError, OSError) as error:
            if isinstance(error, (TimeoutError, ConnectionError, FileNotFoundError)):
                raise
            if timeout is not None:
                timeout[0].connecting = False  # anew
        else:
            if not any(stream.codec_context and stream.codec_context.is_hwaccel for stream in container.streams.video):
                _software(f"{redact_url(url)}: hardware decoding ({options.hwaccel}) is not to be had of this codec")
            return container
        _software(f"{redact_url(url)}: hardware decoding ({options.hwaccel}) is not to be had here")
    return cast("InputContainer", av.open(url, "r", **arguments))


def _software(why: str, level: int = logging.WARNING) -> None:
    """Say that decoding is in software, and why."""
    say_once(f"{why}, decoding in software", level)


def libav_options(url: str, options: VideoOptions) -> dict[str, str]:
    """The options that the protocol of `url` needs: limits, transport, and of a camera a short analysis.

    libav's limit is that of each wait for the network, from the first on, so it is the longest silence. PyAV's own stand
    beside it: that of opening, and that of each read, which also ends a read that is fed a byte at a time. They cannot
    stand alone: what libav does in a helper of its own PyAV may not interrupt.
    """
    scheme = scheme_of(url)
    limit_us = str(int(options.read_timeout_s * 1e6))
    analysis = {"analyzeduration": str(ANALYSIS_US)}
    if scheme in ("rtsp", "rtsps"):
        return {
            "rtsp_transport": options.transport,
            "timeout": limit_us,
            "allowed_media_types": "video",
            **analysis,
        }
    if scheme in ("http", "https", "mmsh"):
        return {"rw_timeout": limit_us, "timeout": limit_us, **(analysis if is_camera(url) else {})}
    if scheme.startswith("rtmp"):
        return {"rw_timeout": limit_us, **analysis}  # RTMP's own `timeout` would make it listen
    if scheme in ("udp", "rtp", "srt", "tcp"):
        return {"timeout": limit_us, **analysis}
    return {}


def _hwaccel(name: str) -> HWAccel | None:
    if name == "none":
        return None
    from av.codec.hwaccel import HWAccel, hwdevices_available

    built = hwdevices_available()
    if name == "auto":
        name = next((device for device in HW_ORDER if device in built and _device_present(device)), "")
        if not name:
            _software("no hardware decoder here", logging.INFO)
            return None
    elif name not in built:
        _software(f"hwaccel {name} is not in this build of FFmpeg (it has {', '.join(built) or 'none'})")
        return None
    return HWAccel(device_type=name, allow_software_fallback=True)


def _device_present(device: str) -> bool:
    """Whether asking for `device` is worth it: creating one that is absent costs a failed open."""
    if device == "cuda":
        return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()
    if device in ("vaapi", "qsv", "drm", "vulkan"):
        return Path("/dev/dri/renderD128").exists()
    return True


def failure_kind(error: BaseException, phase: Phase, elapsed_s: float, silence_s: float) -> FailureKind:
    """Why `error` happened, by its code, when it happened and whether the longest silence had passed by then."""
    import av

    code = getattr(error, "errno", None)
    if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
        return "auth"
    if isinstance(error, (av.error.HTTPNotFoundError, FileNotFoundError)):
        return "not_found"
    if code in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "unreachable"
    if isinstance(error, (TimeoutError, av.error.ExitError)):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, (av.error.ProtocolNotFoundError, av.error.OptionNotFoundError)):
        return "usage"
    if isinstance(error, (av.error.DecoderNotFoundError, av.error.DemuxerNotFoundError)):
        return "codec"
    log = getattr(error, "log", None)  # level, part of libav, and its words: only where libav's lines are asked for
    if log is not None and log[1] == "tls":
        return "tls"
    if elapsed_s >= 0.9 * silence_s:  # "invalid data" after the whole limit is a silent peer
        return "timeout"
    if isinstance(error, (EOFError, ConnectionError, BrokenPipeError)):
        return "ended" if phase == "read" else "refused"
    if code == errno.EPERM or (phase == "read" and code == errno.EIO):
        return (
            "ended"  # libav's RTSP makes -1 of a dialogue that breaks off, its multipart demuxer EIO of a closed stream
        )
    return "other"


def source_error(error: BaseException, url: str, phase: Phase, elapsed_s: float, options: VideoOptions) -> SourceError:
    """The one line for a failed network source; raise it outside the except block, so that no context holds the URL.

    Only what no retry can mend is permanent: the way of asking, the codec, and a refused user or password.
    """
    kind = failure_kind(error, phase, elapsed_s, options.read_timeout_s)
    what = _PHRASES[kind]
    if kind == "timeout":
        allowed = f"read_timeout allows {options.read_timeout_s:g} s of silence"
        if phase == "open":
            allowed += f", open_timeout {options.open_timeout_s:g} s in all"
        what += f" ({elapsed_s:.1f} s {'connecting' if phase == 'open' else 'reading'}; {allowed})"
    elif phase == "open" and getattr(error, "errno", None) == errno.EIO and not _knows_host(url):
        what = "cannot be reached: the name of its host is not known here; check it, or the DNS"
    elif kind == "other":
        what += f" ({detail_of(error)})"
    message = f"{redact_url(url)} {what}"
    if kind in ("auth", "codec", "usage"):
        return PermanentSourceError(message, kind=kind)
    return TransientSourceError(message, kind=kind)


def _knows_host(url: str) -> bool:
    """Whether the name of the host of `url` can be resolved; that it cannot is an input/output error to libav."""
    authority = re.split(r"[/?#]", split_credentials(url)[2], maxsplit=1)[0]
    if authority.startswith("["):  # an IPv6 address
        return True
    try:
        socket.getaddrinfo(authority.partition(":")[0], None)
    except (OSError, UnicodeError):  # UnicodeError: no name of a host, such as one with a label of 64 letters
        return False
    return True


def detail_of(error: BaseException) -> str:
    """libav's own words for a failure, without the address in them."""
    words = getattr(error, "strerror", None)
    return str(words or type(error).__name__)
