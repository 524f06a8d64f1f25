"""Quantiles in constant memory, against NumPy's exact ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.pipeline.meter import Meter


def test_an_empty_meter_says_so() -> None:
    assert Meter().quantile(0.5) is None
    assert Meter().summary_ms() == {}


@given(st.lists(st.floats(2e-4, 3000), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_quantiles_are_right_to_a_bucket(values: list[float], q: float) -> None:
    meter = Meter()
    for value in values:
        meter.add(value)
    exact = float(np.quantile(values, q, method="inverted_cdf"))
    assert meter.quantile(q) == pytest.approx(exact, rel=0.07)
    assert meter.total_s == pytest.approx(sum(values))


def test_what_is_out_of_range_is_counted_at_the_edge() -> None:
    meter = Meter()
    meter.add(0.0)
    meter.add(1e9)
    assert meter.count == 2
    assert meter.quantile(0.1) == pytest.approx(1e-4, rel=0.1)
