"""Another picture size or codec inside one open connection: one break, and what records the packets follows it."""

from __future__ import annotations

import contextlib
import io
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from streampose.errors import SourceError
from streampose.sinks.remux import Remuxer
from streampose.sources.barcode import read_code
from streampose.sources.base import Corrupt, Picture
from streampose.sources.libav import VideoOptions
from streampose.sources.video import VideoSource
from tests.live.rig import Rig
from tests.media import write_video

FRAMES, FPS = 24, 12.0


@contextlib.contextmanager
def broadcast(*connections: bytes, seconds: float = 0.0) -> Iterator[str]:
    """A TCP server whose n-th client gets the n-th bytes (the last again and again), spread over `seconds`; then it hangs
    up."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)

        def serve() -> None:
            waiting = list(connections)
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listening.accept()
                    data = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                    with connection, contextlib.suppress(OSError):
                        for at in range(0, len(data), 1880):
                            connection.sendall(data[at : at + 1880])
                            time.sleep(seconds * 1880 / len(data))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            thread.join(5)


def transport_stream(folder: Path, *, first_pts: int = 0, **how: object) -> bytes:
    path = folder / "part.ts"
    pts = [first_pts + round(number / FPS * 90_000) for number in range(FRAMES)]
    write_video(path, pts=pts, **how)  # type: ignore[arg-type]
    return path.read_bytes()


@pytest.mark.parametrize("first_pts", [FRAMES * 7500, 0, 90_000 * 3600])
def test_another_size_is_one_break_whether_or_not_the_clock_is_set_too(tmp_path: Path, first_pts: int) -> None:
    data = transport_stream(tmp_path) + transport_stream(tmp_path, size=(320, 240), first_pts=first_pts)
    pictures: list[Picture] = []
    with broadcast(data) as url:
        source = VideoSource(url, VideoOptions(open_timeout_s=2.0, read_timeout_s=2.0))
        source.open()
        with contextlib.suppress(SourceError):
            for item in source.frames(lambda: False):
                assert isinstance(item, Picture), item
                pictures.append(item)
        source.close()
    assert [picture.image.shape[:2] for picture in pictures] == [(128, 192)] * FRAMES + [(240, 320)] * FRAMES
    assert [(n, p.jump) for n, p in enumerate(pictures) if p.jump] == [
        (FRAMES, "resolution changed from 192x128 to 320x240")
    ]
    assert all(before.time_s < after.time_s for before, after in itertools.pairwise(pictures))
    codes = [read_code(picture.image) for picture in pictures]
    assert [code and code[0] for code in codes] == [*range(FRAMES), *range(FRAMES)]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("h264", "hevc"), ("hevc", "h264")])
def test_another_codec_in_the_same_connection_is_read_after_a_moment(tmp_path: Path, before: str, after: str) -> None:
    """libav's decoder stays what it was; the connection is opened anew, well before it would count as blind."""
    first, then = transport_stream(tmp_path, codec=before), transport_stream(tmp_path, codec=after)
    with broadcast(first + then * 4, then * 4, seconds=6.0) as url, Rig() as rig:
        camera = rig.watch("gate", url)
        camera.wait(lambda w: w.segments == 2, 12.0)
        camera.wait_for_frames(2, 5.0)
    assert [b.info.codec for b in camera.breaks[:2]] == [before, after]
    assert f"no longer sends {before}" in camera.breaks[1].reason
    assert {"corrupt", "disconnected"} <= set(camera.causes)
    assert [seen.index for seen in camera.seen] == sorted({seen.index for seen in camera.seen}), "index never restarts"


def test_damage_is_not_taken_for_another_codec(tmp_path: Path) -> None:
    data = bytearray(transport_stream(tmp_path) + transport_stream(tmp_path))
    for at in range(2000, len(data), 97):
        data[at] ^= 0x5A
    damaged = 0
    with broadcast(bytes(data), seconds=2.0) as url:
        source = VideoSource(url, VideoOptions(open_timeout_s=2.0, read_timeout_s=2.0))
        said = ""
        try:
            source.open()
            for item in source.frames(lambda: False):
                damaged += isinstance(item, Corrupt)
        except SourceError as error:
            said = str(error)
        source.close()
    assert damaged
    assert "no longer sends" not in said


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_the_recorded_source_stream_rolls_with_the_size(tmp_path: Path, codec: str, ending: str) -> None:
    later = FRAMES * 7500
    data = transport_stream(tmp_path, codec=codec) + transport_stream(
        tmp_path, codec=codec, size=(320, 240), first_pts=later
    )
    remuxer = Remuxer(tmp_path / f"{{camera}}.{ending}", "gate")
    with av.open(io.BytesIO(data), format="mpegts") as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            packet.decode()
            remuxer.write(packet, stream, 1.8e9)
    remuxer.close()
    assert remuxer.error is None
    assert [Path(path).name for path in remuxer.outputs()] == [f"gate.{ending}", f"gate-2.{ending}"]
    for path, size in zip(remuxer.outputs(), [(192, 128), (320, 240)], strict=True):
        with av.open(path) as container:
            context = container.streams.video[0].codec_context
            assert (context.width, context.height) == size, "the file's own head speaks of its pictures"
            frames = list(container.decode(video=0))
        assert {(frame.width, frame.height) for frame in frames} == {size}
        assert [read_code(frame.to_ndarray(format="bgr24"))[0] for frame in frames] == list(range(FRAMES))  # type: ignore[index]
