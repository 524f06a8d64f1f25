"""Videos, network streams and webcams by PyAV: one run, every blocking call bounded, errors in one line.

A recording yields every picture it holds, exactly once, in display order. A live stream begins at its first key frame;
pictures that libav marks as damaged are counted, not shown. Failures of single packets are counted and survived.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from streampose.errors import PermanentSourceError, SourceError, TransientSourceError
from streampose.messages import SourceInfo
from streampose.redact import quote_credentials, redact_url, remember
from streampose.sources import libav, limits, probe
from streampose.sources.base import Corrupt, Picture, SourceItem, SourceKind, check_live, check_there
from streampose.sources.decoder import PacketDecoder, PacketTap
from streampose.sources.libav import VideoOptions
from streampose.sources.said import say_once

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

_INDEX_AT_END = (
    "its index may lie at its end, which wants a server that knows byte ranges; use such a one, or put the index first "
    "(ffmpeg -c copy -movflags +faststart)"
)


SNAPSHOT_STEP_S = 0.5  # a camera of single pictures is asked for one no more often
STOP_POLL_S = 0.05


class VideoSource:
    """A video file, a URL or a webcam (`/dev/video0`), opened once. A camera that answers every request with one picture is
    asked again and again: its pictures are one stream.

    `tap` is called with every demuxed packet of the video, its stream, and when it was captured (Unix seconds, None where
    nobody knows), after it was decoded: what it keeps can be written elsewhere without encoding anew. Packets of live
    formats that have no stamps carry their arrival, in milliseconds since the connection.
    """

    def __init__(
        self,
        url: str,
        options: VideoOptions | None = None,
        *,
        webcam: bool = False,
        tap: PacketTap | None = None,
    ) -> None:
        self.name = redact_url(url)
        self._url = quote_credentials(url)
        self._options = options or VideoOptions()
        self._webcam = webcam
        self._tap = tap
        self._network = libav.scheme_of(url) in libav.NETWORK_SCHEMES
        self._container: InputContainer | None = None
        self._snapshots = False  # each request gives one picture
        self._asked: InputContainer | None = None  # a later one of these
        self._items: Iterator[SourceItem] | None = None
        self._decoder: PacketDecoder | None = None
        self._pending: list[SourceItem] = []
        self._stopped: Callable[[], bool] = lambda: False
        remember(url)
        remember(self._url)

    def open(self, live_only: bool = False) -> SourceInfo:
        """Connect and describe. Raises TransientSourceError (with `live_only` for a recording, too) or PermanentSourceError,
        in one line, in bounded time."""
        if not self._network and not self._webcam:
            _check_file(Path(self._url))
        libav.check_credentials(self._url)
        began_s = time.monotonic()
        container = self._connect(began_s)
        self._container = container
        stream = probe.video_stream(container)
        if stream is None or stream.codec_context is None:
            self.close()
            what = "holds no video" if stream is None else "holds a video whose codec is not known here"
            raise PermanentSourceError(f"{self.name} {what}; a video stream is needed", kind="codec")
        info = self._describe(container, stream)
        check_live(info, live_only)
        self._say_what_is_not_plain(container, stream, info)
        opening_s = time.monotonic() - began_s
        self._decoder = decoder = PacketDecoder(container, stream, info, self._options, self._tap, opening_s=opening_s)
        self._items = self._run(container, decoder, info)
        if info.live and info.width > 0:
            return info
        return self._with_first_picture(info, began_s)

    def frames(self, stopped: Callable[[], bool]) -> Iterator[SourceItem]:
        """Every picture, in display order. Raises TransientSourceError where a live stream ends or fails."""
        if self._items is None:
            raise RuntimeError("frames() before open()")
        self._stopped = stopped
        while self._pending:
            if stopped():
                return
            yield from self._hand_over(self._pending.pop(0))
        for item in self._items:
            yield from self._hand_over(item)

    def _hand_over(self, item: SourceItem) -> Iterator[SourceItem]:
        given_s = time.monotonic()
        yield item
        if self._decoder is not None:
            self._decoder.given(time.monotonic() - given_s)

    def close(self) -> None:
        """Let go of the file or the connection."""
        self._items = self._decoder = None
        for container in (self._asked, self._container):
            if container is not None:
                container.close()
        self._asked = self._container = None

    def _connect(self, began_s: float) -> InputContainer:
        import av

        try:
            return libav.open_container(self._url, self._options, webcam=self._webcam)
        except (av.error.FFmpegError, RuntimeError, ValueError, OSError) as error:
            failure = self._open_error(error, time.monotonic() - began_s)
        raise failure

    def _open_error(self, error: BaseException, elapsed_s: float) -> SourceError:
        if self._network:
            return libav.source_error(error, self._url, "open", elapsed_s, self._options)
        detail = libav.detail_of(error)
        if self._webcam:
            if isinstance(error, FileNotFoundError):
                return TransientSourceError(f"webcam {self._url} is not there; plug it in or name another", "not_found")
            return TransientSourceError(f"webcam {self._url} cannot be read ({detail}); is it in use?")
        return PermanentSourceError(
            f"{self.name} is not a video that can be read, or it lost its index ({detail})", "codec"
        )

    def _say_what_is_not_plain(self, container: InputContainer, stream: VideoStream, info: SourceInfo) -> None:
        """Other videos in the container, which nobody sees here, and pixels that are not square."""
        videos = probe.video_streams(container)
        if len(videos) > 1:
            number = videos.index(stream) + 1
            say_once(f"{self.name}: {len(videos)} videos in it; number {number} is taken, {info.width}x{info.height}")
        ratio = probe.pixel_ratio(stream)
        if ratio != 1:
            say_once(
                f"{self.name}: its pixels are {ratio.numerator}:{ratio.denominator}; "
                "they are made square, and all coordinates are in square ones"
            )

    def _describe(self, container: InputContainer, stream: VideoStream) -> SourceInfo:
        duration_s = probe.duration_s(container, stream)
        formats = set(container.format.name.split(","))
        segmented = bool(libav.SEGMENTED & formats)
        live = self._webcam or (self._network and not self._ends(container, stream, duration_s, segmented))
        self._snapshots = live and _is_picture(formats)
        clockless = self._snapshots or (live and bool(libav.CLOCKLESS & formats))
        context = stream.codec_context
        width, height = probe.square_size(context.width, context.height, probe.pixel_ratio(stream))
        return SourceInfo(
            url=self.name,
            kind="webcam" if self._webcam else "stream" if self._network else "video",
            live=live,
            width=width,
            height=height,
            nominal_fps=None if clockless else probe.nominal_fps(stream),
            codec=stream.codec_context.codec.canonical_name,
            duration_s=None if live else duration_s,
            frame_count=None if live else stream.frames or None,
            segmented=segmented,
            clockless=clockless,
        )

    def _ends(self, container: InputContainer, stream: VideoStream, duration_s: float | None, segmented: bool) -> bool:
        """Whether what a URL names is a recording: its length is known, in seconds or in bytes (of a playlist those say
        nothing). A single picture is what a camera shows now, and is asked for again. Of an MP4 that comes in fragments
        libav says as length what has arrived: without a length in bytes only an index of its pictures tells of an end."""
        if libav.scheme_of(self._url) not in ("http", "https"):
            return False
        if _is_picture(container.format.name.split(",")):
            return not libav.is_camera(self._url)
        if not segmented and container.size > 0:
            return True
        growing = "mp4" in container.format.name.split(",") and stream.frames == 0
        return duration_s is not None and not growing

    def _with_first_picture(self, info: SourceInfo, began_s: float) -> SourceInfo:
        """Decode up to the first picture: only it shows the true size, and that there is anything at all."""
        assert self._items is not None
        for item in self._items:
            self._pending.append(item)
            if isinstance(item, Picture):
                height, width = item.image.shape[:2]
                return replace(info, width=width, height=height)
            if info.live and time.monotonic() - began_s > self._options.open_timeout_s:
                break
        self.close()
        if info.live:
            raise TransientSourceError(f"{self.name} sends no picture that can be decoded", kind="codec")
        raise PermanentSourceError(
            f"{self.name} holds no picture that can be decoded; it is damaged or cut", kind="codec"
        )

    def _run(self, container: InputContainer, decoder: PacketDecoder, info: SourceInfo) -> Iterator[SourceItem]:
        import av

        packets = limits.packets_of(container, decoder.stream)
        phase: libav.Phase = "open" if limits.silent_since_s(container) else "read"
        asked_s, before = time.monotonic(), 0
        heard_s = asked_s
        while not self._stopped():
            began_s = limits.silent_since_s(container) or time.monotonic()
            failure: SourceError | None = None
            packet: av.Packet[VideoStream] | None = None
            try:
                packet = next(packets, None)
            except IndexError:
                packet = None  # PyAV, at the end of a container that grew a stream while it was read
            except av.error.FFmpegError as error:
                failure = self._read_error(error, container, decoder, phase, time.monotonic() - began_s)
            if packet is not None:
                phase = "read"
                yield from decoder.feed(packet)
                if packet.size > 0 and limits.silent_since_s(container) is None:
                    heard_s = time.monotonic()
                continue
            if failure is None and self._snapshots and decoder.packets == before + 1:
                if not self._wait_until(asked_s + SNAPSHOT_STEP_S):
                    return
                asked_s, before = time.monotonic(), decoder.packets
                container = self._ask_again(asked_s)
                packets = limits.packets_of(container, _video_of(container, self.name, info.codec))
                continue
            silence_s = time.monotonic() - heard_s
            yield from decoder.finish()
            if info.live and info.segmented and silence_s >= limits.SEGMENT_S:
                what = f"its playlist stands still: nothing new for {silence_s:.0f} s"
                raise TransientSourceError(f"{self.name}: {what}", kind="timeout")
            if info.live:
                raise failure or TransientSourceError(f"{self.name} ended the stream", kind="ended")
            if failure is not None and self._network:
                raise failure
            cut = decoder.cut_short()
            if failure is not None:
                until_s = None if cut is None else cut.until_s
                yield Corrupt(str(failure), decoder.clock.next_s, decoder.missing_frames() or 1, until_s)
            elif cut is not None:
                yield cut
            return

    def _wait_until(self, until_s: float) -> bool:
        """Whether it came to that before it was stopped."""
        while not self._stopped():
            if (left_s := until_s - time.monotonic()) <= 0:
                return True
            time.sleep(min(left_s, STOP_POLL_S))
        return False

    def _ask_again(self, began_s: float) -> InputContainer:
        """The next picture of a camera that gives one a request; it is for the decoder of the first, which lives on."""
        if self._asked is not None:
            self._asked.close()
            self._asked = None
        self._asked = self._connect(began_s)
        return self._asked

    def _read_error(
        self,
        error: BaseException,
        container: InputContainer,
        decoder: PacketDecoder,
        phase: libav.Phase,
        elapsed_s: float,
    ) -> SourceError:
        if self._network:
            failure = libav.source_error(error, self._url, phase, elapsed_s, self._options)
            if failure.kind == "ended" and decoder.packets == 0 and "mp4" in container.format.name.split(","):
                return TransientSourceError(f"{failure} before its first picture; {_INDEX_AT_END}", failure.kind)
            return failure
        if self._webcam:
            return TransientSourceError(f"webcam {self.name} stopped ({libav.detail_of(error)})", kind="ended")
        return PermanentSourceError(
            f"{self.name} is damaged or cut at {decoder.clock.time_s:.2f} s ({libav.detail_of(error)})"
        )


def _video_of(container: InputContainer, name: str, codec: str | None) -> VideoStream:
    """The video of the container, which is for a decoder of `codec`. Raises TransientSourceError where it is none."""
    stream = probe.video_stream(container)
    if stream is None or stream.codec_context is None:
        raise TransientSourceError(f"{name} sends no picture that can be decoded", kind="codec")
    if stream.codec_context.codec.canonical_name != codec:  # say PNG of a camera that is offline
        raise TransientSourceError(f"{name} no longer sends {codec}; opened anew", kind="ended")
    return stream


def _is_picture(formats: Iterable[str]) -> bool:
    """Whether these are libav's names of a format of single pictures."""
    return any(name == "image2" or name.endswith("_pipe") for name in formats)


def _check_file(path: Path) -> None:
    """Say plainly what libav would wrap up: no such file, no permission, a folder, no bytes."""
    check_there(path)
    if path.is_dir():
        raise PermanentSourceError(f"{path} is a folder; name a video in it", kind="usage")
    if not os.access(path, os.R_OK):
        raise PermanentSourceError(f"{path} may not be read; check its permissions", kind="auth")
    if path.is_file() and path.stat().st_size == 0:
        raise PermanentSourceError(f"{path} is empty (0 bytes); a video is needed", kind="codec")


def _is_webcam(address: str) -> bool:
    """A number, a device of Linux, or a link to one."""
    if address.isdecimal() or address.startswith(("/dev/video", "/dev/v4l/")):
        return True
    return os.path.islink(address) and os.path.realpath(address).startswith("/dev/video")


WEBCAM = SourceKind(
    takes=_is_webcam,
    make=lambda address, options, tap, _only: VideoSource(
        f"/dev/video{address}" if address.isdecimal() else address, options, webcam=True, tap=tap
    ),
    live=lambda _: True,
)
STREAM = SourceKind(
    takes=lambda address: libav.scheme_of(address) in libav.NETWORK_SCHEMES,
    make=lambda address, options, tap, _only: VideoSource(address, options, tap=tap),
    live=libav.is_camera,
    schemes=libav.NETWORK_SCHEMES,
    unsure=True,
)
VIDEO = SourceKind(
    takes=lambda address: not libav.scheme_of(address),
    make=lambda address, options, tap, _only: VideoSource(address, options, tap=tap),
    live=lambda _: False,
    on_disk=True,
)
