"""Damaged recordings through the source: pictures, counts and clean errors, nothing else, in bounded time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streampose.sources.libav import VideoOptions
from tests.live import fuzz
from tests.live.rows import broken, table
from tests.media import cut

CASES = 360  # forty of each kind


@pytest.mark.slow
def test_damaged_bytes_are_counted_or_refused() -> None:
    report = fuzz.run("files", seconds=60.0, cases=CASES)
    assert not broken(report.rows()), table(report.rows())
    assert set(report.went) <= {"read to its end", "PermanentSourceError: codec"}, report.went
    assert report.cases == CASES
    assert set(report.kinds) == set(fuzz.FILES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return fuzz.write_files(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("name", fuzz.FILES)
def test_a_file_cut_anywhere_is_read_or_refused(whole: dict[str, Path], tmp_path: Path, name: str) -> None:
    for share in np.linspace(0.02, 0.98, 12):
        went = fuzz.outcome(str(cut(whole[name], float(share), tmp_path / name)), VideoOptions())
        assert went in ("read to its end", "PermanentSourceError: codec")
