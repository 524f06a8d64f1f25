"""Makes the small videos that tests watch: every codec, rate, stamp, turn and fault that is asked for.

Every picture carries its number and its time as a bar code (`streampose.sources.barcode`), so that a test knows which
one it got.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from streampose.messages import Image
from streampose.sources.barcode import draw_code

TIME_BASE = Fraction(1, 90_000)
ENCODERS = {
    "h264": ("libx264", {"preset": "veryfast", "crf": "28"}),
    "hevc": ("libx265", {"preset": "ultrafast", "crf": "28", "x265-params": "log-level=none"}),
    "vp8": ("libvpx", {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "1M"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "30"}),
    "av1": ("libsvtav1", {"preset": "10", "crf": "20"}),
    "mjpeg": ("mjpeg", {"q": "4"}),
    "mpeg4": ("mpeg4", {"b": "2M"}),
}


def picture(number: int, time_s: float = 0.0, width: int = 192, height: int = 128) -> Image:
    """Picture `number` (H, W, 3) BGR uint8: a moving block on a slope of grey, and the bar code."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = np.linspace(40, 200, width).astype(np.uint8)[None, :, None]
    left = (number * 7) % (width - 24)
    image[height - 40 : height - 16, left : left + 24] = (30, 60, 220)
    draw_code(image, number, time_s)
    return image


def constant_pts(frames: int, fps: float, time_base: Fraction = TIME_BASE) -> list[int]:
    """Stamps of `frames` pictures at `fps`, in units of `time_base`."""
    return [round(number / fps / time_base) for number in range(frames)]


def write_video(
    path: Path,
    *,
    pts: Sequence[int] | None = None,
    frames: int = 24,
    fps: float = 12.0,
    codec: str = "h264",
    size: tuple[int, int] = (192, 128),
    time_base: Fraction = TIME_BASE,
    rotation: int = 0,
    hflip: bool = False,
    b_frames: int = 0,
    gop: int = 12,
    audio: bool = False,
    metadata: dict[str, str] | None = None,
    container_format: str | None = None,
    mux_options: dict[str, str] | None = None,
    pixel_ratio: Fraction | None = None,
) -> list[int]:
    """Write a video of numbered pictures and return their stamps in units of `time_base`.

    `size` (width, height) is what a viewer sees; with `rotation` (degrees counter-clockwise that a player must turn) the
    pictures are stored turned the other way, as a phone does. `pixel_ratio` is how wide a pixel is for its height.
    """
    stamps = list(pts) if pts is not None else constant_pts(frames, fps, time_base)
    encoder, options = ENCODERS[codec]
    with av.open(str(path), "w", format=container_format, options=mux_options or {}) as output:
        output.metadata.update(metadata or {})
        stream = output.add_stream(encoder, rate=Fraction(fps).limit_denominator(1001), options=dict(options))
        stored = _stored(picture(0, 0.0, *size), rotation, hflip)
        stream.height, stream.width = stored.shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size = gop
        stream.codec_context.time_base = time_base
        if pixel_ratio is not None:
            stream.codec_context.sample_aspect_ratio = pixel_ratio
        stream.codec_context.thread_count = 1  # PyAV's threads are slices, and some payloaders break sliced pictures up
        if codec in ("h264", "hevc", "mpeg4"):
            stream.codec_context.max_b_frames = b_frames
        if rotation or hflip:
            stream.set_display_rotation(rotation, hflip=hflip)
        sound = output.add_stream("aac" if path.suffix != ".webm" else "libopus", rate=48_000) if audio else None
        for number, stamp in enumerate(stamps):
            image = _stored(picture(number, float(max(stamp, 0) * time_base), *size), rotation, hflip)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
            frame.pts, frame.time_base = stamp, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            _write_sound(output, sound, float(stamps[-1] * time_base) + 1.0)
    return stamps


def _stored(image: Image, rotation: int, hflip: bool) -> Image:
    """The picture as a camera stores it whose player must turn it `rotation` degrees counter-clockwise, then mirror it."""
    if hflip:
        image = image[:, ::-1]
    return np.rot90(image, k=-(rotation // 90))


def _write_sound(output: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    samples = 960
    for block in range(int(seconds * 48_000 / samples)):
        wave = (0.1 * np.sin(np.arange(samples) * 0.06)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, block * samples, Fraction(1, 48_000)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def cut(path: Path, share: float, into: Path) -> Path:
    """The first `share` of the bytes of `path`."""
    data = path.read_bytes()
    into.write_bytes(data[: int(len(data) * share)])
    return into


def damage(path: Path, into: Path, *, seed: int, flips: int, after: int = 2000) -> Path:
    """`path` with `flips` random bytes beyond `after` overwritten."""
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(after, len(data), flips):
        data[place] = int(rng.integers(256))
    into.write_bytes(bytes(data))
    return into
