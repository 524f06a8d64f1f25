"""The source's own stream on disk, packet by packet, without decoding or encoding; cut at key frames.

It hangs on a tap of the video source and is called in the thread that reads the camera, so it never raises: what it
cannot write it says once and from then on lets pass. A reader may be given up while it is stuck, even in the file
itself; its successor then reads on, and nothing is written until the one that is stuck is back.
"""

from __future__ import annotations

import errno
import logging
import re
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av

from streampose.errors import SinkError
from streampose.sinks.paths import Names, cannot_write, fill, unused
from streampose.sinks.retention import Retention
from streampose.sinks.roll import Roller
from streampose.sinks.video_file import check_extension, close_container, describe, open_container, release

log = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 3600.0  # a longer step is a clock that was set, or a pause that no player should sit through


def source_template(template: str) -> str:
    """Where the source stream goes beside the annotated one: `out/gate.mp4` becomes `out/gate.source.mp4`."""
    path = Path(template)
    return str(path.with_name(f"{path.stem}.source{path.suffix}"))


def parameter_sets(packet: av.Packet[av.VideoStream], codec: str, known: bytes | None) -> bytes | None:
    """The parameter sets that a key frame brings along, as Annex B; None where it brings none or is no such stream.

    `known` are those of the stream: avcC or hvcC (they begin with 1) mean that packets have lengths in place of start
    codes, and libav hands over new ones beside the packet. NAL unit types: H.264 7.4.1, H.265 7.4.2.2.
    """
    if packet.has_sidedata("new_extradata"):
        return bytes(packet.get_sidedata("new_extradata"))
    if codec not in ("h264", "hevc") or known is None or known[:1] == b"\x01":
        return None
    units = [unit.rstrip(b"\0") for unit in re.split(b"\0\0\1", bytes(packet))]
    if codec == "h264":
        sets = [unit for unit in units if unit and unit[0] & 31 in (7, 8)]
    else:
        sets = [unit for unit in units if unit and unit[0] >> 1 & 63 in (32, 33, 34)]
    return b"".join(b"\0\0\0\1" + unit for unit in sets) or None


class Remuxer:
    """Writes the packets of one camera's video stream.

    `path`, `segment_s` and `names` as in RecordSink. A file begins with a key frame; one is closed where the
    segment's wall time ends, where another stream comes (a reconnect), where its pictures change their size, and where its
    clock is set. `error` holds what ended it early. `given_up` tells a reader that comes back too late that it was given
    up: it begins no file and writes nothing more.
    """

    def __init__(
        self,
        path: str | Path,
        camera: str,
        *,
        segment_s: float | None = None,
        names: Names | None = None,
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
        self._container: av.container.OutputContainer | None = None
        self._path = Path()
        self._codec = ""
        self._source: av.VideoStream | None = None
        self._target: av.VideoStream | None = None
        self._size = (0, 0)
        self._first_dts = 0
        self._last_dts = -1
        self._names = names or Names()
        self._outputs: list[str] = []

    def write(self, packet: av.Packet[av.VideoStream], stream: av.VideoStream, wall_s: float | None = None) -> None:
        """Append one packet of `stream`, captured at `wall_s` (now, where that is not known). Leaves it unchanged."""
        if self.error is not None or not packet.size or self._given_up() or not self._lock.acquire(blocking=False):
            return
        try:
            self._write(packet, stream, self._clock() if wall_s is None else wall_s)
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
        except SinkError as error:
            self._fail(error)
        finally:
            self._lock.release()

    def outputs(self) -> tuple[str, ...]:
        return tuple(self._outputs)

    def _write(self, packet: av.Packet[av.VideoStream], stream: av.VideoStream, wall_s: float) -> None:
        dts = packet.dts if packet.dts is not None else packet.pts
        if dts is None or packet.time_base is None:
            return  # a packet without any time cannot be placed; the next key frame begins anew
        other = self._container is None or stream is not self._source or self._clock_set(dts, packet.time_base)
        resized = (stream.codec_context.width, stream.codec_context.height) != self._size
        if packet.is_keyframe and (other or resized or (self._roller is not None and self._roller.due(wall_s))):
            self._finish()
            if self._given_up():
                return  # while it closed the file before
            self._begin(packet, stream, dts, wall_s)
        elif other:
            return  # nothing can be decoded before the first key frame
        assert self._container is not None
        self._container.mux(self._copy(packet, dts, packet.time_base))
        self._last_dts = dts - self._first_dts

    def _clock_set(self, dts: int, time_base: Fraction) -> bool:
        """Whether the stream's time goes back, or ahead by more than any pause of it."""
        step = dts - self._first_dts - self._last_dts
        return step <= 0 or (self._last_dts >= 0 and step * time_base > _LONGEST_PAUSE_S)

    def _begin(self, packet: av.Packet[av.VideoStream], stream: av.VideoStream, dts: int, wall_s: float) -> None:
        if self._roller is None:
            path = self._names.give(fill(self._template, self.camera))
        else:
            path = unused(fill(self._template, self.camera, self._roller.begin(wall_s)))
        if self._retention is not None:
            self._retention.claim(path)
            self._retention.sweep(self._clock())
        self._path = path
        self._container = open_container(path, describe(self.camera, 0.0, wall_s, "source"))
        self._outputs.append(str(path))
        self._codec = stream.codec_context.name
        context = stream.codec_context
        self._source, self._first_dts, self._last_dts = stream, dts, -1
        self._size = (context.width, context.height)
        try:
            self._target = self._container.add_stream_from_template(stream)
        except ValueError as error:
            raise self._unfit() from error
        sets = parameter_sets(packet, context.name, context.extradata)
        if sets is not None:  # the stream may have changed since it was opened, which is all that the template knows
            self._target.codec_context.extradata = sets
            self._target.codec_context.width, self._target.codec_context.height = self._size

    def _copy(self, packet: av.Packet[av.VideoStream], dts: int, time_base: Fraction) -> av.Packet[av.stream.Stream]:
        """A packet of our own with times from the file's beginning: muxing changes what it is given."""
        copy = av.Packet(bytes(packet))
        copy.dts = dts - self._first_dts
        copy.pts = copy.dts if packet.pts is None else max(packet.pts - self._first_dts, copy.dts)
        copy.duration = packet.duration or 0
        copy.time_base = time_base
        copy.is_keyframe = packet.is_keyframe
        assert self._target is not None
        copy.stream = self._target
        return copy

    def _unfit(self) -> SinkError:
        return SinkError(f"{self._path}: {self._codec} does not fit into {self._path.suffix}; name a .mkv file")

    def _finish(self) -> None:
        container, self._container = self._container, None
        self._source = self._target = None
        if container is None:
            return
        if self._retention is not None:
            self._retention.release(self._path)
        close_container(container, self._path)

    def _fail(self, error: SinkError | av.error.FFmpegError) -> None:
        container, self._container = self._container, None
        if isinstance(error, SinkError):
            self.error = error
        else:
            self.error = cannot_write(self._path, OSError(error.errno, str(error)))
            if self._last_dts < 0 and error.errno == errno.EINVAL:
                self.error = self._unfit()
        if container is not None:
            release(container, self._path)
        if self._retention is not None:
            self._retention.release(self._path)
        log.error("recording of the source stream of %s ended: %s", self.camera, self.error)
