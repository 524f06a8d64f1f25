"""Files that are no videos: one line as they are opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from streampose.errors import PermanentSourceError
from streampose.sources.video import VideoSource
from tests.media import cut, write_video


def _text(path: Path) -> None:
    path.write_text("this is not a video\n" * 50)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _headless(path: Path) -> None:
    whole = path.with_name("whole.mp4")
    write_video(whole, frames=40)
    cut(whole, 0.5, path)


def _hollow(path: Path) -> None:
    """All the bytes of the pictures zeroed, the index intact."""
    write_video(path, frames=12, mux_options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "does not exist"),
        (_text, "not a video"),
        (_empty, "0 bytes"),
        (_headless, "lost its index"),
        (_hollow, "no picture that can be decoded"),
        (lambda path: path.mkdir(), "is a folder"),
    ],
)
def test_bad_files_are_one_line_at_open(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    path = tmp_path / "clip.mp4"
    make(path)
    source = VideoSource(str(path))
    with pytest.raises(PermanentSourceError, match=says) as caught:
        source.open()
    source.close()
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert caught.value.__context__ is None or caught.value.__suppress_context__
