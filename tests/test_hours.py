"""Hours of the day: windows, also over midnight, and what is no window."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.hours import Hours

MIDNIGHT = datetime(2026, 11, 25)


def at(minutes: int) -> datetime:
    return MIDNIGHT + timedelta(minutes=minutes)


def written(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


@given(st.integers(0, 1439), st.integers(1, 1439))
def test_a_window_holds_the_minutes_from_its_start_to_its_end(start: int, length: int) -> None:
    hours = Hours.parse([f"{written(start)}-{written((start + length) % 1440)}"])
    inside = {(start + minute) % 1440 for minute in range(length)}
    assert {minute for minute in range(1440) if hours.open_at(at(minute))} == inside


def test_windows_add_up_and_the_next_one_is_known() -> None:
    hours = Hours.parse(["06:00-08:30", "20:00-24:00"])
    assert [hours.open_at(at(60 * hour)) for hour in (5, 6, 8, 9, 20, 23, 0)] == [
        False,
        True,
        True,
        False,
        True,
        True,
        False,
    ]
    assert hours.open_at(datetime(2026, 11, 25, 8, 29, 59))
    assert not hours.open_at(datetime(2026, 11, 25, 8, 30))
    assert hours.opens_after(at(9 * 60)) == "20:00"
    assert hours.opens_after(at(1)) == "06:00"
    assert hours.opens_after(at(23 * 60)) == "06:00"


@pytest.mark.parametrize("text", ["", "6-22", "06:00-25:00", "24:00-06:00", "06:60-07:00", "06:00-06:00", "at night"])
def test_what_is_no_window_is_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        Hours.parse([text])


def test_no_window_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="leave the key out"):
        Hours.parse([])
