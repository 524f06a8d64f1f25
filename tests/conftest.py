"""What several tests share: a short real clip, cut without encoding anew."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two seconds of the bundled clip: 20 frames, people in all of them."""
    path = tmp_path_factory.mktemp("clip") / "short.mp4"
    with av.open(str(ROOT / "samples" / "cctv.mp4")) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copied = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.pts is None or packet.dts is None or packet.pts * packet.time_base >= 2:
                continue
            packet.stream = copied
            target.mux(packet)
    return path
