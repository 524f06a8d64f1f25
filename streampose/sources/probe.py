"""What an open container says of its video: which stream, how fast, how long, when it began, which way up, how wide."""

from __future__ import annotations

import math
import re
import sys
from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from streampose.messages import Image

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

DisplayMatrix: TypeAlias = tuple[float, float, float, float]  # (a, b, c, d)
MAX_FPS = 1000.0  # "rates" from here on are time bases of containers that know none
WIDEST_PIXEL = Fraction(4)  # anamorphic film has 2; what claims more is damaged
NEARLY_SQUARE = 0.02  # a difference that nobody sees: encoders round their pictures to whole blocks
EARLIEST_S = datetime(1990, 1, 1, tzinfo=UTC).timestamp()  # before is an unset clock (1904 and 1970 are zeros)


def video_streams(container: InputContainer) -> list[VideoStream]:
    """The videos of the container; a cover picture is none."""
    from av.stream import Disposition

    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def video_stream(container: InputContainer) -> VideoStream | None:
    """The best video of the container."""
    moving = video_streams(container)
    best = container.streams.best("video")
    if best is not None and any(best.index == stream.index for stream in moving):
        return next(stream for stream in moving if stream.index == best.index)
    return moving[0] if moving else None


def exact(rational: Any) -> Fraction | None:
    """A rational of PyAV as a Fraction: up to 18 they are Fractions or None, from 19 on their own type, falsy if unset."""
    if not rational or not rational.denominator:
        return None
    return Fraction(int(rational.numerator), int(rational.denominator))


def nominal_fps(stream: VideoStream) -> float | None:
    """Pictures a second as the container promises, None where it does not or where that is nonsense."""
    for rate in (stream.average_rate, stream.guessed_rate):
        value = exact(rate)
        if value is not None and 0 < value < MAX_FPS:
            return float(value)
    return None


def duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    """Length of the video, by its stream, its own tag (Matroska), or the container.

    What Matroska calls a duration is when the video ends, also where its first stamp is late (a piece that was cut out).
    """
    base = exact(stream.time_base)
    if stream.duration is not None and base is not None and stream.duration > 0:
        return float(stream.duration * base)
    begin_s = 0.0
    if "matroska" in container.format.name and base is not None and stream.start_time is not None:
        begin_s = float(stream.start_time * base)
    length_s = 0.0
    tagged = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tagged is not None:
        length_s = int(tagged[1]) * 3600 + int(tagged[2]) * 60 + float(tagged[3]) - begin_s
    elif container.duration is not None:
        length_s = container.duration / 1e6 - begin_s
    return length_s if length_s > 0 else None


def pixel_ratio(stream: VideoStream | VideoCodecContext) -> Fraction:
    """How wide a pixel is shown for its height (the sample aspect ratio); 1 where the stream does not say, or nonsense.
    Its decoder knows it as it is now, the stream as its container says at the beginning."""
    ratio = exact(stream.sample_aspect_ratio)
    if ratio is None or not WIDEST_PIXEL**-1 <= ratio <= WIDEST_PIXEL or abs(ratio - 1) < NEARLY_SQUARE:
        return Fraction(1)
    return ratio


def square_size(width: int, height: int, ratio: Fraction) -> tuple[int, int]:
    """Width and height of a picture of `width` x `height` pixels, each `ratio` as wide as high, in square ones: stretched
    along the longer side of the pixels, so that nothing of it is lost."""
    return (round(width * ratio), height) if ratio >= 1 else (width, round(height / ratio))


def creation_s(container: InputContainer, stream: VideoStream) -> float | None:
    """When the recording began in seconds since the Unix epoch, by the container's metadata, None where unknown."""
    for tags in (container.metadata, stream.metadata):
        for name in ("com.apple.quicktime.creationdate", "creation_time", "DATE_UTC"):
            seconds = _utc_s(tags.get(name, ""))
            if seconds is not None:
                return seconds
    return None


def capture_s(packet: av.Packet[VideoStream]) -> float | None:
    """When the pictures of `packet` were taken, by its sender, in seconds since the Unix epoch; None where it does not say.

    `prft` is libav's AVProducerReferenceTime: int64 microseconds in host byte order, then flags. RTSP makes it for every
    packet, by the last RTCP sender report and the RTP stamps since.
    """
    if not packet.has_sidedata("prft"):
        return None
    return int.from_bytes(bytes(packet.get_sidedata("prft"))[:8], sys.byteorder, signed=True) / 1e6


def _utc_s(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = moment.timestamp()
    return seconds if seconds >= EARLIEST_S else None


def upright(image: Image, matrix: DisplayMatrix | None) -> Image:
    """`image` (H, W, 3) turned and mirrored as `matrix` says (None: as it is), contiguous.

    The display matrix (ISO/IEC 14496-12, 6.2.2) maps picture to screen, y down, 16.16 fixed point: [[a, b], [c, d]] with
    x' = ax + cy, y' = bx + dy. Angles that are no quarter turn are rounded to one.
    """
    if matrix is None:
        return image
    a, b, c, d = matrix
    if a * d - b * c < 0:  # mirrored: undo the mirror of x first, what remains is a turn
        image = image[:, ::-1]
        a, b = -a, -b
    clockwise = round(math.degrees(math.atan2(b, a)) / 90.0) % 4
    return np.ascontiguousarray(np.rot90(image, k=-clockwise))


def display_matrix(frame: av.VideoFrame) -> DisplayMatrix | None:
    """(a, b, c, d) of the frame's display matrix, None where it has none, says nothing, or is the identity."""
    from av.sidedata.sidedata import Type

    data = cast(Any, frame.side_data).get(Type.DISPLAYMATRIX)
    if data is None:
        return None
    fixed = np.frombuffer(bytes(data), np.int32)
    a, b, c, d = (float(fixed[place]) / 65536.0 for place in (0, 1, 3, 4))
    if a * d - b * c == 0.0 or (a, b, c, d) == (1.0, 0.0, 0.0, 1.0):
        return None
    return a, b, c, d
