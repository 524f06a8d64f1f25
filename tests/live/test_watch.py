"""The whole program on a camera that goes away and comes back: what the record and the recorded video say of it is true."""

from __future__ import annotations

import pytest

from tests.live import truth
from tests.live.rows import broken, table


@pytest.mark.rtsp
@pytest.mark.slow
def test_record_video_and_truth_agree_over_an_outage(outage: truth.Truth) -> None:
    found = outage
    rows = found.rows()
    print(table(rows))
    assert not broken(rows), table(broken(rows)) + found.verified.stdout
    assert found.code == 130
    frames, footer = found.of_type("frame"), found.lines[-1]
    assert len(frames) == footer["written"]
    assert footer["decoded"] == footer["written"] + sum(footer["dropped"].values()) + footer["corrupt"]
    assert len(found.off_s()) > 20
    numbers = [picture.number for picture in found.pictures]
    assert numbers == sorted(set(numbers)), "a picture twice or out of order"
    segments = {frame["segment"] for frame in frames}
    assert segments == set(range(len(segments)))
    assert len(segments) >= 2
    assert "disconnected" in {gap["cause"] for gap in found.of_type("gap")}
    for spelling in (truth.SECRET, "p%40ss", "w%25rd", "w%rd", "viewer"):
        assert spelling not in found.texts
