"""What a source is: it opens, gives frames once, and closes. It never retries; the Keeper does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from streampose.errors import PermanentSourceError, TransientSourceError
from streampose.messages import Frame, Image, SourceInfo, WallSource

if TYPE_CHECKING:
    from streampose.sources.decoder import PacketTap
    from streampose.sources.libav import VideoOptions


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One decoded picture as the source gives it, before camera, index and segment are known.

    `pts` in units of `time_base` seconds, None where the source gives none. `time_s` is the source's own clock since its
    first picture, monotone within one run. `wall_s`, `wall_source`, `wall_uncertainty_s`, `arrival_s`, `file` as in
    `messages.Frame`; `captured_s` likewise (None where the source cannot know). `image` (H, W, 3) BGR uint8. `jump`
    says why the source's clock or format broke before this picture (empty: it did not), and begins a new segment.
    """

    image: Image
    pts: int | None
    time_base: Fraction | None
    time_s: float
    wall_s: float | None
    wall_source: WallSource
    arrival_s: float
    wall_uncertainty_s: float | None = None
    file: str | None = None
    jump: str = ""
    captured_s: float | None = None

    def to_frame(self, camera: str, index: int, segment: int, time_s: float) -> Frame:
        """The picture as frame `index` of `camera`, in its `segment`, at `time_s` of the camera's clock."""
        return Frame(
            camera=camera,
            index=index,
            segment=segment,
            pts=self.pts,
            time_base=self.time_base,
            pts_s=None if self.pts is None or self.time_base is None else float(self.pts * self.time_base),
            time_s=time_s,
            wall_s=self.wall_s,
            wall_source=self.wall_source,
            arrival_s=self.arrival_s,
            image=self.image,
            wall_uncertainty_s=self.wall_uncertainty_s,
            captured_s=self.captured_s,
            file=self.file,
        )


@dataclass(frozen=True, slots=True)
class Corrupt:
    """A frame or file that could not be decoded, at `time_s` (or about there); `what` names it in one line.

    `until_s`: where the recording would have ended, for what is missing at its end.
    """

    what: str
    time_s: float
    frames: int = 1
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A whole packet of a live source of which key frames alone are decoded: no picture, but a sign of life."""


SourceItem: TypeAlias = Picture | Corrupt | PassedOver


class Source(Protocol):
    """One run over a camera, a recording or a folder.

    The errors it raises carry a `kind` (`errors.FailureKind`): a keeper may, say, try "auth" again a few times although
    the error is permanent, because a camera that boots refuses what it will accept a minute later.

    `open` connects and says what is there; with `live_only` a recording raises TransientSourceError before any of it is
    handed on, to a tap or to anyone. `frames` yields until the end, or raises TransientSourceError or
    PermanentSourceError; it looks at `stopped()` between blocking calls, each of which has its own limit. `close` may be
    called in every state and twice. All three are called from one thread.
    """

    def open(self, live_only: bool = False) -> SourceInfo: ...

    def frames(self, stopped: Callable[[], bool]) -> Iterator[SourceItem]: ...

    def close(self) -> None: ...


MakeSource: TypeAlias = Callable[[str, "VideoOptions", "PacketTap | None", "Collection[str] | None"], Source]


@dataclass(frozen=True, slots=True)
class SourceKind:
    """A kind of source, listed in `registry.SOURCES`: which addresses are its own, and what is known before it is opened.

    Addresses are what `open.address_of` gives. `takes` tells whether one is of this kind, asked in the order of the list;
    it raises PermanentSourceError for one that nothing here reads. `live` tells whether pictures come whether or not
    anybody is ready, as far as the address tells; `unsure`: only the answer tells for sure, and its first picture may be
    long in coming. `make` gives the source, not yet opened; options that it has no use for it ignores, and they are those
    of `open.open_source`. `schemes` are those of its URLs. `on_disk`: files and folders. `stills`: its pictures have
    nothing to do with each other. `no_packets` is why there is no stream that could be recorded as it comes.
    """

    takes: Callable[[str], bool]
    make: MakeSource
    live: Callable[[str], bool]
    schemes: frozenset[str] = frozenset()
    unsure: bool = False
    on_disk: bool = False
    stills: bool = False
    no_packets: str = ""


def check_live(info: SourceInfo, live_only: bool) -> None:
    """Raise TransientSourceError where only what is live is wanted and this is a recording."""
    if live_only and not info.live:
        raise TransientSourceError("sends a recording now; asked again until it is live", "other")


def check_there(path: Path) -> None:
    """Raise PermanentSourceError where there is no file or folder at `path`, or one above it may not be entered."""
    try:
        path.stat()
    except PermissionError:
        raise PermanentSourceError(f"{path} may not be read; check its permissions", kind="auth") from None
    except (OSError, ValueError):  # ValueError: no name of a file, such as one with a zero byte
        raise PermanentSourceError(f"{path} does not exist; check the path", kind="not_found") from None
