"""Hundreds of damaged recordings through the source: pictures, counts and clean errors, nothing else, in bounded time."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from streampose.errors import SourceError
from streampose.sources.base import Picture
from streampose.sources.decoder import MAX_PIXELS
from streampose.sources.libav import VideoOptions
from streampose.sources.video import VideoSource
from tests.media import TIME_BASE, cut, damage, write_video

KINDS = {
    "a.ts": ("h264", 2), "b.mp4": ("h264", 2), "c.mkv": ("hevc", 0), "d.webm": ("vp8", 0), "e.h264": ("h264", 0),
    "f.avi": ("mjpeg", 0), "g.mp4": ("vp9", 0), "h.flv": ("h264", 0), "i.ts": ("hevc", 2),
}  # fmt: skip
CASES = 40  # of each kind


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    for name, (codec, b_frames) in KINDS.items():
        base = Fraction(1, 12) if name.endswith("avi") else TIME_BASE
        raw = "h264" if name.endswith("h264") else None
        write_video(folder / name, codec=codec, b_frames=b_frames, frames=20, time_base=base, container_format=raw)
    return {name: folder / name for name in KINDS}


def outcome(path: Path, options: VideoOptions) -> str:
    """Run `path` to its end and say how it went; anything but a SourceError escapes and fails the test."""
    source = VideoSource(str(path), options)
    last_s = -1.0
    try:
        source.open()
        for item in source.frames(lambda: False):
            if isinstance(item, Picture):
                assert item.time_s > last_s
                assert item.image.shape[0] * item.image.shape[1] <= MAX_PIXELS
                last_s = item.time_s
    except SourceError as error:
        return type(error).__name__ if "\n" not in str(error) else "more than one line"
    finally:
        source.close()
    return "read"


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_damaged_bytes_are_counted_or_refused(whole: dict[str, Path], tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(list(KINDS).index(name))
    seen: Counter[str] = Counter()
    for case, threads in zip(range(CASES), itertools.cycle((0, 0, 2)), strict=False):
        damaged = damage(
            whole[name], tmp_path / name, seed=case, flips=int(rng.integers(1, 80)), after=int(rng.integers(0, 400))
        )
        seen[outcome(damaged, VideoOptions(threads=threads))] += 1
    assert set(seen) <= {"read", "PermanentSourceError"}
    assert seen.total() == CASES


@pytest.mark.parametrize("name", KINDS)
def test_a_file_cut_anywhere_is_read_or_refused(whole: dict[str, Path], tmp_path: Path, name: str) -> None:
    for share in np.linspace(0.02, 0.98, 12):
        assert outcome(cut(whole[name], float(share), tmp_path / name), VideoOptions()) in (
            "read",
            "PermanentSourceError",
        )
