"""RTMP from a real server on loopback."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import pytest

from streampose.errors import TransientSourceError
from streampose.sources.barcode import read_code
from streampose.sources.base import Picture
from streampose.sources.libav import VideoOptions
from streampose.sources.video import VideoSource
from tests.media import write_video
from tests.sources.rtmp_server import RtmpServer


def test_an_rtmp_stream_is_live_and_each_picture_comes_once(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.flv", frames=40)
    with RtmpServer(tmp_path / "clip.flv") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = VideoSource(f"rtmp://127.0.0.1:{server.server_address[1]}/live/gate", VideoOptions(20.0, 20.0))
        info = source.open()
        shown: list[Picture] = []
        with pytest.raises(TransientSourceError, match="ended"):
            shown.extend(item for item in source.frames(lambda: False) if isinstance(item, Picture))
        source.close()
        server.shutdown()
    assert (info.kind, info.live, info.codec) == ("stream", True, "h264")
    codes = [read_code(item.image) for item in shown]
    assert [code and code[0] for code in codes] == list(range(40))
    steps = [after.time_s - before.time_s for before, after in pairwise(shown)]
    assert steps == pytest.approx([steps[0]] * 39, abs=2e-3)
