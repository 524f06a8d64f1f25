"""The measure of decoding: what each way of skipping leaves, and that its figures are figures."""

from __future__ import annotations

import pytest

from tests.live import decode


@pytest.mark.slow
def test_what_is_skipped_is_skipped_and_every_way_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(decode.SIZES, "small", (320, 180, 200_000))
    frames = 60
    costs = decode.run(frames, 3, ["small"])
    given = {(c.b_frames, c.skip, c.threads, c.cameras): c.decoded for c in costs}
    assert (
        given[0, "none", 1, 1] == given[0, "none", 0, 1] == given[2, "none", 1, 1] == given[0, "none", 1, 3] == frames
    )
    assert given[0, "nonkey", 1, 1] == given[2, "nonkey", 1, 1] == 2, "a key frame every two seconds, of four"
    assert 2 < given[2, "nonref", 1, 1] < frames
    assert all(c.cpu_ms > 0 for c in costs)
    lines = decode.table(costs).splitlines()
    assert len(lines) == len(decode.WAYS) + 2
    assert "cameras a core" in lines[0]
