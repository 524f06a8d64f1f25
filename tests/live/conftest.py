"""A camera and a network for each test; skipped, with the reason, where no RTSP server can be had."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.camera import CameraProcess, missing
from tests.live.proxy import Network


@pytest.fixture(scope="session")
def rtsp() -> None:
    if why := missing():
        pytest.skip(why)


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as net:
        yield net


@pytest.fixture(scope="module")
def cameras(rtsp: None) -> Iterator[CameraProcess]:
    """One process with a camera of each kind, undisturbed: what disturbs is between it and the client."""
    with CameraProcess(
        {"mount": "/h264", "fps": 10},
        {"mount": "/h265", "codec": "h265", "fps": 10},
        {"mount": "/mjpeg", "codec": "mjpeg", "fps": 10},
        {"mount": "/reordered", "bframes": 2, "fps": 10},
    ) as process:
        yield process
