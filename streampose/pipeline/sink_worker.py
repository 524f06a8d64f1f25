"""Runs one sink of one camera in its thread; a sink that fails ends alone and is reported."""

from __future__ import annotations

import logging
import time

from streampose.errors import SinkError, StreamposeError
from streampose.messages import PoseResult
from streampose.pipeline.channel import Channel, ChannelClosed
from streampose.pipeline.lane import Result
from streampose.pipeline.meter import Meter
from streampose.sinks.base import Sink

log = logging.getLogger(__name__)


class SinkWorker:
    """The body of thread `record:gate`. `error` holds what ended it early; `age` how old results were when written; `ended`
    whether its files are closed."""

    def __init__(self, camera: str, sink: Sink, inbox: Channel[Result]) -> None:
        self.camera = camera
        self.sink = sink
        self.inbox = inbox
        self.age = Meter()
        self.error: Exception | None = None
        self.ended = False
        self._lost = 0

    def run(self) -> None:
        try:
            self._drain()
        except Exception as error:  # noqa: BLE001  (a worker boundary: one sink ends, the others go on)
            self._fail(error)
        finally:
            self.inbox.abort(self._lost)
            try:
                self.sink.close()
            except Exception as error:  # noqa: BLE001  (as above)
                self._fail(error)
            self.ended = True

    def _fail(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
            log.error(
                "%s of %s ended: %s",
                self.sink.name,
                self.camera,
                error,
                exc_info=not isinstance(error, StreamposeError),
            )

    def _drain(self) -> None:
        while True:
            try:
                message = self.inbox.get()
            except ChannelClosed:
                return
            try:
                self.sink.write(message)
            except Exception as error:
                self._lost = isinstance(message, PoseResult) + (error.lost if isinstance(error, SinkError) else 0)
                raise
            if isinstance(message, PoseResult):
                frame = message.frame
                self.age.add(time.monotonic() - (frame.arrival_s if frame.captured_s is None else frame.captured_s))
