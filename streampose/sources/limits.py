"""How long a connection may take to open, and how long a read of it, told to PyAV call by call.

PyAV's limits are exact, but fixed numbers; what is fair changes while a connection lasts. So they are objects here that know
it when they are asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

OPEN_TIMEOUT_S = 10.0  # the longest that connecting may take in all, unless another is asked for
READ_TIMEOUT_S = 2.5  # and the longest silence of the network
SEGMENT_S = 30.0  # between two segments of HLS or DASH comes nothing: so long may the next be awaited
AT_HAND_S = 0.2  # what the analysis kept is given at once, in any case within this
INSTANT_S = 0.02  # what took no longer was not waited for
AWAKE_S = 1.0  # after a doubtful silence a camera that sends much is heard within this, or it is gone


class OpenLimit:
    """What is left of `limit_s` seconds: PyAV turns a limit into a number as each of its two calls begins, so that
    connecting and, for at most `analysis_s`, analysing share this one. `analysed_since_s`: when the second began
    (monotonic)."""

    def __init__(self, limit_s: float, analysis_s: float) -> None:
        self._until_s = time.monotonic() + limit_s
        self._analysis_s = analysis_s
        self.analysed_since_s = math.inf
        self.connecting = False

    def __float__(self) -> float:
        now_s = time.monotonic()
        left_s = max(self._until_s - now_s, 0.0)
        self.connecting = not self.connecting
        if self.connecting:
            return left_s
        self.analysed_since_s = now_s
        return min(left_s, self._analysis_s)

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._until_s


@dataclass(slots=True)
class ReadLimit:
    """How long a read may take; PyAV asks for it as `demux` begins. `silence_s` is libav's own limit of each wait for the
    network. A read is complete only when the next picture begins, so where pictures are far apart, or may be (`slow`), it
    may take two of them. Where nothing may have been heard since `silent_since_s` (monotonic), `short_s` is the limit."""

    silence_s: float
    slow: bool = True
    silent_since_s: float | None = None
    short_s: float = math.inf

    def __float__(self) -> float:
        return float(min(2 * self.silence_s if self.slow else self.silence_s, self.short_s))

    def doubt(self, since_s: float) -> None:
        """Nothing may have been heard since then: for now only what is at hand is read."""
        self.silent_since_s, self.short_s = since_s, AT_HAND_S

    def note(self, began_s: float, step_s: float | None) -> bool:
        """A read that began at `began_s` gave a packet whose stamp is `step_s` from the one before (None: not known);
        whether the limit is another one now.

        A silence that was too long ends twice in libav: its parser first gives the picture that it held back, and only the
        next read is the error, after as long again.
        """
        before_s, took_s = float(self), time.monotonic() - began_s
        self.slow = step_s is None or step_s > self.silence_s / 3.0  # two steps and what they are late by
        if self.silent_since_s is not None and took_s < INSTANT_S and (step_s is None or not self.slow):
            self.short_s = (
                math.inf if self.slow else AWAKE_S
            )  # it was at hand; one that is not slow is heard soon behind it
        elif self.silent_since_s is None and took_s >= self.silence_s and not self.slow:
            self.doubt(began_s)
        else:
            self.silent_since_s, self.short_s = None, math.inf
        return float(self) != before_s


def silent_since_s(container: InputContainer) -> float | None:
    """Since when (monotonic) the connection has been silent if no packet is at hand; None where it was heard lately."""
    limit: object = container.read_timeout
    return limit.silent_since_s if isinstance(limit, ReadLimit) else None


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The packets of `stream`; raises what `container.demux` raises."""
    limit: object = container.read_timeout
    packets = _demux(container, stream)
    if not isinstance(limit, ReadLimit):  # a file
        yield from packets
        return
    last_pts: int | None = None
    while True:
        began_s = time.monotonic()
        packet = next(packets, None)
        if packet is None:
            return
        if packet.size == 0 and packet.pts is None:  # libav's mark of the end tells nothing of what comes
            yield packet
            continue
        step_s = None
        if packet.pts is not None and last_pts is not None and packet.time_base is not None:
            step_s = abs(float((packet.pts - last_pts) * packet.time_base))
        last_pts = packet.pts
        if limit.note(began_s, step_s):
            packets.close()  # before the next one asks for its limit: it takes the old one away
            packets = _demux(container, stream)
        yield packet


def _demux(container: InputContainer, stream: VideoStream) -> Generator[Packet[VideoStream], None, None]:
    return cast("Generator[Packet[VideoStream], None, None]", container.demux(stream))
