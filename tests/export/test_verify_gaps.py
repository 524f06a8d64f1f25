"""`streampose verify`: what lies between frames is told by gaps, and times are those of the stamps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import make_info, make_result

from streampose.export.verify import verify_folder
from streampose.messages import Break, Counts, End, Frame, Gap, PoseResult
from streampose.pipeline.ledger import CameraLedger
from streampose.pipeline.produce import HOLE_S, HOLE_STEPS
from streampose.sinks.jsonl import JsonlSink
from streampose.sources.clock import SourceClock
from tests.export.conftest import HEADER
from tests.export.tampering import edit
from tests.pipeline.scripted import ScriptedSource, frames, gaps, picture, produce


def test_a_frame_exactly_between_two_gaps_lies_in_neither(tmp_path: Path) -> None:
    path = tmp_path / "gate.jsonl"
    sink = JsonlSink(path, "gate", HEADER)
    sink.write(Break("gate", 0, make_info(live=True)))
    for time_s, gap in ((0.0, (0.0, 1.5)), (1.5, (1.5, 3.0)), (3.0, None)):
        sink.write(make_result(int(time_s / 1.5), time_s))
        if gap is not None:
            sink.write(Gap("gate", "stalled", *gap))
    sink.write(End("gate", Counts(decoded=3)))
    assert verify_folder(tmp_path).disagreements == ()
    edit(path, lambda records: next(record for record in records if record["type"] == "gap").update(end=1.6))
    lines = verify_folder(tmp_path).disagreements
    assert "gate: frame 1 at 1.500 s lies in the gap 0.000 to 3.000 s" in lines


def test_a_damaged_frame_between_two_that_follow_closely_is_told_by_a_gap_without_length(tmp_path: Path) -> None:
    """A decoder that holds pictures back finds the damage before it gives those in front of it."""
    path = tmp_path / "gate.jsonl"
    sink = JsonlSink(path, "gate", HEADER)
    sink.write(Break("gate", 0, make_info()))
    for index in (0, 1, 3, 4, 6):
        if index == 3:
            sink.write(Gap("gate", "corrupt", 0.08, 0.08, 1))
        if index == 6:
            sink.write(Gap("gate", "corrupt", 0.16, 0.2, 1))
        sink.write(make_result(index, {3: 0.08, 4: 0.12, 6: 0.2}.get(index, index / 25)))
    sink.write(End("gate", Counts(decoded=7, corrupt=2)))
    assert verify_folder(tmp_path).disagreements == ()
    edit(path, lambda records: records.remove(next(record for record in records if record["type"] == "gap")))
    lines = verify_folder(tmp_path).disagreements
    assert "gate: 1 frames between 0.040 and 0.080 s are in neither the frames nor the gaps" in lines


@pytest.mark.parametrize(
    ("missing", "live", "gap"),
    [
        (True, True, (0.4, 0.5)),
        (True, True, (2.0, 4.0)),
        (True, True, (0.7, 4.0)),
        (True, True, (0.4, 3.9)),
        (True, False, (0.4, 0.5)),
        (True, False, (2.0, 3.9)),
        (False, True, (0.4, 0.7)),
        (False, True, (2.0, 36.0)),
    ],
)
def test_a_gap_that_covers_a_part_alone_leaves_the_rest_untold(
    missing: bool, live: bool, gap: tuple[float, float], tmp_path: Path
) -> None:
    """Frames 10 to 99 are missing, or the camera was silent; each of 4 seconds or 40."""
    path = tmp_path / "gate.jsonl"
    end_s = 4.0 if missing else 40.0
    for number, told in enumerate([(0.4, end_s), gap]):
        sink = JsonlSink(path, "gate", HEADER)
        sink.write(Break("gate", 0, make_info(live=live)))
        for index in range(10):
            sink.write(make_result(index, index / 25))
        sink.write(Gap("gate", "dropped" if missing else "stalled", *told, frames=90 if missing else None))
        for index in range(10):
            sink.write(make_result(index + (100 if missing else 10), end_s + index / 25))
        sink.write(End("gate", Counts(decoded=110, dropped={"newest wins": 90}) if missing else Counts(decoded=20)))
        sink.close()
        lines = verify_folder(tmp_path).disagreements
        assert len(lines) == number, lines
        assert all("s are in neither the frames nor the gaps" in line for line in lines)


STUTTER_S = HOLE_S - 0.01


@pytest.mark.parametrize(
    ("steps_s", "dropped", "live"),
    [
        ([0.04] * 99 + [STUTTER_S] + [0.04] * 400, range(100, 102), True),
        ([0.04] * 99 + [STUTTER_S] + [0.04] * 400, [i for i in range(100, 500) if i % 3], True),
        ([0.2] * 99 + [HOLE_STEPS * 0.2 - 0.01] + [0.2] * 400, range(100, 101), True),
        ([1.9] + [0.04] * 500, range(1, 3), True),
        ([1.9] + [0.04] * 9 + [0.9] + [0.04] * 500, [1, 2, 3, 11], True),
        ([0.04] * 9 + [60.0] + [0.04] * 50, range(10, 11), False),
    ],
)
def test_a_picture_that_is_dropped_after_a_stutter_is_no_disagreement(
    steps_s: list[float], dropped: Sequence[int], live: bool, tmp_path: Path
) -> None:
    """A step that the producer takes for no hole has no gap: up to its limits, the first one, and all of a recording."""
    sink, ledger = JsonlSink(tmp_path / "gate.jsonl", "gate", HEADER), CameraLedger("gate")
    sink.write(Break("gate", 0, make_info(live=live)))
    results = [make_result(index, float(time_s)) for index, time_s in enumerate(np.cumsum([0.0, *steps_s]))]
    for result in results:
        ledger.decoded(result.frame)
    for result in results:
        if result.frame.index in dropped:
            ledger.drop(result.frame)
            continue
        for gap in ledger.settle(result.frame):
            sink.write(gap)
        sink.write(result)
    for gap in ledger.finish():
        sink.write(gap)
    sink.write(End("gate", ledger.counts))
    sink.close()
    assert verify_folder(tmp_path).disagreements == ()


@pytest.mark.parametrize("before", [1, 5, 9, 10, 30])
def test_a_hole_that_the_producer_knows_or_cannot_know_yet_is_no_disagreement(before: int, tmp_path: Path) -> None:
    """`before` pictures, 1.2 s without any, and the first behind them is dropped for a newer one."""
    steps = [before, *(picture(before + 60 + k) for k in range(50)), 60.0]
    said, _, _ = produce(lambda: ScriptedSource(steps), until=lambda said: len(frames(said)) == before + 50)
    ledger = CameraLedger("gate")
    for message in said:
        if isinstance(message, Frame):
            ledger.decoded(message)
        elif isinstance(message, Gap):
            ledger.interrupted(message.start_s, message.wall_start_s)
    sink = JsonlSink(tmp_path / "gate.jsonl", "gate", HEADER)
    for message in said:
        if isinstance(message, Frame) and message.index == before:
            ledger.drop(message)
        elif isinstance(message, Frame):
            for gap in ledger.settle(message):
                sink.write(gap)
            sink.write(PoseResult(message, ()))
        elif isinstance(message, End):
            for gap in ledger.finish():
                sink.write(gap)
            sink.write(replace(message, counts=ledger.counts))
        else:
            sink.write(message)
    sink.close()
    assert verify_folder(tmp_path).disagreements == ()
    holes = [gap for gap in gaps(said) if gap.detail.startswith("no picture for 1.2")]
    assert len(holes) == (before > 9)


@pytest.mark.parametrize(("before", "sure"), [(8, False), (9, True)])
def test_a_hole_that_must_be_known_is_a_disagreement_where_no_gap_tells_it(
    before: int, sure: bool, tmp_path: Path
) -> None:
    sink = JsonlSink(tmp_path / "gate.jsonl", "gate", HEADER)
    sink.write(Break("gate", 0, make_info(live=True)))
    for index in range(before + 1):
        sink.write(make_result(index, index / 25))
    begins_s = before / 25 + 1.2
    sink.write(Gap("gate", "dropped", begins_s, begins_s + 0.04, frames=1))
    for index in range(60):
        sink.write(make_result(before + 2 + index, begins_s + 0.04 + index / 25))
    sink.write(End("gate", Counts(decoded=before + 62, dropped={"newest wins": 1})))
    sink.close()
    assert len(verify_folder(tmp_path).disagreements) == sure


def test_times_that_are_not_those_of_the_stamps(recorded: Callable[..., Path]) -> None:
    folder = recorded()

    def change(records: list[dict[str, Any]]) -> None:
        for record in records[20:30]:
            record["pts"] += 90000

    edit(folder / "gate.jsonl", change)
    (line,) = verify_folder(folder).disagreements
    assert (
        line == "gate: segment 0: the times of 10 of 70 frames are not those of their stamps, first frame 18 at 0.720 s"
    )


def test_a_stamp_alone_may_be_another_one(recorded: Callable[..., Path]) -> None:
    """The clock bridges the first picture of a source whose clock was set: it could be a single absurd stamp."""
    folder = recorded()

    def change(records: list[dict[str, Any]]) -> None:
        frames = [record for record in records if record["type"] == "frame"]
        [record for record in frames if record["segment"] == 0][-1]["pts"] += 10**9

    edit(folder / "gate.jsonl", change)
    assert verify_folder(folder).disagreements == ()


def test_a_stamp_that_is_repeated_tells_no_time(recorded: Callable[..., Path]) -> None:
    folder = recorded()

    def change(records: list[dict[str, Any]]) -> None:
        for record in records[20:24]:
            record["pts"] = records[19]["pts"]

    edit(folder / "gate.jsonl", change)
    assert verify_folder(folder).disagreements == ()


def test_a_counter_that_wrapped_is_no_disagreement(recorded: Callable[..., Path]) -> None:
    folder = recorded()

    def change(records: list[dict[str, Any]]) -> None:
        for record in records:
            if record["type"] == "frame":
                record["pts"] = (record["pts"] + 2**33 - 30000) % 2**33

    edit(folder / "gate.jsonl", change)
    assert verify_folder(folder).disagreements == ()


RISING = [3600 * index for index in range(300)]
STUTTERS = {
    "set back": RISING[:150] + [pts - 30_000 for pts in RISING[150:]],
    "set back twice": RISING[:80] + [p - 30_000 for p in RISING[80:200]] + [p - 60_000 for p in RISING[200:]],
    "set back behind a wrap": [(pts + 2**32 - 360_000) % 2**32 - 30_000 * (pts >= 540_000) for pts in RISING],
    "stood still": RISING[:150] + [RISING[149]] * 5 + RISING[150:],
    "were caught up with": RISING[:150] + [RISING[149]] * 2 + RISING[150:],
}


def write_stamped(folder: Path, stamps: Sequence[int], live: bool, rate: int, dropped: Collection[int] = ()) -> Path:
    """A record whose times a source's clock made of `stamps`, which count 3600 from picture to picture, `rate` a second."""
    clock, time_base = SourceClock(live=live, nominal_step_s=1 / rate), Fraction(1, 3600 * rate)
    sink, ledger = JsonlSink(folder / "gate.jsonl", "gate", HEADER), CameraLedger("gate")
    sink.write(Break("gate", 0, make_info(live=live)))
    for index, pts in enumerate(stamps):
        ahead = None if live or index + 1 == len(stamps) else stamps[index + 1]
        stamp = clock.stamp(pts, time_base, 100 + index / rate, 1.8e9 + index / rate, ahead)
        assert not stamp.jump
        frame = replace(make_result(index, stamp.time_s).frame, pts=pts, time_base=time_base)
        ledger.decoded(frame)
        if index in dropped:
            ledger.drop(frame)
            continue
        for gap in ledger.settle(frame):
            sink.write(gap)
        sink.write(PoseResult(frame, ()))
    sink.write(End("gate", ledger.counts))
    sink.close()
    return folder / "gate.jsonl"


@pytest.mark.parametrize("dropped", [(), range(145, 160)])
@pytest.mark.parametrize("rate", [25, 10])
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("stamps", STUTTERS.values(), ids=STUTTERS)
def test_stamps_that_stutter_and_are_bridged_are_no_disagreement(
    stamps: list[int], live: bool, rate: int, dropped: Collection[int], tmp_path: Path
) -> None:
    write_stamped(tmp_path, stamps, live, rate, dropped)
    assert verify_folder(tmp_path).disagreements == ()


@pytest.mark.parametrize(
    ("first", "last", "by_s"),
    [
        (20, 40, 0.3),
        (200, 220, 0.3),
        (200, 300, 0.3),
        (100, 300, 0.3),
        (150, 300, -0.5),
        (0, 150, 0.5),
        (150, 170, 0.7),
    ],
)
@pytest.mark.parametrize("live", [False, True])
def test_times_that_are_false_before_or_behind_a_stutter(
    live: bool, first: int, last: int, by_s: float, tmp_path: Path
) -> None:
    """`by_s` too late from frame `first` to `last`; the stamps were set back by a third of a second at frame 150."""

    def change(records: list[dict[str, Any]]) -> None:
        for record in [record for record in records if record["type"] == "frame"][first:last]:
            record["time"] += by_s

    edit(write_stamped(tmp_path, STUTTERS["set back"], live, 25), change)
    lines = verify_folder(tmp_path).disagreements
    assert any("are not those of their stamps" in line for line in lines), lines
