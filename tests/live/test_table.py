"""The one command that prints the table of live claims: a short run of it, and the arithmetic of its rows."""

from __future__ import annotations

import random
from concurrent.futures import Future

import pytest

from tests.live import fuzz, overload, table, truth
from tests.live.rows import Row, broken, slope
from tests.live.rows import table as written


def test_a_slope_is_told_from_noise() -> None:
    draw = random.Random(4)
    flat = [(t, 100.0 + draw.gauss(0, 1.0)) for t in range(200)]
    rise, half = slope(flat)
    assert abs(rise) < half
    leaking = [(t, value + 0.05 * t) for t, value in flat]
    rise, half = slope(leaking)
    assert rise == pytest.approx(0.05, abs=0.01)
    assert rise - half > 0


def test_what_did_not_hold_is_written_and_ends_in_an_error() -> None:
    rows = [Row("a", "b", "c", "held"), Row("longer", "x", "y", "BROKEN"), Row("d", "e", "f", "not judged")]
    lines = written(rows).splitlines()
    assert lines[0].split() == ["what", "aim", "measured", "verdict"]
    assert lines[3].split() == ["longer", "x", "y", "BROKEN"]
    assert broken(rows) == [rows[1]]


def test_a_part_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the account does not close")

    monkeypatch.setattr(table, "parts", lambda seconds, seed, busy: {"chaos": fail})
    assert [row.verdict for row in table.run(1.0, 1)] == ["BROKEN"]


@pytest.mark.rtsp
@pytest.mark.slow
def test_a_short_run_prints_every_row(
    rtsp: None,
    overloaded: Future[overload.Overload],
    outage: truth.Truth,
    lies: fuzz.Fuzz,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chaos is tried here, and a damaged recording of each kind; what the other parts bring was run once, for the tests of
    their own and for this."""
    damage = fuzz.run
    monkeypatch.setattr(overload, "run", lambda seconds: overloaded.result())
    monkeypatch.setattr(truth, "run", lambda folder, frames: outage)
    monkeypatch.setattr(
        fuzz, "run", lambda what, **how: lies if what == "rtsp" else damage(what, cases=len(fuzz.FILES), **how)
    )
    said: list[str] = []
    rows = table.run(30.0, 3, said.append, busy=True)
    text = written(rows)
    print(text)
    for what in ("chaos", "memory", "overload", "bar codes", "streampose verify", "fuzz, files", "fuzz, rtsp"):
        assert any(row.what.startswith(what) for row in rows), what
    assert len(said) == 4
    assert not broken(rows), text
    assert sum(row.verdict == "not judged" for row in rows) == 1, "only the memory of a short run is not judged"
