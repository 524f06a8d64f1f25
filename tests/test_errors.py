"""What errors of other libraries are said as, inside a line."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.errors import words_of


def test_the_system_s_words_come_before_the_error_s_own() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        os.stat("/nowhere/at/all")
    assert words_of(caught.value) == "No such file or directory"


def test_an_error_without_words_is_its_name() -> None:
    assert words_of(EOFError()) == "EOFError"
    assert words_of(OSError("\n")) == "OSError"


def test_openvino_s_own_place_is_left_out() -> None:
    said = "Exception from src/inference/core.cpp:94:\nCheck 'file' failed\nmore\n"
    assert words_of(RuntimeError(said)) == "Check 'file' failed"
    place = "Check 'a' failed at src/x.cpp:151:"
    assert words_of(RuntimeError(f"{place}\nFrontEnd API failed with GeneralFailure:\nreason\n")) == "reason"
    assert words_of(RuntimeError(place)) == place


def test_another_library_s_error_keeps_its_reason() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{,}")
    assert words_of(caught.value).startswith("Expecting property name")


@given(st.text(), st.integers(1, 200))
def test_it_is_a_part_of_one_line(text: str, most: int) -> None:
    said = words_of(ValueError(text), most)
    assert said
    assert len(said) <= most
    assert len(said.splitlines()) == 1
