"""The source's own stream on disk, packet by packet, without decoding or encoding; cut at key frames.

It hangs on a tap of the video source and is called in the thread that reads the camera, so it never raises: what it
cannot write it says once and from then on lets pass. A reader may be given up while it is stuck, even in the file
itself; its successor then reads on, and nothing is written until the one that is stuck is back.
"""

from __future__ import annotations

import errno
import logging
import re
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av

from streampose.errors import SinkError
from streampose.sinks.paths import Names, cannot_write, check_apart, fill
from streampose.sinks.retention import Retention
from streampose.sinks.roll import Roller, forget_deleted
from streampose.sinks.video_file import FORMATS, OpenVideo, check_extension, describe

log = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 3600.0  # a longer step is a clock that was set, or a pause that no player should sit through
_WRAP = 2**33  # ticks after which the counters of MPEG-TS begin anew
_STUTTER_S = 1.0  # stamps that are off by less are noise (sources/clock.py)
_USUAL_OF = 9  # the usual step is the median of so many
_DEEPEST_REORDER = 16  # pictures that H.264 and H.265 may hold back; a stream that has no DTS by then never has any


def parameter_sets(packet: av.Packet[av.VideoStream], codec: str, known: bytes | None) -> bytes | None:
    """The parameter sets that a key frame brings along, as Annex B; None where it brings none or is no such stream.

    `known` are those of the stream, None where it was opened before any came: avcC or hvcC (they begin with 1) mean that
    packets have lengths in place of start codes, and libav hands over new ones beside the packet. NAL unit types: H.264
    7.4.1, H.265 7.4.2.2.
    """
    if packet.has_sidedata("new_extradata"):
        return bytes(packet.get_sidedata("new_extradata"))
    if codec not in ("h264", "hevc") or (known or b"")[:1] == b"\x01":
        return None
    units = [unit.rstrip(b"\0") for unit in re.split(b"\0\0\1", bytes(packet))]
    if codec == "h264":
        sets = [unit for unit in units if unit and unit[0] & 31 in (7, 8)]
    else:
        sets = [unit for unit in units if unit and unit[0] >> 1 & 63 in (32, 33, 34)]
    return b"".join(b"\0\0\0\1" + unit for unit in sets) or None


def dts_before(known: int | None, pts: Sequence[int], duration: int) -> list[int]:
    """Decoding times of the packets that a stream begins with and that have none, as Matroska's with B-frames; all in ticks.

    `pts` are theirs in the order of decoding, `known` is the DTS of the packet behind them. They grow by `duration` up to
    `known`, or tick by tick where it is None, and none is after a PTS.
    """
    last, step = (min(pts), 1) if known is None else (min(known, *pts), max(duration, 1))
    return [last - step * (len(pts) - place) for place in range(len(pts))]


class Remuxer:
    """Writes the packets of one camera's video stream.

    `path`, `segment_s`, `names` and `sources` as in RecordSink. A file begins with a key frame; one is closed where the
    segment's wall time ends, where another stream comes (a reconnect), where its pictures change their size, and where its
    clock was set: up to the next key frame the packets go on in the file, one usual step after the last, for they are
    decoded from what is in it. Where stamps stutter, packets follow a tick apart until the stamps have caught up. `error`
    holds what ended it early. `given_up` tells a reader that comes back too late that it was given up: it begins no file
    and writes nothing more.
    """

    def __init__(
        self,
        path: str | Path,
        camera: str,
        *,
        segment_s: float | None = None,
        names: Names | None = None,
        sources: Sequence[Path] = (),
        retention: Retention | None = None,
        given_up: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_extension(Path(path))
        self._template = str(path)
        self.camera = camera
        self.error: SinkError | None = None
        self._roller = None if segment_s is None else Roller(segment_s)
        self._retention = retention
        self._given_up = given_up
        self._clock = clock
        self._lock = threading.Lock()  # held by the reader that writes; nobody waits for it, since it may be stuck
        self._file: OpenVideo | None = None
        self._path = Path()
        self._codec = ""
        self._source: av.VideoStream | None = None
        self._target: av.VideoStream | None = None
        self._size = (0, 0)
        self._first_dts = 0
        self._last_dts = -1
        self._steps: deque[int] = deque(maxlen=_USUAL_OF)  # ticks between packets
        self._was_set = False  # the clock of the stream, within this file
        self._said_hidden = False
        self._held: list[av.Packet[av.stream.Stream]] = []  # the beginning of a file, while it has no DTS
        self._names = names or Names()
        self._sources = sources
        self._outputs: list[str] = []

    def write(self, packet: av.Packet[av.VideoStream], stream: av.VideoStream, wall_s: float | None = None) -> None:
        """Append one packet of `stream`, captured at `wall_s` (None: nobody knows). Leaves it unchanged."""
        if self.error is not None or not packet.size or self._given_up() or not self._lock.acquire(blocking=False):
            return
        try:
            self._write(packet, stream, wall_s)
        except (SinkError, av.error.FFmpegError) as error:
            self._fail(error)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Finish the file, unless a reader is stuck in it; may be called again."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._finish()
        except (SinkError, av.error.FFmpegError) as error:
            self._fail(error)
        finally:
            self._lock.release()

    def closed(self) -> bool:
        """Whether no file is open, and no reader is stuck in one."""
        return self._file is None and not self._lock.locked()

    def outputs(self) -> tuple[str, ...]:
        return tuple(self._outputs)

    def _write(self, packet: av.Packet[av.VideoStream], stream: av.VideoStream, wall_s: float | None) -> None:
        dts = packet.dts if packet.dts is not None else packet.pts
        if dts is None or packet.time_base is None:
            return  # a packet without any time cannot be placed; the next key frame begins anew
        other = self._file is None or stream is not self._source
        if not other and not self._held:
            self._note_clock(dts, packet.time_base)
        resized = (stream.codec_context.width, stream.codec_context.height) != self._size
        if packet.is_keyframe and (other or self._was_set or resized or self._rolls(wall_s)):
            self._finish()
            if self._given_up():
                return  # while it closed the file before
            self._begin(packet, stream, wall_s)
        elif other:
            return  # nothing can be decoded before the first key frame
        if packet.is_discard and not self._said_hidden:
            self._said_hidden = True
            log.warning(
                "the edit list of %s hides pictures that others are decoded from; its recorded stream shows them, too",
                self.camera,
            )
        copy = self._copy(packet, packet.time_base)
        if packet.dts is None and self._last_dts < 0 and len(self._held) < _DEEPEST_REORDER:
            self._held.append(copy)
            return
        self._release_held(dts)
        self._mux(copy, dts)

    def _rolls(self, wall_s: float | None) -> bool:
        return self._roller is not None and self._roller.due(self._clock() if wall_s is None else wall_s)

    def _release_held(self, known: int | None) -> None:
        """Write what waits for a DTS; `known` is that of the packet behind."""
        held, self._held = self._held, []
        if held:
            pts = [copy.pts for copy in held if copy.pts is not None]
            for copy, dts in zip(held, dts_before(known, pts, held[0].duration or 0), strict=True):
                self._mux(copy, dts)

    def _mux(self, copy: av.Packet[av.stream.Stream], dts: int) -> None:
        """Write a packet of our own, its times counted from the file's beginning."""
        assert self._file is not None
        if self._last_dts < 0:
            self._first_dts = dts
        at, self._last_dts = self._last_dts, max(dts - self._first_dts, self._last_dts + 1)
        if at >= 0 and self._last_dts == dts - self._first_dts:
            self._steps.append(self._last_dts - at)
        copy.dts = self._last_dts
        pts = dts if copy.pts is None else copy.pts
        pts += _WRAP * round((dts - pts) / _WRAP)  # its counter wraps some pictures before that of the DTS
        copy.pts = copy.dts + max(pts - dts, 0)
        self._file.mux(copy)

    def _note_clock(self, dts: int, time_base: Fraction) -> None:
        """Where the stream's time was set, have it go on one usual step after the last packet: there may be no key frame,
        with which a file begins, for long."""
        step = dts - self._first_dts - self._last_dts
        if self._last_dts >= 0 and not -_STUTTER_S < step * time_base <= _LONGEST_PAUSE_S:
            self._first_dts = dts - self._last_dts - statistics.median_low(self._steps)
            self._was_set = True

    def _begin(self, packet: av.Packet[av.VideoStream], stream: av.VideoStream, wall_s: float | None) -> None:
        if self._roller is None:
            path = self._names.give(fill(self._template, self.camera))
            check_apart(path, self._sources)
        else:
            begins_s = self._roller.begin(self._clock() if wall_s is None else wall_s)
            path = self._names.claim(fill(self._template, self.camera, begins_s))
        self._path = path
        if self._retention is not None:
            self._retention.sweep(self._clock())
        if self._roller is not None:
            forget_deleted(self._outputs)
        self._file = OpenVideo(path, describe(self.camera, None, wall_s, "source"))
        self._outputs.append(str(path))
        self._codec = stream.codec_context.name
        context = stream.codec_context
        self._source, self._last_dts, self._was_set = stream, -1, False
        self._steps = deque([max(packet.duration or 0, 1)], _USUAL_OF)
        self._size = (context.width, context.height)
        try:
            self._target = self._file.container.add_stream_from_template(stream)
        except ValueError as error:
            raise self._unfit() from error
        sets = parameter_sets(packet, context.name, context.extradata)
        if sets is not None:  # the stream may have changed since it was opened, which is all that the template knows
            self._target.codec_context.extradata = sets
            self._target.codec_context.width, self._target.codec_context.height = self._size

    def _copy(self, packet: av.Packet[av.VideoStream], time_base: Fraction) -> av.Packet[av.stream.Stream]:
        """A packet of our own, still without a DTS: muxing changes what it is given."""
        copy = av.Packet(bytes(packet))
        copy.pts = packet.pts
        copy.duration = packet.duration or 0
        copy.time_base = time_base
        copy.is_keyframe = packet.is_keyframe
        assert self._target is not None
        copy.stream = self._target
        return copy

    def _unfit(self) -> SinkError:
        other = "give `mode: annotated`" if FORMATS[self._path.suffix.lower()] == "matroska" else "name a .mkv file"
        return SinkError(f"{self._path}: {self._codec} does not fit into {self._path.suffix}; {other}")

    def _finish(self) -> None:
        self._release_held(None)
        file, self._file = self._file, None
        self._source = self._target = None
        if file is None:
            return
        file.close()
        self._names.release(self._path)

    def _fail(self, error: SinkError | av.error.FFmpegError) -> None:
        self._held = []
        file, self._file = self._file, None
        if isinstance(error, SinkError):
            self.error = error
        else:
            self.error = cannot_write(self._path, OSError(error.errno, str(error)))
            if self._last_dts < 0 and error.errno == errno.EINVAL:
                self.error = self._unfit()
        if file is not None:
            file.release()
        self._names.release(self._path)
        log.error("recording of the source stream of %s ended: %s", self.camera, self.error)
