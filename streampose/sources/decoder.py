"""Packets in, pictures out: decodes one video stream, gives every picture its times, counts what is damaged.

All state that lives as long as one connection is here: the decoder, the clock, whether a key frame was seen yet, and
since when nothing good has come.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from streampose.errors import TransientSourceError
from streampose.messages import Image, SourceInfo
from streampose.sources import limits, playlist, probe
from streampose.sources.base import Corrupt, PassedOver, Picture, SourceItem
from streampose.sources.clock import SourceClock
from streampose.sources.libav import VideoOptions, detail_of
from streampose.sources.repeats import Repeats
from streampose.sources.said import say_once

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

PacketTap: TypeAlias = "Callable[[av.Packet[VideoStream], VideoStream, float | None], None]"

KEY_WAIT_S = 5.0  # a stream that marks no packet as key frame (intra refresh) is decoded from anywhere after this
RESYNC_S = 2.0  # after damage, pictures are not trusted until the next key frame or for this long
UNREADABLE_S = 1.0  # a key frame without a picture and only errors behind it for so long are of another codec
UNREADABLE_PACKETS = 8
ENDLESS_PACKETS = 8  # JPEGs of a connection, all without the mark of their end: the camera writes none,
ENDLESS_S = 3.0  # nor one that is so slow that fewer come in this time
BLIND_S = 20.0  # packets that come for so long without one good picture are no stream
KEYS_APART_S = 300.0  # smart codecs put key frames minutes apart: so long may whole packets come between them
CUT_SHORT_S = 0.5  # a recording that ends this much before its promised end was cut
DEADLOCKING = frozenset({"hevc"})  # FFmpeg 8.1 waits for ever in frame threads where a damaged picture lacks references
ARRIVAL_TICK = Fraction(1, 1000)  # as fine as Matroska tells time
UNORDERED = frozenset({"avi"})  # stamps packets in decoding order only
MAX_PIXELS = 2**26  # twice 8K: a header that says more is damaged, and believing it costs gigabytes
BLOCKED_S = 0.05  # what is taken later than that was waited for; less is a change of threads
SOI, SOS, EOI = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"  # markers of a JPEG: its begin, its data's and its end
SEGMENTED_AHEAD_S = 90.0  # HLS and DASH deliver several segments of some ten seconds at once


class PacketDecoder:
    """The decoder of one connection, which it took `opening_s` to open. `clock` has the time of the last picture; `packets`
    have come so far."""

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        info: SourceInfo,
        options: VideoOptions,
        tap: PacketTap | None = None,
        *,
        opening_s: float = 0.0,
    ) -> None:
        from av.video.reformatter import VideoReformatter

        self.stream = stream
        self._container = container
        self._info = info
        self._options = options
        self._tap = tap
        self._base = probe.exact(stream.time_base)
        self._ratio = probe.pixel_ratio(stream)
        self._stored: tuple[int, int] | None = None  # width and height of the last picture, before it was made square
        self._matrix: probe.DisplayMatrix | None = None  # how the container wants its pictures turned or mirrored
        self._matrix_known = False
        formats = set(container.format.name.split(","))
        self.clock = SourceClock(
            live=info.live,
            nominal_step_s=1.0 / info.nominal_fps if info.nominal_fps else None,
            ahead_s=SEGMENTED_AHEAD_S if info.segmented else 10.0,
            opening_s=opening_s,
            segmented=info.segmented,
            start_wall_s=None if info.live else probe.creation_s(container, stream),
        )
        self._reformatter = VideoReformatter()  # one per thread: PyAV 18 would build a scaler for every frame
        self._size: tuple[int, int] | None = None
        self._began_s = time.monotonic()
        self._last_good_s = self._began_s  # the last picture
        self._last_life_s = self._began_s  # that, or a whole packet that was passed over
        self._keys_only = info.live and options.skip == "nonkey"
        # Key frames since the last picture; a decoder may hold back one, a damaged one counts twice.
        self._dark_keys = 0
        self._keyed = not info.live
        self._doubtful_until_s = 0.0
        self._unreadable: tuple[float, int] | None = (
            None  # since when no picture comes, from a key frame on, and errors
        )
        self._ends_marked = False  # whether a JPEG of this connection had its end
        self.packets = 0
        self._arrival_ticks = -1
        self._blocked_s = 0.0
        self._end_s = 0.0  # where the last packet in display order ends, on the stream's own time line
        self._reports = False
        self._held: list[av.VideoFrame | Corrupt] = []
        self._unordered = bool(formats & UNORDERED)
        self._repeats = Repeats(options.seen) if options.seen is not None and info.live and info.segmented else None
        self._again: list[tuple[av.Packet[VideoStream], float | None]] = []  # from a key frame on; the tap has had them
        self._stamps: list[int] = []  # a heap: the n-th picture shown has the n-th stamp
        context = stream.codec_context
        context.thread_count = options.threads
        frame_threads = options.threads > 1 and not info.live and info.codec not in DEADLOCKING
        context.thread_type = "AUTO" if frame_threads else "SLICE"  # frame threads hold back a picture each
        if options.skip == "nonref":
            context.skip_frame = "NONREF"
        elif options.skip == "nonkey":
            context.skip_frame = "NONKEY"

    def given(self, waited_s: float) -> None:
        """Take for how long something that was given was waited with: meanwhile nothing could be read."""
        if waited_s > BLOCKED_S:
            self._blocked_s += waited_s

    def feed(self, packet: av.Packet[VideoStream]) -> Iterator[SourceItem]:
        """The pictures that `packet` completes. Raises TransientSourceError when a live stream stays unusable.

        Of a live stream of which key frames only are decoded, a whole packet that is not gives `PassedOver`.
        """
        import av

        if packet.size == 0 and packet.pts is None:
            return  # libav's mark of the end; `finish` drains
        self.packets += 1
        if self._base is not None and packet.pts is not None:
            self._end_s = max(self._end_s, float((packet.pts + (packet.duration or 0)) * self._base))
        known = self._is_known(packet)
        if not self._begun(packet):
            yield from self._life(packet)
            return
        if packet.is_corrupt and not self._info.live:  # a joint of two streams looks the same, so its picture is kept
            say_once(
                f"{self._info.url}: parts of it are missing, or it was joined of several; pictures may be torn",
                logging.WARNING,
            )
        if self._size is None and not packet.is_discard:  # what an edit list leaves out is not of the recording
            self.clock.begin(packet.pts, self._base)
        self._take_report(packet)
        self._dark_keys += packet.is_keyframe
        frames: list[av.VideoFrame] = []
        damage, torn = "", self._torn(packet)
        if torn:
            damage = "is cut off"
        else:
            try:
                frames = self.stream.codec_context.decode(packet)
            except (av.error.FFmpegError, ValueError) as error:  # ValueError: PyAV 19, a codec it has no decoder for
                damage = f"cannot be decoded ({detail_of(error)})"
        if damage:
            self._dark_keys += packet.is_keyframe
            yield from self._next(self._damaged(f"packet {self.packets} {damage}"))
        elif self._unordered and packet.pts is not None:
            heapq.heappush(self._stamps, packet.pts)
        if not torn:
            self._look_for_another_codec(packet, None if damage else len(frames))
        if self._tap is not None and not torn:
            self._hand_on(packet, known, self._tap)
        for frame in frames:
            yield from self._next(frame)
        if not damage and not frames and not known:
            yield from self._life(packet)
        now_s = time.monotonic()
        if self._info.live and now_s - self._last_life_s > BLIND_S:
            raise TransientSourceError(
                f"{self._info.url} sent no picture that can be decoded for {now_s - self._last_good_s:.0f} s",
                kind="codec",
            )

    def _hand_on(self, packet: av.Packet[VideoStream], known: bool, tap: PacketTap) -> None:
        """Give the packet to the tap; of those that an earlier connection gave it, only what the first new one refers to."""
        pts = None if self._info.clockless else packet.pts
        wall_s = self.clock.wall_of(pts, self._base, time.monotonic(), time.time())
        if self._info.clockless:
            self._stamp_by_arrival(packet)
        if packet.is_keyframe:
            self._again.clear()
        self._again.append((packet, wall_s))
        if not known:
            for each, at_s in self._again:
                tap(each, self.stream, at_s)
            self._again.clear()

    def _torn(self, packet: av.Packet[VideoStream]) -> bool:
        """Whether it is the JPEG of a camera, cut off before its end; libav would fill up the rest. `is_corrupt` tells
        nothing: a whole picture is so, too, where the stream ends behind it. A camera that never marks the end is believed
        after some pictures."""
        if not self._info.live or self._info.codec != "mjpeg":
            return False
        data = bytes(packet)
        if not data.startswith(SOI):
            return False
        end = data.rfind(EOI)  # of the picture, or of a thumbnail in front of its data
        marked = end >= 0 and SOS not in data[end:]
        self._ends_marked = self._ends_marked or marked
        doubtful = self.packets <= ENDLESS_PACKETS and time.monotonic() - self._began_s < ENDLESS_S
        return not marked and (self._ends_marked or doubtful)

    def _is_known(self, packet: av.Packet[VideoStream]) -> bool:
        """Whether an earlier connection has given its picture: it is decoded for those that refer to it, and that is all."""
        if self._repeats is None:
            return False
        now_s = time.monotonic()
        held_back = limits.silent_since_s(self._container) is not None
        known = self._repeats.of_before(packet, now_s, held_back)
        if known:
            self._last_life_s = now_s
        return known

    def _stamp_by_arrival(self, packet: av.Packet[VideoStream]) -> None:
        """Give the packet the time at which it came, as its pictures have it, not the invented one; it only rises."""
        ticks = int((time.monotonic() - self._began_s) / ARRIVAL_TICK)
        self._arrival_ticks = max(ticks, self._arrival_ticks + 1)
        packet.time_base = ARRIVAL_TICK
        packet.pts = packet.dts = self._arrival_ticks
        packet.duration = 0

    def _life(self, packet: av.Packet[VideoStream]) -> Iterator[PassedOver]:
        """That `packet` is one of those passed over between two key frames. Behind key frames that give no picture nothing
        is alive: what is passed over is not looked into."""
        now_s = time.monotonic()
        held_back = 4 if self._size is None else 2  # with B-frames a decoder gives its first picture late
        awaited = self._dark_keys < held_back and now_s - self._last_good_s <= KEYS_APART_S
        if self._keys_only and awaited and not packet.is_corrupt:
            self._last_life_s = now_s
            yield PassedOver()

    def _look_for_another_codec(self, packet: av.Packet[VideoStream], pictures: int | None) -> None:
        """Raise TransientSourceError where a live stream has changed its codec: libav's decoder stays what it was, and the
        demuxer does not say (a transport stream may do so at any time). Opened anew, it is what it has become.
        `pictures` came of the packet, None where it could not be decoded."""
        if pictures or not self._info.live:
            self._unreadable = None
        elif self._unreadable is None and packet.is_keyframe:
            self._unreadable = (time.monotonic(), int(pictures is None))
        elif self._unreadable is not None and pictures is None:
            since_s, errors = self._unreadable
            self._unreadable = (since_s, errors + 1)
            if errors + 1 >= UNREADABLE_PACKETS and time.monotonic() - since_s > UNREADABLE_S:
                raise TransientSourceError(
                    f"{self._info.url} no longer sends {self._info.codec}; opened anew", kind="ended"
                )

    def finish(self) -> Iterator[Picture | Corrupt]:
        """The pictures that the decoder still holds at the end of the stream."""
        import av

        if self.packets == 0:
            return
        try:
            frames = self.stream.codec_context.decode(None)
        except (av.error.FFmpegError, ValueError) as error:  # ValueError: PyAV 19, a codec it has no decoder for
            frames = []
            self._held.append(self._damaged(f"the last pictures cannot be decoded ({detail_of(error)})"))
        for frame in frames:
            yield from self._next(frame)
        yield from self._release(None)

    def cut_short(self) -> Corrupt | None:
        """What is missing at the end of a recording whose container promises more than it holds, None if all is there."""
        length_s = promised_s = probe.duration_s(self._container, self.stream)
        if length_s is None or promised_s is None:
            return None
        if self._base is not None and self.stream.start_time is not None:
            promised_s += float(self.stream.start_time * self._base)
        if len(self._container.streams) > 1 and self.stream.duration is None and "DURATION" not in self.stream.metadata:
            return None  # only the whole container's length is known, and sound may be longer
        missing_s = promised_s - self._end_s
        if self._info.segmented:  # within a playlist stamps may begin anew
            missing_s = min(missing_s, length_s - self.clock.next_s)
        if missing_s <= CUT_SHORT_S:
            return None
        if (
            self._info.segmented
            and length_s.is_integer()
            and playlist.may_be_rounded(self._container.name, self._options)
        ):
            return None
        text = f"{self._info.url} is cut: it ends at {promised_s - missing_s:.2f} s of {promised_s:.2f} s"
        return Corrupt(text, self.clock.next_s, self.missing_frames() or 1, self.clock.next_s + missing_s)

    def missing_frames(self) -> int:
        """How many pictures the container promises beyond those it held, 0 where it does not say."""
        return max(0, (self.stream.frames or 0) - self.packets)

    def _begun(self, packet: av.Packet[VideoStream]) -> bool:
        """Whether decoding has begun: a live stream is joined at a key frame."""
        if not self._keyed:
            self._keyed = packet.is_keyframe or time.monotonic() - self._began_s > KEY_WAIT_S
        return self._keyed

    def _take_report(self, packet: av.Packet[VideoStream]) -> None:
        """Hand the capture time of the packet, where its sender told it, to the clock.

        The first is left out: it comes with the packet before its own.
        """
        if not self._info.live or packet.pts is None or self._base is None:
            return
        now_s = time.time()
        first, wall_s = not self._reports, probe.capture_s(packet)
        self._reports = self._reports or wall_s is not None
        if wall_s is not None and not first:
            self.clock.report(packet.pts, self._base, wall_s, now_s)
            if self.clock.refuses_reports:
                say_once(
                    f"{self._info.url}: the clock that it reports (RTCP) is too far from ours, so that its pictures have "
                    "the times of their arrival; set its clock, or ours (NTP): `streampose doctor` measures the difference",
                    logging.WARNING,
                )
        elif first:
            zero_us = getattr(self._container, "start_time_realtime", None)
            if zero_us:
                self.clock.report(packet.pts, self._base, zero_us / 1e6 + float(packet.pts * self._base), now_s)

    def _next(self, item: av.VideoFrame | Corrupt) -> Iterator[Picture | Corrupt]:
        """What may go out now that `item` has come: at once where live; a recording holds one frame back, so that its
        clock sees the stamp that follows."""
        if isinstance(item, Corrupt):
            if self._held:
                self._held.append(item)
            else:
                yield item
            return
        if self._unordered and self._stamps:
            item.pts = heapq.heappop(self._stamps)
        if self._repeats is not None and self._repeats.shows_before(item.pts):
            self._dark_keys = 0
            return
        if item.is_corrupt:
            self._dark_keys += 1
            yield from self._next(self._damaged("a picture came damaged"))
        elif item.width * item.height > MAX_PIXELS:
            yield from self._next(self._damaged(f"a picture claims to be {item.width}x{item.height}"))
        elif self._info.live:
            picture = self._picture(item, None)
            yield picture
            if self._repeats is not None and isinstance(picture, Picture):
                self._repeats.given(picture.pts)
        else:
            yield from self._release(item.pts)
            self._held.append(item)

    def _release(self, next_pts: int | None) -> Iterator[Picture | Corrupt]:
        """The frame held back and what was damaged after it."""
        held, self._held = self._held, []
        for item in held:
            if isinstance(item, Corrupt):  # met before the picture in front of it had its time
                yield replace(item, time_s=self.clock.next_s)
            else:
                yield self._picture(item, next_pts)

    def _picture(self, frame: av.VideoFrame, next_pts: int | None) -> Picture | Corrupt:
        import av

        arrival_s, arrival_wall_s = time.monotonic(), time.time()
        if frame.key_frame:
            self._doubtful_until_s = 0.0
        elif self._info.live and arrival_s < self._doubtful_until_s:
            return Corrupt(f"{self._info.url}: a picture refers to a damaged one", self.clock.next_s)
        base = probe.exact(frame.time_base) or self._base
        pts = None if self._info.clockless else frame.pts
        try:
            image = self._upright(frame)
        except (av.error.FFmpegError, ValueError) as error:
            return self._damaged(f"a picture cannot be converted ({error})")
        resized = self._size_jump(image)
        blocked_s, self._blocked_s = self._blocked_s, 0.0
        stamp = self.clock.stamp(
            pts, base, arrival_s, arrival_wall_s, next_pts, resized=bool(resized), blocked_s=blocked_s
        )
        self._last_good_s = self._last_life_s = arrival_s
        self._dark_keys = 0
        return Picture(
            image=image,
            pts=pts,
            time_base=base,
            time_s=stamp.time_s,
            wall_s=stamp.wall_s,
            wall_source=stamp.wall_source,
            arrival_s=arrival_s,
            wall_uncertainty_s=stamp.wall_uncertainty_s,
            jump=resized or stamp.jump,
            captured_s=stamp.captured_s,
        )

    def _upright(self, frame: av.VideoFrame) -> Image:
        """The picture as it is to be seen. Only the first is asked for its matrix: PyAV's `side_data` refers back to its
        frame, so every frame that was asked keeps its buffers until the garbage collector comes."""
        if not self._matrix_known:
            self._matrix, self._matrix_known = probe.display_matrix(frame), True
        return probe.upright(self._bgr(frame), self._matrix)

    def _damaged(self, what: str) -> Corrupt:
        self._doubtful_until_s = time.monotonic() + RESYNC_S
        return Corrupt(f"{self._info.url}: {what}", self.clock.next_s)

    def _size_jump(self, image: Image) -> str:
        """Why a picture of another size than the one before begins a new segment, "" where it is not."""
        size, before = (image.shape[1], image.shape[0]), self._size
        self._size = size
        if before is None or before == size:
            return ""
        return f"resolution changed from {before[0]}x{before[1]} to {size[0]}x{size[1]}"

    def _bgr(self, frame: av.VideoFrame) -> Image:
        """The picture in square pixels, as a contiguous (H, W, 3) BGR uint8 array of its own."""
        stored = (frame.width, frame.height)
        unsaid = self._info.live and self._stored is None and self._ratio == 1  # joined before it was told
        if unsaid or self._stored not in (None, stored):  # with its size the shape of its pixels may have changed
            self._ratio = probe.pixel_ratio(self.stream.codec_context)
        self._stored = stored
        width, height = probe.square_size(*stored, self._ratio)
        image = self._reformatter.reformat(frame, width, height, format="bgr24").to_ndarray()
        return np.ascontiguousarray(image, np.uint8)
