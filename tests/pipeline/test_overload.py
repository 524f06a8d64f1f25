"""The latency contract under overload: what `tests/live/overload.py` measures, held.

That the age stays below the contract is shown without a clock in test_governor.py, and measured by `make live`; here, on a
machine that does other things too, it is bounded by three of it: results that queue are older from one to the next.
"""

from __future__ import annotations

import pytest

from tests.live import overload
from tests.live.rows import broken, table


@pytest.mark.slow
def test_networks_five_times_slower_keep_the_contract_and_say_how() -> None:
    report = overload.run(overload.LEAST_S)
    age, *others = report.rows()
    print(table([age, *others]))
    assert not broken(others), table(broken(others))
    assert report.p95_s() < 3 * overload.MAX_AGE_S, age
    changes = report.changes
    assert [change.step for change in changes[:2]] == [1, 2]
    assert changes[0].what == "detect on every 2nd frame"
    assert all(change.reason and change.time_s is not None for change in changes)
