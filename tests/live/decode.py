"""What decoding costs: CPU time a picture through the real source, hence how many cameras a core carries.

    python -m tests.live.decode [--frames 150] [--cameras 8]

The streams are the bundled clip, scaled, encoded as cameras do (H.264, a key frame every two seconds, no B-frames or two of
them). CPU time is that of all threads of the process, so that it means the same on a busy machine; the pictures are
converted to BGR, as the networks take them. `skip` leaves pictures out before they are decoded.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import cv2

from streampose.sources.base import Picture
from streampose.sources.libav import VideoOptions
from streampose.sources.video import VideoSource

ROOT = Path(__file__).parents[2]
FPS = 15
SIZES = {"1080p": (1920, 1080, 4_000_000), "720p": (1280, 720, 2_000_000)}
Skip = Literal["none", "nonref", "nonkey"]
WAYS: Sequence[tuple[int, Skip, int]] = (
    (0, "none", 1), (0, "none", 0), (0, "nonkey", 1), (2, "none", 1), (2, "nonref", 1), (2, "nonkey", 1),
)  # fmt: skip
"""B-frames in a row, what is skipped, decoder threads (0: FFmpeg's choice)."""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU milliseconds a picture that the camera sends (not: that comes out), with so many cameras side by side."""

    size: str
    b_frames: int
    skip: Skip
    threads: int
    cameras: int
    sent: int
    decoded: int
    cpu_ms: float

    @property
    def cameras_a_core(self) -> float:
        return 1000.0 / (FPS * self.cpu_ms)


def make_stream(path: Path, size: str, b_frames: int, frames: int) -> None:
    """The bundled clip, again and again, at another size, as a camera would send it."""
    width, height, bit_rate = SIZES[size]
    pictures = []
    with av.open(str(ROOT / "samples" / "cctv.mp4")) as container:
        for frame in container.decode(video=0):
            pictures.append(frame.to_ndarray(format="bgr24"))
            if len(pictures) == min(frames, 60):
                break
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "b-pyramid": "none"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate, stream.gop_size = bit_rate, 2 * FPS
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.thread_count = 1
        for number in range(frames):
            image = cv2.resize(pictures[number % len(pictures)], (width, height), interpolation=cv2.INTER_CUBIC)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def read(path: Path, skip: Skip, threads: int, counted: list[int]) -> None:
    source = VideoSource(str(path), VideoOptions(skip=skip, threads=threads))
    source.open()
    counted.append(sum(isinstance(item, Picture) for item in source.frames(lambda: False)))
    source.close()


def cost(path: Path, size: str, b_frames: int, skip: Skip, threads: int, cameras: int, frames: int) -> Cost:
    """Read the stream by `cameras` threads at once."""
    counted: list[int] = []
    readers = [threading.Thread(target=read, args=(path, skip, threads, counted)) for _ in range(cameras)]
    began_s = time.process_time()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    cpu_s = time.process_time() - began_s
    decoded = sum(counted) // cameras
    return Cost(size, b_frames, skip, threads, cameras, frames, decoded, 1000.0 * cpu_s / (frames * cameras))


def run(frames: int, cameras: int, sizes: Sequence[str] = tuple(SIZES)) -> list[Cost]:
    """Every size and way, by one camera; as it is sent, also by `cameras` of them side by side."""
    found: list[Cost] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            paths = {}
            for b_frames in sorted({b for b, _, _ in WAYS}):
                paths[b_frames] = Path(folder) / f"{size}-{b_frames}.mp4"
                make_stream(paths[b_frames], size, b_frames, frames)
            for b_frames, skip, threads in WAYS:
                found.append(cost(paths[b_frames], size, b_frames, skip, threads, 1, frames))
            found.append(cost(paths[0], size, 0, "none", 1, cameras, frames))
    return found


def table(costs: Sequence[Cost]) -> str:
    lines = [f"{'size':<7}{'B-frames':>9}  {'skip':<8}{'threads':>8}{'cameras':>9}{'given of sent':>15}{'CPU ms':>8}"
             f"{'cameras a core':>16}"]  # fmt: skip
    for c in costs:
        threads = "auto" if c.threads == 0 else str(c.threads)
        lines.append(
            f"{c.size:<7}{c.b_frames:>9}  {c.skip:<8}{threads:>8}{c.cameras:>9}{f'{c.decoded} of {c.sent}':>15}"
            f"{c.cpu_ms:>8.2f}{c.cameras_a_core:>16.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--cameras", type=int, default=8)
    wanted = parser.parse_args()
    print(table(run(wanted.frames, wanted.cameras)))
    print(f"\n(CPU time a picture sent, {FPS} pictures a second)")


if __name__ == "__main__":
    main()
