"""Cameras, a network, and what is tried once for several tests; skipped, with the reason, where no RTSP server is."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import pytest

from tests.live import fuzz, overload, truth
from tests.live.camera import CameraProcess, missing
from tests.live.proxy import Network
from tests.live.rig import Rig

MOSTLY_WAIT = ("overloaded", "far_apart")
LIES = 1000


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


@pytest.fixture(scope="session", autouse=True)
def _wait_meanwhile(request: pytest.FixtureRequest) -> None:
    """Begin what mostly waits with the first test of this folder, where some test will ask for it."""
    if missing():
        return
    for name in MOSTLY_WAIT:
        if any(name in getattr(item, "fixturenames", ()) for item in request.session.items):
            request.getfixturevalue(name)


@pytest.fixture(scope="session")
def overloaded() -> Iterator[Future[overload.Overload]]:
    """What networks that are too slow bring about; in a process of its own, since others run meanwhile."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        yield process.submit(overload.run, overload.LEAST_S)


@pytest.fixture(scope="session")
def far_apart(rtsp: None) -> Iterator[Rig]:
    """Two cameras whose pictures are two and three and a half seconds apart, being watched: `slow`, whatever it says, and
    `keys`, of which only the key frames are wanted. Whoever looks at them ends it."""
    slow = {"mount": "/slow", "fps": 0.5, "announced": 25, "gop": 1}
    with CameraProcess(slow, {"mount": "/keys", "fps": 10, "gop": 35}) as process, Rig() as rig:
        rig.watch("slow", f"rtsp://127.0.0.1:{process.port}/slow")
        rig.watch("keys", f"rtsp://127.0.0.1:{process.port}/keys", config={"skip": "nonkey"})
        yield rig


@pytest.fixture(scope="session")
def outage(rtsp: None, tmp_path_factory: pytest.TempPathFactory) -> truth.Truth:
    """The whole program over an outage of its camera."""
    return truth.run(tmp_path_factory.mktemp("outage"))


@pytest.fixture(scope="session")
def lies() -> fuzz.Fuzz:
    """What became of a thousand lying cameras."""
    return fuzz.run("rtsp", seconds=60.0, cases=LIES)
