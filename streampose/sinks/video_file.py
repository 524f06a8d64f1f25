"""One H.264 video file that stays playable whenever the process dies: fragmented MP4, or Matroska by its extension.

Frames carry their own times in 1/90000 s; nothing is made evenly spaced and gaps stay as long as they were.
"""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.frame import PictureType

from streampose.errors import ConfigError, SinkError
from streampose.libav_name import libav_name
from streampose.messages import Image
from streampose.sinks.fragments import trim_to_whole_fragments
from streampose.sinks.paths import cannot_write, create

TIME_BASE = Fraction(1, 90000)
MOST_SIDE = 16384  # pixels, of H.264 and x264
FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
LOOKAHEAD = 5  # frames of a recording, where a third of a second is not less; of a live camera 1
_KEY_EVERY_S = 4.0  # a player can seek to multiples of this
_FRAGMENT_US = 1_000_000  # a kill loses at most so much, and what the encoder holds


def container_options(path: Path) -> dict[str, str]:
    """Options of the muxer for a file that is whole up to its last fragment at every moment."""
    common = {"flush_packets": "1"}
    if FORMATS[path.suffix.lower()] == "matroska":
        return {**common, "cluster_time_limit": str(_FRAGMENT_US // 1000)}
    flags = "frag_keyframe+empty_moov+default_base_moof"
    return {**common, "movflags": flags, "frag_duration": str(_FRAGMENT_US), "video_track_timescale": "90000"}


def check_extension(path: Path) -> Path:
    """`path` itself; raises ConfigError for a container that a kill would leave unplayable, or that is unknown."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"{path}: a video is written as .mp4 or .mkv, not as {path.suffix or 'a name without ending'}"
        )
    return path


def check_preset(preset: str) -> None:
    """Raises ConfigError for a preset that x264 does not know."""
    if preset not in PRESETS:
        raise ConfigError(f'record.preset: "{preset}" is none of x264\'s; known are {", ".join(PRESETS)}')


class OpenVideo:
    """A new container with `metadata`, and the lock on its file. Raises SinkError where it cannot be made.

    `muxed` counts the packets; the first `whole` of them are in the file, whatever becomes of it: the muxer keeps a fragment
    or cluster until a packet begins the next.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        self.path = path
        self._fd = create(path)
        self._unlock = weakref.finalize(self, os.close, self._fd)
        try:
            format_name = FORMATS[check_extension(path).suffix.lower()]
            self.container = av.open(libav_name(path), "w", format=format_name, options=container_options(path))
        except OSError as error:
            self._unlock()
            raise cannot_write(path, error) from error
        self.container.metadata.update(metadata)
        self.muxed = self.whole = 0
        self._size = 0

    def mux(self, packet: av.Packet[av.stream.Stream]) -> None:
        """Hand a packet to the muxer."""
        self.container.mux(packet)
        try:
            size = os.fstat(self._fd).st_size
        except OSError as error:  # a network disk that is gone
            raise cannot_write(self.path, error, self.muxed - self.whole) from error
        if size > self._size:
            self._size, self.whole = size, self.muxed
        self.muxed += 1

    def close(self) -> None:
        """Finish the file; raises SinkError where its end does not fit, after taking back what is half written."""
        try:
            self.container.close()
        except av.error.FFmpegError as error:
            self.release()
            raise cannot_write(self.path, OSError(error.errno, str(error)), self.muxed - self.whole) from error
        try:
            self._unlock()
        except OSError as error:  # here network disks say that they lost what was written
            raise cannot_write(self.path, error, self.muxed - self.whole) from error

    def release(self) -> None:
        """Let go of a file that cannot be written on, as far as it plays."""
        with contextlib.suppress(av.error.FFmpegError):  # the end does not fit either; that the disk said no is known
            self.container.close()
        with contextlib.suppress(OSError):  # trimming is a kindness to strict players, most stop at the half fragment
            trim_to_whole_fragments(self.path)
        with contextlib.suppress(OSError):
            self._unlock()


def describe(camera: str, start_s: float | None, wall_s: float | None, mode: str) -> dict[str, str]:
    """Metadata that ties a file to the record: camera time and wall time of its time zero, where known, as JSON in the
    comment."""
    note: dict[str, Any] = {"streampose": 1, "camera": camera, "mode": mode}
    if start_s is not None:
        note["start_time"] = round(start_s, 6)
    if wall_s is not None:
        note["start_wall"] = round(wall_s, 6)
    return {"title": camera, "comment": json.dumps(note, separators=(",", ":"))}


class VideoFile:
    """Encodes BGR pictures of one size into one file.

    Time zero of the file is `start_s` of camera time. `image` in `add` has the size given here; odd sizes are padded by
    one column or row, since H.264 in 4:2:0 has even sizes only. Of a `live` camera, whose results may come more slowly than
    its `fps`, the encoder keeps one picture only. Raises SinkError.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        *,
        start_s: float,
        metadata: Mapping[str, str],
        fps: float | None = None,
        crf: int = 23,
        preset: str = "superfast",
        threads: int = 1,
        live: bool = False,
    ) -> None:
        self.path = path
        self.size = size
        self.start_s = start_s
        self.frames = 0
        self._last_pts = -1
        self._last_key = -(10**9)
        if max(size) > MOST_SIDE:  # said before the file of an earlier run is emptied for nothing
            raise SinkError(
                f"{path}: pictures of {size[0]}x{size[1]} are too large for H.264, which has {MOST_SIDE} pixels a side; "
                "give the video a `size`"
            )
        self._file: OpenVideo | None = OpenVideo(path, metadata)
        width, height = size[0] + size[0] % 2, size[1] + size[1] % 2
        self._padded = (height - size[1], width - size[0])
        self._planes = np.empty((height + height // 2, width), np.uint8)
        # What only looks at the buffer takes its height down to a multiple of four (PyAV 18.1), so others are copied.
        self._frame_of = av.VideoFrame.from_ndarray if height % 4 else av.VideoFrame.from_numpy_buffer
        rate = Fraction(fps if fps and fps > 0 else 25).limit_denominator(1001)
        options = _encoder_options(crf, preset, 1 if live else min(LOOKAHEAD, max(1, round(rate / 3))))
        stream = self._file.container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = TIME_BASE
        context = stream.codec_context
        context.time_base = TIME_BASE
        context.thread_count = threads
        # OpenCV converts by BT.601 with limited range; without the tags players take 720p and above for BT.709.
        context.colorspace = 6
        context.color_primaries = 6
        context.color_trc = 6
        context.color_range = 1
        self._stream = stream

    def add(self, image: Image, time_s: float) -> None:
        """Append one picture taken at `time_s` of camera time."""
        pts = max(round((time_s - self.start_s) / TIME_BASE), self._last_pts + 1)
        if any(self._padded):
            image = np.asarray(cv2.copyMakeBorder(image, 0, self._padded[0], 0, self._padded[1], cv2.BORDER_REPLICATE))
        # Nine times cheaper than libswscale's conversion from packed BGR, measured at 1280x720. x264 copies what it is
        # given before it comes back, so one buffer serves all pictures.
        cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420, self._planes)
        frame = self._frame_of(self._planes, format="yuv420p")
        frame.pts, frame.time_base = pts, TIME_BASE
        if (pts - self._last_key) * TIME_BASE >= _KEY_EVERY_S:
            frame.pict_type = PictureType.I
            self._last_key = pts
        self._last_pts = pts
        self._encode(frame)
        self.frames += 1

    def close(self) -> None:
        """Flush the encoder and finish the file; may be called twice. Raises SinkError where the rest does not fit."""
        if self._file is None:
            return
        self._encode(None)
        file, self._file = self._file, None
        file.close()

    def _encode(self, frame: av.VideoFrame | None) -> None:
        assert self._file is not None
        try:
            for packet in self._stream.encode(frame):
                self._file.mux(packet)
        except (av.error.FFmpegError, SinkError) as error:
            file, self._file = self._file, None
            file.release()
            if isinstance(error, SinkError):
                raise
            raise cannot_write(self.path, OSError(error.errno, str(error)), self.frames - file.whole) from error


def _encoder_options(crf: int, preset: str, lookahead: int) -> dict[str, str]:
    """x264 for a picture that mostly stands still, cheap first.

    No B-frames: nothing waits for a later frame, and a kill loses less. A lookahead of at most five frames, with
    macroblock-tree, gives "superfast" nearly the sizes of "veryfast" for little more than half of its time. "superfast"
    goes without what costs much for a fifth fewer bytes at the same quality: motion to the quarter pixel, arithmetic
    coding, and the larger transform.
    """
    check_preset(preset)
    params = "bframes=0:sync-lookahead=0"
    if preset != "ultrafast":
        params += f":rc-lookahead={lookahead}:mbtree=1"
    if preset == "superfast":
        params += ":subme=0:cabac=0:8x8dct=0"
    return {"crf": str(crf), "preset": preset, "forced-idr": "1", "x264-params": params}
