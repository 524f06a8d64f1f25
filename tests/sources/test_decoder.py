"""How long a live stream is believed in without a picture: packets of a real encoder, by a clock of the test's own.
Which JPEG of a camera is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import pytest

from streampose.errors import TransientSourceError
from streampose.messages import SourceInfo
from streampose.sinks.remux import Remuxer
from streampose.sources import decoder
from streampose.sources.base import Corrupt, PassedOver, Picture, SourceItem
from streampose.sources.decoder import BLIND_S, KEYS_APART_S, PacketDecoder
from streampose.sources.libav import Skip, VideoOptions
from tests.clocks import StillClock
from tests.media import picture, write_video
from tests.sources.web_server import numbers, watch_to_the_end

MJPEG = "multipart/x-mixed-replace; boundary=frame"

Spoil = Callable[[int, bytes], bytes]


class Watched:
    """What a live camera of a picture a second gives whose key frames are `gop` seconds apart, `spoil` having had each
    packet (its number, its bytes): until its packets end, or it is given up, after `given_up_s`."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch, skip: Skip, spoil: Spoil, *, first: int = 0) -> None:
        clock = StillClock()
        clock.time = clock.monotonic  # type: ignore[attr-defined]
        patch.setattr(decoder, "time", clock)
        self.items: list[SourceItem] = []
        self.recorded = 0
        self.given_up_s: float | None = None
        info = SourceInfo("test:camera", "stream", True, 192, 128, nominal_fps=1.0, codec="h264")
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            packets = PacketDecoder(container, stream, info, VideoOptions(skip=skip), self.tap)
            sent = [packet for packet in container.demux(stream) if packet.size]
            for number, packet in enumerate(sent[first:]):
                clock.sleep(1.0)
                came = av.Packet(spoil(number, bytes(packet)))
                came.stream, came.is_keyframe = stream, packet.is_keyframe
                came.pts, came.dts, came.time_base = packet.pts, packet.dts, packet.time_base
                try:
                    self.items += packets.feed(came)
                except TransientSourceError as error:
                    self.given_up_s = number + 1.0
                    self.why = str(error)
                    return

    def tap(self, *_: Any) -> None:
        self.recorded += 1

    @property
    def pictures(self) -> int:
        return sum(isinstance(item, Picture) for item in self.items)

    @property
    def passed_over(self) -> int:
        return sum(isinstance(item, PassedOver) for item in self.items)


def whole(_: int, data: bytes) -> bytes:
    return data


def clip(folder: Path, frames: int, gop: int) -> Path:
    path = folder / "clip.mp4"
    write_video(path, frames=frames, fps=1.0, gop=gop)
    return path


@pytest.mark.parametrize("first", [0, 20], ids=["from a key frame", "from between two"])
def test_key_frames_a_minute_apart_are_no_end_where_only_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    camera = Watched(clip(tmp_path, 200, 60), monkeypatch, "nonkey", whole, first=first)
    assert camera.given_up_s is None
    assert camera.pictures == (4 if first == 0 else 3)
    assert camera.pictures + camera.passed_over == len(camera.items) == 200 - first
    assert camera.recorded >= 200 - first - decoder.KEY_WAIT_S


@pytest.mark.parametrize("skip", ["none", "nonkey"])
def test_packets_that_are_damaged_are_no_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skip: Skip) -> None:
    """All of them are from the third on, with the key frame still far away."""
    camera = Watched(
        clip(tmp_path, 100, 90), monkeypatch, skip, lambda number, data: data if number < 3 else bytes(len(data))
    )
    assert camera.given_up_s == 3 + BLIND_S + 1
    assert "no picture that can be decoded" in camera.why
    assert (camera.pictures, camera.passed_over) == ((1, 2) if skip == "nonkey" else (3, 0))


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_behind_key_frames_that_are_damaged_nothing_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Whether the decoder says so or just gives no picture of them; what lies between two is not looked into."""
    gop = 10

    def cut(number: int, data: bytes) -> bytes:
        kept = len(data) if number % gop or number < gop else int(share * len(data))
        return data[:kept] + bytes(len(data) - kept)

    camera = Watched(clip(tmp_path, 100, gop), monkeypatch, "nonkey", cut)
    assert camera.pictures == 1
    assert camera.given_up_s is not None
    assert gop + BLIND_S < camera.given_up_s <= 2 * gop + BLIND_S + 1


def test_a_stream_without_key_frames_is_given_up_some_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Watched(clip(tmp_path, 400, 1000), monkeypatch, "nonkey", whole)
    assert camera.pictures == 1
    assert camera.given_up_s == 1 + KEYS_APART_S + BLIND_S + 1
    assert camera.why.endswith(f"{KEYS_APART_S + BLIND_S + 1:.0f} s")


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("padding", [b"", bytes(200)])
def test_a_jpeg_that_is_cut_off_is_damage_and_no_whole_one_is(tmp_path: Path, length: bool, padding: bytes) -> None:
    """The last one, where the camera hangs up; the first has a thumbnail in front of its data, the second is cut, too."""
    whole = [cv2.imencode(".jpg", picture(number))[1].tobytes() for number in range(5)]
    thumbnail = b"\xff\xd8\xff\xda\x00\xff\xd9"
    whole[0] = whole[0][:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + whole[0][2:]
    sent = [data + padding for data in whole]
    sent[1], sent[4] = whole[0][: len(whole[0]) // 2], whole[4][: len(whole[4]) // 2]

    said = b""
    for number, data in enumerate(sent):
        told = len(data if number < 4 else whole[4])  # what it meant to send
        head = f"Content-Length: {told}\r\n" if length else ""
        said += f"--frame\r\nContent-Type: image/jpeg\r\n{head}\r\n".encode() + data + b"\r\n" * (number < 4)
    recorded = Remuxer(tmp_path / "gate.mkv", "gate")
    items = watch_to_the_end(said, MJPEG, recorded.write)
    recorded.close()
    assert numbers(items) == [0, 2, 3]
    damage = [item.what for item in items if isinstance(item, Corrupt)]
    assert [text.partition(": ")[2] for text in damage] == [f"packet {n} is cut off" for n in (2, 5)[: 1 + length]], (
        "without a length libav drops the last one itself"
    )
    with av.open(str(tmp_path / "gate.mkv")) as container:
        assert len(list(container.decode(video=0))) == 3


@pytest.mark.parametrize(("doubted_s", "refused"), [(60.0, 8), (0.0, 0)])
def test_a_camera_that_never_marks_the_end_of_a_jpeg_is_seen_all_the_same(
    doubted_s: float, refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is slow as soon as its connection is old enough: eight pictures may take longer than it is waited for."""
    monkeypatch.setattr(decoder, "ENDLESS_S", doubted_s)
    said = b""
    for number in range(20):
        data = cv2.imencode(".jpg", picture(number))[1].tobytes()[:-2]
        said += f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data + b"\r\n"
    items = watch_to_the_end(said, MJPEG)
    assert numbers(items) == list(range(refused, 20))
