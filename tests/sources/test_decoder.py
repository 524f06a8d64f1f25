"""How long a live stream is believed in without a picture: packets of a real encoder, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from streampose.errors import TransientSourceError
from streampose.messages import SourceInfo
from streampose.sources import decoder
from streampose.sources.base import PassedOver, Picture, SourceItem
from streampose.sources.decoder import BLIND_S, KEYS_APART_S, PacketDecoder
from streampose.sources.libav import Skip, VideoOptions
from tests.clocks import StillClock
from tests.media import write_video

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
