"""What a playlist that is opened anew still holds is known by stamp and content, and only as long as it comes at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest

from streampose.sources import repeats
from streampose.sources.repeats import Repeats, Seen
from tests.media import write_video


@pytest.fixture
def packets(tmp_path: Path) -> list[av.Packet[Any]]:
    """Sixty, with a key frame at 0, 20 and 40, in decoding order."""
    write_video(tmp_path / "clip.ts", frames=60, gop=20, b_frames=2)
    with av.open(str(tmp_path / "clip.ts")) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def feed(connection: Repeats, packets: list[av.Packet[Any]], waits: dict[int, float] | None = None) -> list[int]:
    """Numbers of the packets that are new, all of whose pictures are then given; each packet may be waited for."""
    now_s, new = 100.0, []
    for number, packet in enumerate(packets):
        now_s += (waits or {}).get(number, 0.001)
        if not connection.of_before(packet, now_s, False):
            new.append(number)
    for number in new:
        connection.given(packets[number].pts)
    return new


def test_what_was_given_is_known_until_something_new_comes(packets: list[av.Packet[Any]]) -> None:
    seen = Seen()
    assert feed(Repeats(seen), packets[:40]) == list(range(40))
    again = Repeats(seen)
    assert feed(again, packets) == list(range(40, 60))
    assert all(again.shows_before(packet.pts) for packet in packets[:40])
    assert not any(again.shows_before(packet.pts) for packet in packets), "each once"


def test_a_picture_that_nobody_took_was_not_given(packets: list[av.Packet[Any]]) -> None:
    """A reader that was given up may yet read one; what a decoder skips goes with the picture after it."""
    seen = Seen()
    first = Repeats(seen)
    for packet in packets[:20]:
        first.of_before(packet, 0.0, False)
    last = max(packet.pts for packet in packets[:20])
    first.given(sorted(packet.pts for packet in packets[:20])[-2])
    new = feed(Repeats(seen), packets[:20])
    assert packets[new[0]].pts == last


def test_an_encoder_that_begins_the_very_same_film_anew_is_seen_from_what_was_waited_for(
    packets: list[av.Packet[Any]],
) -> None:
    seen = Seen()
    feed(Repeats(seen), packets)
    assert feed(Repeats(seen), packets, {5: 2.0}) == [], "a slow network within a segment"
    assert feed(Repeats(seen), packets, {20: 2.0}) == list(range(20, 60))


def test_what_was_held_back_over_a_silence_is_no_news(packets: list[av.Packet[Any]]) -> None:
    seen = Seen()
    feed(Repeats(seen), packets[:39])
    again = Repeats(seen)
    assert feed(again, packets[:39]) == []
    assert again.of_before(packets[39], 130.0, True)


def test_only_so_much_is_remembered(packets: list[av.Packet[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "KEPT", 30)
    seen = Seen()
    feed(Repeats(seen), packets)
    assert feed(Repeats(seen), packets[30:]) == []
    assert feed(Repeats(seen), packets) == list(range(60)), "begun with what is forgotten"
