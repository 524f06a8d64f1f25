"""Coverage from frames and gaps, against sums done the slow way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import make_result

from streampose.messages import Gap
from streampose.sinks.ledger import Ledger

SPANS = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 40)), max_size=30)


@given(SPANS)
def test_overlapping_gaps_count_once(spans: list[tuple[int, int]]) -> None:
    ledger = Ledger()
    ledger.add_frame(make_result(0, 0.0).frame)
    for start, length in spans:
        ledger.add_gap(Gap("a", "dropped", start / 4, (start + length) / 4))
    ledger.add_frame(make_result(1, 500.0).frame)
    missed = {quarter for start, length in spans for quarter in range(start, start + length)}
    assert ledger.watched_s == 500
    assert ledger.missed_s == pytest.approx(len(missed) / 4)
    assert ledger.coverage == pytest.approx(1 - len(missed) / 2000)
    runs, longest = 0, 0
    for quarter in range(450):
        runs = runs + 1 if quarter in missed else 0
        longest = max(longest, runs)
    assert ledger.longest_s == pytest.approx(longest / 4)


def test_a_watch_of_weeks_keeps_little_and_forgets_nothing() -> None:
    ledger = Ledger()
    for second in range(50_000):
        ledger.add_gap(Gap("a", "dropped", second, second + 0.25))
    ledger.add_gap(Gap("a", "stalled", 50_000, 50_010))
    ledger.add_frame(make_result(0, 100_000.0).frame)
    assert len(ledger._spans) < 3000
    assert ledger.missed_s == pytest.approx(12_510)
    assert ledger.gaps == 50_001
    assert ledger.longest_s == 10


def test_in_words() -> None:
    ledger = Ledger()
    ledger.add_frame(make_result(0, 0.0).frame)
    ledger.add_frame(make_result(1, 1000.0).frame)
    assert str(ledger) == "coverage 100.0 %, no gaps"
    ledger.add_gap(Gap("a", "stalled", 10, 10.1))
    assert str(ledger) == "coverage 99.9 %, 1 gap, longest 0.1 s", "a watch with a gap is not complete"
    ledger.add_gap(Gap("a", "stalled", 20, 24.1))
    ledger.add_gap(Gap("a", "disconnected", 40, 43.8))
    assert str(ledger) == "coverage 99.2 %, 3 gaps, longest 4.1 s"


def test_a_gap_is_seen_in_the_coverage_however_short_it_is() -> None:
    ledger = Ledger()
    ledger.add_frame(make_result(0, 0.0).frame)
    ledger.add_frame(make_result(1, 7 * 86400.0).frame)
    assert ledger.summary()["coverage"] == 1.0
    ledger.add_gap(Gap("a", "dropped", 1000.0, 1000.2))
    assert ledger.summary()["coverage"] == 0.999999
    ledger.add_gap(Gap("a", "stalled", 1000.2, 1002.0))
    assert ledger.summary()["coverage"] == 0.999996, "rounded down"


def test_nothing_watched_is_nothing_covered() -> None:
    assert Ledger().coverage == 0
    assert Ledger().watched_s == 0
