"""CameraLedger: every frame has one fate, every second of the watch is seen or a gap, under any order of threads."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.messages import Frame, Gap
from streampose.pipeline.channel import Channel
from streampose.pipeline.ledger import UNFINISHED, CameraLedger

IMAGE = np.zeros((2, 2, 3), np.uint8)


def frame(index: int, time_s: float) -> Frame:
    return Frame("gate", index, 0, None, None, None, time_s, 1e9 + time_s, "arrival", 0.0, IMAGE.copy())


@given(
    steps=st.lists(st.floats(0.01, 2.0), min_size=1, max_size=40),
    fates=st.lists(st.sampled_from(["result", "newest wins", "older than max_age"]), min_size=40, max_size=40),
    breaks=st.sets(st.integers(0, 39)),
    in_flight=st.integers(1, 5),
    asked=st.sets(st.integers(0, 39)),
)
def test_frames_and_seconds_reconcile(
    steps: list[float], fates: list[str], breaks: set[int], in_flight: int, asked: set[int]
) -> None:
    """`breaks`: frames before which the producer tells of a gap. `in_flight`: how far it runs ahead of the results.
    `asked`: frames at which a stage asks what was lost before them."""
    ledger = CameraLedger("gate")
    times = np.cumsum(steps)
    made = [frame(index, float(time_s)) for index, time_s in enumerate(times)]
    gaps: list[Gap] = []
    told: list[Gap] = []
    last_result = -1
    for ahead in range(len(made) + in_flight):
        if ahead < len(made):
            if ahead in breaks and ahead > 0:
                start_s = float(times[ahead - 1])
                ledger.interrupted(start_s)
                told.append(Gap("gate", "stalled", start_s, float(times[ahead])))
            ledger.decoded(made[ahead])
        behind = ahead - in_flight
        if behind >= 0:
            if behind in asked:
                gaps += ledger.lost(last_result, behind)
                assert ledger.lost(last_result, behind) == []
            if fates[behind] == "result":
                gaps += ledger.settle(made[behind])
                last_result = behind
            else:
                ledger.drop(made[behind], fates[behind])
    gaps += ledger.finish()
    assert ledger.finish() == []

    results = [f for f, fate in zip(made, fates, strict=False) if fate == "result"]
    counts = ledger.counts
    assert counts.decoded == len(made) == len(results) + sum(counts.dropped.values())
    assert sum(gap.frames or 0 for gap in gaps) == sum(counts.dropped.values())
    for fate in ("newest wins", "older than max_age"):
        assert counts.dropped.get(fate, 0) == fates[: len(made)].count(fate)

    # An independent account of the seconds: each frame covers up to the next frame, or to the producer's gap.
    covers = [
        0.0 if index + 1 in breaks or index + 1 == len(made) else float(times[index + 1] - times[index])
        for index in range(len(made))
    ]
    seen_s = sum(covers[f.index] for f in results)
    assert sum(g.end_s - g.start_s for g in gaps + told) + seen_s == pytest.approx(float(times[-1] - times[0]))
    ordered = sorted(gaps + told, key=lambda gap: (gap.start_s, gap.end_s))
    for before, after in itertools.pairwise(ordered):
        assert before.end_s <= after.start_s + 1e-9, "gaps overlap"


def test_a_run_of_dropped_frames_is_one_gap_up_to_the_next_result() -> None:
    ledger = CameraLedger("gate")
    made = [frame(index, index * 0.1) for index in range(6)]
    for one in made:
        ledger.decoded(one)
    assert ledger.settle(made[0]) == []
    ledger.drop(made[1], "newest wins")
    ledger.drop(made[2], "older than max_age")
    (gap,) = ledger.settle(made[3])
    assert (gap.start_s, gap.end_s, gap.frames) == (pytest.approx(0.1), pytest.approx(0.3), 2)
    assert gap.detail == "newest wins, older than max_age"
    assert (gap.wall_start_s, gap.wall_end_s) == (1e9 + made[1].time_s, 1e9 + made[3].time_s)
    assert [g.detail for g in ledger.finish()] == [UNFINISHED]
    assert ledger.counts.dropped == {"newest wins": 1, "older than max_age": 1, UNFINISHED: 2}


def test_dropped_frames_take_no_memory_and_are_told_of_without_a_result() -> None:
    ledger = CameraLedger("gate")
    made = [frame(index, index * 0.1) for index in range(5002)]
    ledger.decoded(made[0])
    for one in made[1:-1]:
        ledger.decoded(one)
        ledger.drop(one, "older than max_age")
    assert len(ledger._spans) == 2
    ledger.decoded(made[-1])
    (gap,) = ledger.lost(0, 5001)
    assert (gap.start_s, gap.end_s, gap.frames) == (made[1].time_s, made[-1].time_s, 5000)
    assert ledger.settle(made[0]) == ledger.settle(made[-1]) == []
    assert ledger.counts.dropped == {"older than max_age": 5000}


def test_a_drop_told_after_its_successor_came_through_counts_once() -> None:
    """A channel calls back after it let go of its lock: the newer frame may be through by then."""
    ledger = CameraLedger("gate")
    made = [frame(index, index * 0.1) for index in range(2)]
    for one in made:
        ledger.decoded(one)
    (gap,) = ledger.settle(made[1])
    ledger.drop(made[0], "newest wins")
    assert gap.detail == "newest wins"
    assert ledger.counts.dropped == {"newest wins": 1}


@given(moves=st.lists(st.booleans(), max_size=60))
def test_with_a_latest_channel_every_frame_is_accounted(moves: list[bool]) -> None:
    """True: the producer puts a frame; False: the stage takes one and has a result."""
    ledger = CameraLedger("gate")
    channel: Channel[Frame] = Channel("frames:gate", 1, "latest", ledger.drop)
    results = 0
    for number, puts in enumerate(moves):
        if puts:
            made = frame(ledger.counts.decoded, number * 0.1)
            ledger.decoded(made)
            channel.put(made)
        elif (taken := channel.poll()) is not None:
            ledger.settle(taken)
            results += 1
    ledger.finish()
    counts = ledger.counts
    assert counts.decoded == results + sum(counts.dropped.values())


def test_corrupt_frames_are_decoded_frames_without_a_picture() -> None:
    ledger = CameraLedger("gate")
    ledger.decoded(frame(0, 0.0))
    ledger.corrupt(3)
    ledger.settle(frame(0, 0.0))
    assert (ledger.counts.decoded, ledger.counts.corrupt, ledger.counts.dropped) == (4, 3, {})
