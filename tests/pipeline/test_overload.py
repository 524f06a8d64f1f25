"""The latency contract under overload: what `tests/live/overload.py` measures, held."""

from __future__ import annotations

import pytest

from tests.live import overload
from tests.live.rows import broken, table


@pytest.mark.slow
def test_networks_five_times_slower_keep_the_contract_and_say_how() -> None:
    report = overload.run(20.0)
    rows = report.rows()
    print(table(rows))
    assert not broken(rows), table(broken(rows))
    changes = report.changes
    assert [change.step for change in changes[:2]] == [1, 2]
    assert changes[0].what == "detect on every 2nd frame"
    assert all(change.reason and change.time_s is not None for change in changes)
    assert (changes[0].time_s or 0.0) > 1.0, "degraded before there was a reason"
    assert sum(at_s > overload.JUDGED_FROM_S for at_s, _ in report.ages) > 10
