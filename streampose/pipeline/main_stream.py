"""The main stream of a camera, kept running only so that its packets are recorded, while a sub-stream is analysed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from streampose.messages import CameraState, Control, End, Frame, SourceState
from streampose.pipeline.channel import Channel
from streampose.pipeline.ledger import CameraLedger
from streampose.pipeline.produce import ProduceOptions, Producer
from streampose.pipeline.workers import WorkerGroup
from streampose.sources.base import Source

if TYPE_CHECKING:
    from streampose.pipeline.run import Tap


class MainStream:
    """A producer of its own, with its own reconnects; its pictures (key frames only) go nowhere, its packets to `tap`.

    `state` is the last one it was in while it was to run; `error` is what ended it, None otherwise.
    """

    def __init__(
        self,
        camera: str,
        make_source: Callable[[], Source],
        tap: Tap,
        group: WorkerGroup,
        options: ProduceOptions,
    ) -> None:
        self.name = f"{camera}.main"
        self.tap = tap
        self.state: SourceState = "connecting"
        self.error: str | None = None
        self._frames: Channel[Frame | Control] = Channel(f"frames:{self.name}", 1, "latest")
        self._ledger = CameraLedger(self.name)
        self.producer = Producer(self.name, make_source, self._frames, self._ledger, group, options)

    def start(self, group: WorkerGroup) -> None:
        group.adopt(self._frames)
        group.start(f"drain:{self.name}", self._drain)
        group.start(f"produce:{self.name}", self.producer.run)

    def _drain(self) -> None:
        """The body of thread `drain:gate.main`: lets the pictures go and keeps in what state the stream is."""
        while True:
            item = self._frames.get()
            if isinstance(item, Frame):
                self._ledger.settle(item)
            elif isinstance(item, CameraState):
                if item.state != "ended":
                    self.state = item.state
            elif isinstance(item, End):
                self.error = item.error
