"""The chaos run in short: eight cameras, each fault of network and camera, everything that must hold."""

from __future__ import annotations

import pytest

from tests.live import chaos


@pytest.mark.rtsp
@pytest.mark.slow
def test_eight_cameras_in_hell(rtsp: None) -> None:
    report = chaos.run(40.0, seed=3)
    print(report.table())
    report.check(back_s=2 * chaos.BACK_S, stated_loss=0.1)  # other tests may run beside this one
    struck = {strike.fault for strike in report.strikes}
    assert len(struck) >= 12, struck
