"""Channel: nothing is lost uncounted, both ends wake, control messages keep their place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.messages import CameraState
from streampose.pipeline.channel import Channel, ChannelClosed, Policy

WORD = CameraState("gate", "live")


def in_thread(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def drain(channel: Channel[Any]) -> list[Any]:
    """Everything until the end."""
    got: list[Any] = []
    try:
        while True:
            got.append(channel.get(timeout_s=5))
    except ChannelClosed:
        return got


@given(
    capacity=st.integers(1, 4),
    moves=st.lists(st.sampled_from(["frame", "word", "get", "batch"]), max_size=60),
    ending=st.sampled_from(["none", "close", "abort"]),
)
def test_put_is_got_plus_dropped_plus_waiting_at_every_moment(capacity: int, moves: list[str], ending: str) -> None:
    dropped: list[object] = []
    channel: Channel[object] = Channel("c", capacity, "latest", dropped.append)
    put: list[object] = []
    got: list[object] = []
    for number, move in enumerate(moves):
        if move in ("frame", "word"):
            put.append(number if move == "frame" else CameraState("gate", "live", str(number)))
            channel.put(put[-1])
        elif move == "get":
            item = channel.poll()
            got += [] if item is None else [item]
        elif channel.stats().waiting:
            got += channel.get_batch(3)
        stats = channel.stats()
        assert stats.put == stats.got + stats.dropped + stats.waiting
        assert (stats.put, stats.got, stats.dropped) == (len(put), len(got), len(dropped))
        assert stats.frames == sum(isinstance(item, int) for item in put)
    if ending != "none":
        getattr(channel, ending)()
        got += drain(channel)
    stats = channel.stats()
    assert stats.put == stats.got + stats.dropped + stats.waiting
    assert not any(isinstance(item, CameraState) for item in dropped), "a control message was dropped"
    assert got == [item for item in put if item in got], "order was lost"
    frames_got = [item for item in got if isinstance(item, int)]
    assert not set(frames_got) & {d for d in dropped if isinstance(d, int)}


@given(capacity=st.integers(1, 3), words=st.lists(st.booleans(), min_size=1, max_size=40))
def test_the_newest_frames_win_and_words_stay_where_they_were_said(capacity: int, words: list[bool]) -> None:
    channel: Channel[object] = Channel("c", capacity, "latest")
    said: list[object] = [CameraState("gate", "live", str(n)) if word else n for n, word in enumerate(words)]
    for item in said:
        channel.put(item)
    channel.close()
    left = drain(channel)
    frames = [item for item in said if isinstance(item, int)]
    kept = set(frames[-capacity:])
    assert left == [item for item in said if not isinstance(item, int) or item in kept]


@pytest.mark.parametrize("policy", ["lossless", "latest"])
def test_a_waiting_reader_wakes_on_put_close_and_abort(policy: Policy) -> None:
    for wake, expected in (("put", "item"), ("close", "closed"), ("abort", "closed")):
        channel: Channel[str] = Channel("c", 1, policy)
        seen: list[str] = []

        def read(channel: Channel[str] = channel, seen: list[str] = seen) -> None:
            try:
                seen.append(channel.get())
            except ChannelClosed:
                seen.append("closed")

        reader = in_thread(read)
        if wake == "put":
            channel.put("item")
        else:
            getattr(channel, wake)()
        reader.join(5)
        assert seen == [expected]


def test_a_waiting_writer_wakes_on_get_close_and_abort() -> None:
    for wake, expected in (("get", "put"), ("close", "closed"), ("abort", "closed")):
        channel: Channel[int] = Channel("c", 1, "lossless")
        channel.put(1)
        seen: list[str] = []

        def write(channel: Channel[int] = channel, seen: list[str] = seen) -> None:
            try:
                channel.put(2)
                seen.append("put")
            except ChannelClosed:
                seen.append("closed")

        writer = in_thread(write)
        time.sleep(0.02)
        assert not seen, "a lossless channel took more than its capacity"
        getattr(channel, wake)()
        writer.join(5)
        assert seen == [expected]


def test_close_lets_the_reader_drain_and_abort_does_not() -> None:
    for ending, left in (("close", [1, 2]), ("abort", [])):
        channel: Channel[int] = Channel("c", 2, "lossless")
        channel.put(1)
        channel.put(2)
        getattr(channel, ending)()
        with pytest.raises(ChannelClosed):
            channel.put(3)
        assert drain(channel) == left
        assert channel.stats().dropped == 2 - len(left)


def test_a_control_message_does_not_wait_for_room() -> None:
    channel: Channel[object] = Channel("c", 1, "lossless")
    channel.put(1)
    channel.put(WORD)
    assert [channel.get(), channel.get()] == [1, WORD]


def test_a_batch_takes_what_waits_and_waits_for_the_first_only() -> None:
    channel: Channel[int] = Channel("c", 8, "lossless")
    for number in range(5):
        channel.put(number)
    assert channel.get_batch(3) == [0, 1, 2]
    assert channel.get_batch(8) == [3, 4]
    with pytest.raises(TimeoutError, match="nothing came"):
        channel.get_batch(1, wait_s=0.01)


def test_many_writers_and_one_reader_conserve_what_they_pass() -> None:
    channel: Channel[tuple[int, int]] = Channel("c", 3, "lossless")
    writers = [in_thread(lambda w=w: [channel.put((w, n)) for n in range(200)]) for w in range(4)]  # type: ignore[misc]
    got = [channel.get(timeout_s=10) for _ in range(800)]
    for writer in writers:
        writer.join(5)
    for w in range(4):
        assert [n for who, n in got if who == w] == list(range(200))


def test_a_channel_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Channel("c", 0, "latest")
