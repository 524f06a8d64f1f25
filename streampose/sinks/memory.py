"""A sink that keeps what it gets, for the Python API and for tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from streampose.messages import Control, End, Gap, PoseResult


@dataclass(slots=True)
class MemorySink:
    """Keeps every message in order; `results`, `gaps` and `end` pick among them. For recordings, not for a watch."""

    messages: list[PoseResult | Control] = field(default_factory=list)
    closed: bool = False
    name: str = "memory"
    newest_only: bool = False

    def write(self, message: PoseResult | Control) -> None:
        self.messages.append(message)

    def close(self) -> None:
        self.closed = True

    def outputs(self) -> tuple[str, ...]:
        return ()

    @property
    def results(self) -> list[PoseResult]:
        return [message for message in self.messages if isinstance(message, PoseResult)]

    @property
    def gaps(self) -> list[Gap]:
        return [message for message in self.messages if isinstance(message, Gap)]

    @property
    def end(self) -> End | None:
        return next((message for message in self.messages if isinstance(message, End)), None)
