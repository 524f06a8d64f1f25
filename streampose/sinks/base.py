"""What a sink is: it takes the results and the control messages of one camera, in order, and makes something of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, TypeAlias

from pydantic import Field

from streampose.errors import ConfigError
from streampose.messages import Control, PoseResult
from streampose.section import Section
from streampose.sinks.paths import check_template

if TYPE_CHECKING:
    from streampose.sinks.display import Display
    from streampose.sinks.draw import DrawSkeleton
    from streampose.sinks.paths import Names
    from streampose.sinks.retention import Retention, Rules

Background: TypeAlias = Annotated[
    Literal["image", "blur", "black"],
    Field(description="what people are drawn on; black: their skeletons, and nothing else"),
]


class Sink(Protocol):
    """The end of the pipe for one camera, owned by one thread.

    `Break` comes before the first result of every segment and brings the `SourceInfo`; `End` comes last. `close` finishes
    what was made (playable video, whole lines) and may be called twice, also after an error. `outputs` names the files
    made so far. `newest_only`: results that it had no time for may be left out. Raises SinkError where the output cannot be
    written.
    """

    name: str

    @property
    def newest_only(self) -> bool: ...

    def write(self, message: PoseResult | Control) -> None: ...

    def close(self) -> None: ...

    def outputs(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Given:
    """What a sink is given beside its options: its camera, the names of the run's files, the files that are read, and how
    long its files are (None: they do not roll). `retention` is that of a template; `header` and `extra` are what the caller
    knows for the first and the last line of a record; `display` is the window, where there is one."""

    camera: str
    skeleton: Callable[[], DrawSkeleton]
    names: Names
    sources: Sequence[Path]
    segment_s: float | None
    retention: Callable[[str], Retention | None]
    header: Callable[[], Mapping[str, Any]]
    extra: Callable[[], Mapping[str, Any]]
    display: Display | None


class SinkConfig(Section):
    """The section of a sink in a configuration, listed in `registry.SINKS`: its options, what it writes of each camera, and
    how it is made. What a sink does not say is as here: it writes no file, and needs nothing.

    `follows`: its files roll as those of another sink do, where it does not say.
    """

    follows: ClassVar[bool] = False

    def template(self) -> str | None:
        """Its path, a template (`sinks/paths.py`)."""
        return None

    def files(self) -> list[str]:
        """The templates of the files that it writes."""
        return []

    def folder(self) -> str | None:
        """The folder, which may hold {camera}, in which every picture gets one of its name (`pictures.annotated_name`)."""
        return None

    def segment_s(self) -> float | None:
        """How long its files are, as it says itself, in seconds; None where they do not roll."""
        return None

    def rules(self) -> Rules | None:
        """What is kept of its files that roll; None for all."""
        return None

    def tap(self) -> str | None:
        """The template for the packets of the source's own stream, where it records them."""
        return None

    def window(self, skeleton: Callable[[], DrawSkeleton]) -> Display | None:
        """The window that it shows all cameras in, where it has one and there is a display."""
        return None

    def check(self, name: str, *, rolls: bool) -> None:
        """See that it can do what is asked of it; `name` is that of the sink, `rolls` whether its files do. Raises
        ConfigError."""
        template = self.template()
        if template is None:
            return
        try:
            check_template(template)
        except ConfigError as error:
            raise ConfigError(f"sinks: {name}.path: {error}") from None
        if not rolls and ("{date}" in template or "{time}" in template):
            raise ConfigError(
                f"sinks: {name}.path: {template}: {{date}} and {{time}} are those of files that roll; "
                "give a `segment`, such as 10m, or leave them out"
            )

    @abstractmethod
    def sink(self, given: Given) -> Sink | None:
        """The sink of one camera; None where there is none to make, such as a window without a display."""
