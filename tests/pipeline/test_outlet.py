"""Outlet: words are never lost, what a sink missed is told to the last result, and nobody waits twice for who hangs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.messages import CameraState, Control, Counts, End, Frame, Gap, Missed, PoseResult
from streampose.pipeline.channel import Channel
from streampose.pipeline.lane import Result
from streampose.pipeline.outlet import Outlet
from tests.pipeline.test_channel import drain, in_thread

IMAGE = np.zeros((2, 2, 3), np.uint8)
FOR_EVER_S = 3600.0


def result(index: int, time_s: float) -> PoseResult:
    return PoseResult(
        Frame("gate", index, 0, index, Fraction(1), time_s, time_s, 1e9 + time_s, "rtcp", time.monotonic(), IMAGE)
    )


def make(patience_s: float | None, capacity: int = 2) -> tuple[Outlet, Channel[Result]]:
    channel: Channel[Result] = Channel("jsonl:gate", capacity, "lossless")
    return Outlet("gate", "jsonl", channel, patience_s), channel


def tell(outlet: Outlet, message: PoseResult | Control) -> list[Missed]:
    missed = outlet.admit(message)
    outlet.put(message)
    return [] if missed is None else [missed]


def seconds_of(spans: Sequence[tuple[float, float]]) -> set[int]:
    """The whole seconds that spans cover; every time in these tests is a whole one."""
    return {second for start, end in spans for second in range(int(start), int(end))}


def seconds_covered(said: Sequence[Result], indices: set[int]) -> set[int]:
    """By the rule of the account: a frame covers the time to the next one, or to the gap that begins before that one."""
    spans = []
    for place, message in enumerate(said):
        if isinstance(message, PoseResult) and message.frame.index in indices:
            later = [m for m in said[place + 1 :] if isinstance(m, PoseResult | Gap)][:1]
            ends = [m.start_s if isinstance(m, Gap) else m.frame.time_s for m in later]
            spans.append((message.frame.time_s, (*ends, message.frame.time_s)[0]))
    return seconds_of(spans)


def test_nobody_waits_for_a_sink_that_takes_the_newest_only() -> None:
    channel: Channel[Result] = Channel("display:gate", 1, "latest")
    outlet = Outlet("gate", "display", channel)
    for index in range(3):
        assert not outlet.holds(5)
        tell(outlet, result(index, index))
    assert isinstance(shown := channel.get(), PoseResult)
    assert shown.frame.index == 2


@given(
    capacity=st.integers(1, 3),
    moves=st.lists(st.sampled_from(["result", "result", "gap", "dropped", "word", "take", "take all"]), max_size=60),
)
def test_words_are_never_lost_and_every_missed_result_is_told_once(capacity: int, moves: list[str]) -> None:
    """A reader that takes when it likes: what it gets, with the gaps it is told of, is all that there was."""
    outlet, channel = make(0.0, capacity)
    said: list[Result] = []
    got: list[Result] = []
    told: list[Missed] = []
    second = 0
    for place, move in enumerate(moves):
        if move in ("take", "take all"):
            waiting = channel.stats().waiting
            got += channel.get_batch(1 if move == "take" else waiting) if waiting else []
            continue
        if move == "word":
            said.append(CameraState("gate", "live", str(place)))
        elif move == "result":
            said.append(result(sum(isinstance(item, PoseResult) for item in said), second))
        else:
            said.append(Gap("gate", "disconnected" if move == "gap" else "dropped", second, second + 1, 1))
        second += move != "word"
        told += tell(outlet, said[-1])
    decoded = sum(isinstance(item, PoseResult) for item in said)
    told += tell(outlet, End("gate", Counts(decoded)))
    outlet.close()
    got += drain(channel)

    end = got.pop()
    gaps = [item for item in got if isinstance(item, Gap) and item.cause == "unwritten"]
    gathered = [item for item in got if isinstance(item, Gap) and item.cause == "dropped"]
    dropped = [item for item in said if isinstance(item, Gap) and item.cause == "dropped"]
    assert [item for item in got if item not in gaps + gathered] == [
        item for item in said if item not in dropped and (item in got or not isinstance(item, PoseResult))
    ], "a word was lost, or the order"
    assert sum(gap.frames or 0 for gap in gathered) == len(dropped)
    lacking = set(range(decoded)) - {item.frame.index for item in got if isinstance(item, PoseResult)}
    assert end == End("gate", Counts(decoded, 0, {"unwritten": len(lacking)} if lacking else {}))
    assert sum(gap.frames or 0 for gap in gaps) == len(lacking) == outlet.missed
    seconds = [seconds_of([(gap.start_s, gap.end_s) for gap in some]) for some in (gaps, gathered, dropped)]
    assert seconds[0] | seconds[1] == seconds_covered(said, lacking) | seconds[2]
    assert seconds_covered(said, lacking) <= seconds[0]
    written = {item.frame.time_s for item in got if isinstance(item, PoseResult)}
    assert not written & (seconds[0] | seconds[1]), "a frame in a gap"
    assert [missed.gap for missed in told] == gaps


def test_a_sink_that_hangs_for_long_takes_no_memory_though_its_camera_drops_frames() -> None:
    outlet, channel = make(0.0, 2)
    for index in range(1000):
        time_s = float(index)
        assert tell(outlet, result(index, time_s)) == []
        why = {"dropped": ("newest wins", "older than max_age")[index % 2], "corrupt": f"packet {index} is damaged"}
        for cause, from_s in (("dropped", time_s + 0.5), ("corrupt", time_s + 0.75)):
            tell(outlet, Gap("gate", cause, from_s, from_s + 0.25, 2, 1e9 + from_s, 1e9 + from_s + 0.25, why[cause]))  # type: ignore[arg-type]
    before = channel.stats().waiting
    assert before <= 2 + 2 * 2, "what it was given before it hung"
    channel.get_batch(before)
    (missed,) = tell(outlet, result(1000, 1000.0))
    assert channel.get_batch(9)[:-1] == [
        missed.gap,
        Gap("gate", "dropped", 2.5, 999.75, 2 * 998, 1e9 + 2.5, 1e9 + 999.75, "newest wins, older than max_age"),
        Gap("gate", "corrupt", 2.75, 1000.0, 2 * 998, 1e9 + 2.75, 1e9 + 1000, "packet 2 is damaged"),
    ]
    assert (missed.gap.start_s, missed.gap.end_s, missed.gap.frames) == (2, 1000, 998)


def test_what_was_missed_comes_before_the_next_result_and_says_when() -> None:
    outlet, channel = make(0.0, 1)
    word = CameraState("gate", "stalled")
    first, last = result(0, 0), result(3, 3)
    for message in (first, result(1, 1), word, result(2, 2)):
        assert tell(outlet, message) == []
    assert channel.get() is first
    gap = Gap("gate", "unwritten", 1, 3, 2, 1e9 + 1, 1e9 + 3, "jsonl took nothing")
    assert tell(outlet, last) == [Missed("jsonl", gap)]
    assert channel.get_batch(10) == [word, gap, last]


def test_a_recording_waits_and_loses_nothing() -> None:
    outlet, channel = make(None, 1)

    def write() -> None:
        for index in range(20):
            tell(outlet, result(index, index))
        outlet.close()

    writer = in_thread(write)
    writer.join(0.1)
    assert writer.is_alive(), "it did not wait"
    got = drain(channel)
    assert [item.frame.index for item in got] == list(range(20))
    assert outlet.missed == 0


def test_a_sink_that_takes_something_in_time_is_waited_for() -> None:
    outlet, channel = make(FOR_EVER_S, 1)
    tell(outlet, result(0, 0))
    writer = in_thread(lambda: tell(outlet, result(1, 1)) and None)
    assert isinstance(channel.get(5), PoseResult)
    writer.join(5)
    assert isinstance(channel.get(5), PoseResult)
    assert outlet.missed == 0


def test_nobody_waits_again_before_the_sink_has_caught_up(caplog: pytest.LogCaptureFixture) -> None:
    """With a patience that would outlast the test, once passed over: a wait would never end."""
    outlet, channel = make(0.0, 2)
    for index in range(5):
        tell(outlet, result(index, index))
    assert (outlet.missed, outlet.behind_since_s is None) == (3, False)
    outlet._patience_s = FOR_EVER_S
    channel.get()
    for index in range(5, 9):  # there is room for one
        tell(outlet, result(index, index))
    assert outlet.missed == 6
    channel.get_batch(10)
    tell(outlet, result(9, 9))
    assert outlet.behind_since_s is None
    begins, ends = (record.getMessage() for record in caplog.records)
    assert begins.endswith("results go on without it until it does: see to the disk")
    assert "has caught up; it missed 6 results in" in ends


def test_who_has_taken_nothing_for_long_is_passed_over_at_once() -> None:
    """Else the waits for all sinks on one disk would add up: while one is waited for, the patience with all runs."""
    outlet, channel = make(FOR_EVER_S, 1)
    tell(outlet, result(0, 0))
    channel._taken_s -= FOR_EVER_S
    tell(outlet, result(1, 1))
    assert outlet.missed == 1
    assert outlet.behind_since_s is not None
    assert time.monotonic() - outlet.behind_since_s >= FOR_EVER_S


def test_what_a_sink_that_has_ended_lacks_is_told_once_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """Of what it took last it made nothing, what waited is lost, and what it missed before and since."""
    outlet, channel = make(0.0, 2)
    for index in range(2):
        tell(outlet, result(index, index))
    channel.get_batch(2)
    for index in range(2, 6):  # there is room for two
        tell(outlet, result(index, index))
    assert outlet.missed == 2
    channel.abort(1)
    assert tell(outlet, Gap("gate", "dropped", 7, 9)) == [], "cameras drop frames for weeks"
    assert outlet.closed
    assert outlet.behind_since_s is None
    for index in range(9, 12):
        assert tell(outlet, result(index, index)) == []
    told = tell(outlet, End("gate", Counts(12)))
    assert told == [Missed("jsonl", Gap("gate", "unwritten", 1, 11, 8, 1e9 + 1, 1e9 + 11, "jsonl took nothing"))]
    assert outlet.missed == 8
    assert len(caplog.records) == 1, "nobody waits for it, and that it ended is said by itself"


def test_a_sink_that_ends_after_the_last_result_lacks_what_waited() -> None:
    outlet, channel = make(0.0, 2)
    tell(outlet, result(0, 0))
    channel.get()
    tell(outlet, result(1, 1))
    channel.abort()
    (missed,) = tell(outlet, End("gate", Counts(2)))
    assert (missed.gap.start_s, missed.gap.end_s, missed.gap.frames) == (1, 1, 1)


def test_a_result_that_was_admitted_as_the_sink_ended_is_lacking() -> None:
    outlet, channel = make(patience_s=0.0)
    outlet.admit(result(0, 0.0))
    channel.abort()
    outlet.put(Gap("gate", "dropped", 0.0, 1.0, 1))
    outlet.put(result(0, 0.0))
    assert (outlet.closed, outlet.missed) == (True, 1)


def test_a_window_that_is_closed_lacks_nothing() -> None:
    channel: Channel[Result] = Channel("display:gate", 1, "latest")
    outlet = Outlet("gate", "display", channel)
    tell(outlet, result(0, 0))
    channel.abort()
    assert tell(outlet, result(1, 1)) == tell(outlet, End("gate", Counts(2))) == []
    assert outlet.missed == 0
