"""What a sink is: it takes the results and the control messages of one camera, in order, and makes something of them."""

from __future__ import annotations

from typing import Protocol

from streampose.messages import Control, PoseResult


class Sink(Protocol):
    """The end of the pipe for one camera, owned by one thread.

    `Break` comes before the first result of every segment and brings the `SourceInfo`; `End` comes last. `close` finishes
    what was made (playable video, whole lines) and may be called twice, also after an error. `outputs` names the files
    made so far. Raises SinkError where the output cannot be written.
    """

    name: str

    def write(self, message: PoseResult | Control) -> None: ...

    def close(self) -> None: ...

    def outputs(self) -> tuple[str, ...]: ...
