"""The smoothing benchmark: what the documentation claims of it holds, and the table says what was measured."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from streampose.bench import smoothing
from streampose.bench.smoothing import Spoil
from streampose.cli.bench import app
from streampose.errors import SinkError
from streampose.sources.synthetic import PatternOptions, SyntheticSource


@pytest.mark.parametrize("fps", smoothing.RATES)
def test_filtered_is_better_than_raw_and_hindsight_better_still(fps: int) -> None:
    raw, live, offline = smoothing.measure(fps, seconds=8.0)
    assert offline.error_px < live.error_px < raw.error_px
    assert offline.acceleration_px < live.acceleration_px < raw.acceleration_px
    assert live.lag_ms < 20
    assert abs(offline.lag_ms) < 5
    assert raw.gap_error_px is None
    assert live.gap_error_px is not None
    assert offline.gap_error_px is not None
    assert offline.gap_error_px < live.gap_error_px


def test_the_measure_knows_what_is_perfect() -> None:
    """Without noise raw is the truth: no error, no lag."""
    nothing = Spoil(noise=0.0, outliers=0.0, hidden_per_s=0.0, absent_per_s=0.0, box_noise=0.0)
    raw, _, offline = smoothing.measure(30, spoil=nothing, seconds=4.0)
    assert raw.error_px == pytest.approx(0.0, abs=1e-6)
    assert raw.acceleration_px == pytest.approx(0.0, abs=1e-6)
    assert raw.lag_ms == pytest.approx(0.0, abs=1e-6)
    assert offline.error_percent < 1.0


def test_only_what_was_hidden_is_a_gap() -> None:
    """Noise without limit where the joints were seen is no error in gaps."""
    times_s = np.arange(60) / 10
    source = SyntheticSource(PatternOptions(fps=Fraction(10), seconds=6.0, people=1, seed=7))
    life = smoothing._Life(source, 0, times_s, np.random.default_rng(1), Spoil(hidden_per_s=0.5))
    gap = life.hidden | life.absent[:, None]
    points = life.truth + np.where(gap[..., None], (3.0, 4.0), 1000.0)
    assert life.row("live", points).gap_error_px == pytest.approx(5.0)


def test_the_table_and_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoothing, "RATES", (8,))
    monkeypatch.setattr(smoothing, "SECONDS", 4.0)
    path = tmp_path / "deep" / "smoothing.json"
    done = CliRunner().invoke(app, ["smoothing", "--json", str(path)])
    assert done.exit_code == 0
    text = done.output.strip()
    rows = json.loads(path.read_text())["rows"]
    assert [row["method"] for row in rows] == ["raw", "live", "offline"]
    assert len(text.splitlines()) == 2 + len(rows)
    assert f"{rows[1]['error_px']:.2f}" in text.splitlines()[3]
    in_vain = CliRunner().invoke(app, ["smoothing", "--json", str(path / "below.json")])
    assert in_vain.output.strip() == text, "what was measured is shown, whatever becomes of the file"
    assert isinstance(in_vain.exception, SinkError)
    assert "below.json: cannot be written (" in str(in_vain.exception)
