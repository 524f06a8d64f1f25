"""Warm-up for a new picture size: in the camera's own thread, once for all cameras of that size, before its first frame."""

from __future__ import annotations

import threading
import time

import pytest

from streampose.errors import ModelError
from streampose.messages import Break, Control, Frame
from streampose.pipeline.channel import Channel
from streampose.pipeline.ledger import CameraLedger
from streampose.pipeline.produce import ProduceOptions, Producer
from streampose.pipeline.warm import WarmUp
from streampose.pipeline.workers import WorkerGroup
from tests.pipeline.scripted import FAST, ScriptedSource, frames, picture, produce


class Network:
    """Remembers the sizes it was made ready for; `slow` is waited for with one of them."""

    def __init__(self, slow_size: tuple[int, int] | None = None) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.slow_size = slow_size
        self.slow = threading.Event()
        self.waiting = threading.Event()

    def is_warm(self, width: int, height: int) -> bool:
        return (width, height) in self.sizes

    def warm_up(self, width: int, height: int) -> None:
        if (width, height) == self.slow_size:
            self.waiting.set()
            assert self.slow.wait(10)
        self.sizes.append((width, height))


def test_every_size_is_made_ready_once_before_its_break() -> None:
    network, other = Network(), Network()
    warm_up = WarmUp([network, other])
    order: list[str] = []

    def prepare(width: int, height: int) -> None:
        warm_up(width, height)
        order.append(f"{width}x{height}")

    script = [3, picture(3, (32, 24)), picture(4, (32, 24)), picture(5), 60.0]
    said, _, _ = produce(lambda: ScriptedSource(script), FAST, prepare=prepare, until=lambda s: len(frames(s)) >= 6)
    assert network.sizes == other.sizes == [(16, 12), (32, 24)]
    assert order == ["16x12", "32x24", "16x12"]
    assert len([m for m in said if isinstance(m, Break)]) == 3


def test_other_cameras_go_on_while_one_waits_for_its_network() -> None:
    network = Network(slow_size=(32, 24))
    warm_up = WarmUp([network])
    warm_up(16, 12)
    with WorkerGroup() as group:
        outs: dict[str, Channel[Frame | Control]] = {}
        producers = []
        for name, size in (("old", (16, 12)), ("new", (32, 24))):
            ledger = CameraLedger(name)
            outs[name] = Channel(f"frames:{name}", 4, "latest", ledger.drop)
            group.adopt(outs[name])
            script = [item for n in range(400) for item in (picture(n, size), 0.01)]
            options = ProduceOptions(FAST, None, warm_up)
            producer = Producer(name, lambda script=script: ScriptedSource(script), outs[name], ledger, group, options)  # type: ignore[misc]
            producers.append(producer)
            group.start(f"produce:{name}", producer.run)
        assert network.waiting.wait(5)
        seen = 0
        until_s = time.monotonic() + 10
        while seen < 20 and time.monotonic() < until_s:
            seen += isinstance(outs["old"].get(5.0), Frame)
        assert seen == 20, "the camera of a known size is held up"
        held = []
        while (item := outs["new"].poll()) is not None:
            held.append(item)
        assert not any(isinstance(item, Frame | Break) for item in held), "a frame before its network is ready"
        network.slow.set()
        while not isinstance(outs["new"].get(5.0), Frame):
            pass
        for producer in producers:
            producer.stop()


def test_cameras_of_one_size_wait_for_one_compilation() -> None:
    network = Network(slow_size=(32, 24))
    warm_up = WarmUp([network])
    threads = [threading.Thread(target=warm_up, args=(32, 24)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert network.waiting.wait(5)
    network.slow.set()
    for thread in threads:
        thread.join(5)
    assert network.sizes == [(32, 24)]


def test_a_size_that_was_let_go_of_is_made_ready_again_before_its_break() -> None:
    """A detector keeps those used last; the shared stage would compile it, and hold up all."""
    network = Network()
    warm_up = WarmUp([network])
    warm_up(32, 24)
    network.sizes.clear()
    warm_up(32, 24)
    assert network.sizes == [(32, 24)]


def test_what_cannot_be_compiled_is_left_to_the_stage_which_ends_the_run(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def is_warm(self, width: int, height: int) -> bool:
            return False

        def warm_up(self, width: int, height: int) -> None:
            raise ModelError("OpenVINO cannot compile the network")

    WarmUp([Broken()])(16, 12)
    assert not caplog.records or all(record.levelname == "DEBUG" for record in caplog.records)
