"""Replay: every frame of the second reading has its result of the first, or is told of."""

from __future__ import annotations

import pytest

from streampose.messages import Counts, Gap, PoseResult
from streampose.pipeline.replay import UNKNOWN, Replay
from streampose.pipeline.workers import WorkerGroup
from tests.pipeline.test_stages import feed, make_frame, make_lane


def test_a_frame_without_a_result_is_a_gap_and_the_later_ones_are_written(caplog: pytest.LogCaptureFixture) -> None:
    """Of seven frames the first reading knew five, and was interrupted before the last."""
    lane, sink, worker = make_lane("a")
    known = (0, 1, 3, 4, 5)
    stopped: list[bool] = []
    replay = Replay(lane, dict.fromkeys(known, ()), dict.fromkeys(known, True), lambda: stopped.append(True))
    with WorkerGroup() as group:
        group.start("memory:a", worker.run)
        group.start("replay:a", replay.run)
        feed(lane, [make_frame("a", n) for n in range(7)])
    assert [result.frame.index for result in sink.results] == list(known)
    (gap,) = sink.gaps
    assert gap == Gap("a", "dropped", 0.2, 0.3, 1, detail=UNKNOWN)
    order = [m.frame.index if isinstance(m, PoseResult) else type(m).__name__ for m in sink.messages]
    assert order == ["Break", 0, 1, "Gap", 3, 4, 5, "End"]
    assert sink.end is not None
    assert sink.end.counts == Counts(6, 0, {UNKNOWN: 1})
    assert stopped == [True]
    assert [r.getMessage() for r in caplog.records] == [f"a: 1 frames had {UNKNOWN}; the record says where"]
