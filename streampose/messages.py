"""What flows through the pipeline: frozen messages, each made by one stage and changed by none.

A frame goes one way: a producer makes a `Frame`, the detect stage adds `Detections`, the pose stage turns them into
one `PoseResult`. Beside the frames, in the same order, travel the words of the source: `CameraState`, `Gap`, `Break`
and, exactly once and last, `End`.

Conventions, everywhere: image coordinates are pixels, (x, y), x right and y down, the centre of the top-left pixel is
(0, 0). Boxes are `xyxy` float32. `time_s` is monotone per camera and the only time that filters may use.
Letters: N people, K key points, H and W the height and width of an image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Image: TypeAlias = npt.NDArray[np.uint8]
Array: TypeAlias = npt.NDArray[np.float32]
WallSource: TypeAlias = Literal["rtcp", "container", "arrival", "none"]
TrackState: TypeAlias = Literal["tentative", "confirmed", "coasting"]
JointState: TypeAlias = Literal["measured", "coasted", "rejected"]
SourceState: TypeAlias = Literal[
    "connecting", "live", "stalled", "reconnecting", "paused", "ended", "failed",
    "frozen", "dark", "bright", "covered", "defocused", "moved", "no_signal", "seeing",
]  # fmt: skip
GapCause: TypeAlias = Literal["disconnected", "stalled", "dropped", "corrupt", "paused", "unwritten"]


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a source says of itself once it is open.

    `url` is free of credentials, `kind` the name of its kind in the registry. `nominal_fps` and `duration_s` are None where
    the source does not know.
    `frame_count` is the container's promise, for progress bars only. `live` decides the default policy. `segmented`:
    pictures come by the segment (HLS, DASH), and nothing between two. `clockless`: the stream carries no times (MJPEG over
    HTTP, bare H.264), so that those of its pictures are when they came.
    """

    url: str
    kind: str
    live: bool
    width: int
    height: int
    nominal_fps: float | None = None
    codec: str | None = None
    duration_s: float | None = None
    frame_count: int | None = None
    segmented: bool = False
    clockless: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded picture with its times.

    `index` counts the frames of the camera from 0, those too that cannot be decoded, and never restarts; `segment` grows at
    every break (reconnect, resolution or codec change, clock jump). `pts` in `time_base` is what the source said, None where
    it said nothing;
    `pts_s` the same in seconds. `time_s` starts near 0 and is monotone over all segments of the camera.
    `wall_s` is the capture time in seconds since the Unix epoch (UTC), None with `wall_source` "none";
    `wall_uncertainty_s` its one-sigma uncertainty. `arrival_s` is `time.monotonic()` when the frame was decoded: ages
    are measured from `captured_s`, `arrival_s` less what the frame came later than the least delayed ones of its time;
    the camera's own clock has no part in it. `image` is (H, W, 3) BGR uint8 and read-only. `file` names the picture
    where the source is a folder of pictures.
    """

    camera: str
    index: int
    segment: int
    pts: int | None
    time_base: Fraction | None
    pts_s: float | None
    time_s: float
    wall_s: float | None
    wall_source: WallSource
    arrival_s: float
    image: Image
    wall_uncertainty_s: float | None = None
    captured_s: float | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, 3) uint8, got {self.image.shape} {self.image.dtype}")
        self.image.flags.writeable = False

    @property
    def width(self) -> int:
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        return int(self.image.shape[0])


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The people found in one frame: `boxes` (N, 4) float32 xyxy pixels and `scores` (N,) float32 in 0..1.

    Both are None where detection was not due on this frame.
    """

    frame: Frame
    boxes: Array | None
    scores: Array | None


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One person in one frame.

    `id` is a label unique per camera and never reused. `score` in 0..1. `box` (4,) xyxy is the tracked person box.
    `keypoints` (K, 3) x, y, score are filtered; `raw` (K, 3) is what the network said in this frame, None where it was
    not asked. `std` (K,) is the filter's standard deviation of each point's position in pixels (per axis), infinite where
    the point was never measured.
    `joint_state` has K words: measured (this frame's measurement was used), coasted (none was), rejected (gated out).
    """

    id: int
    state: TrackState
    score: float
    box: Array
    keypoints: Array
    raw: Array | None
    std: Array
    joint_state: tuple[JointState, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PoseResult:
    """The last word on one frame: who is in it. One for every frame that came through."""

    frame: Frame
    people: tuple[Person, ...] = ()
    detected: bool = True


@dataclass(frozen=True, slots=True)
class CameraState:
    """The source, or what it sees, changed its state, at `time_s` of the camera and `wall_s` UTC, for `reason`."""

    camera: str
    state: SourceState
    reason: str = ""
    time_s: float | None = None
    wall_s: float | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Camera time from `start_s` to `end_s` (seconds of `time_s`) that was not analysed, and why; `unwritten`: it was, but
    the sink that is told so took nothing.

    `frames` counts the frames known to be lost in it, None where nobody can know. `wall_start_s` and `wall_end_s` are
    the same instants in UTC where they are known.
    """

    camera: str
    cause: GapCause
    start_s: float
    end_s: float
    frames: int | None = None
    wall_start_s: float | None = None
    wall_end_s: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Missed:
    """Another sink of the camera, `sink` by name, took nothing: what it made lacks the results of `gap`."""

    sink: str
    gap: Gap

    @property
    def camera(self) -> str:
        """The camera's name, as in every other word."""
        return self.gap.camera


@dataclass(frozen=True, slots=True)
class Break:
    """A new segment begins with the next frame: filters reset, files roll, ids go on counting."""

    camera: str
    segment: int
    info: SourceInfo
    reason: str = "start"


@dataclass(frozen=True, slots=True)
class Degrade:
    """The load governor changed how much work a frame gets; `step` is the rung of its ladder, 0 is full work."""

    camera: str
    step: int
    what: str
    reason: str
    time_s: float | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The last message of a camera. `error` is the one line of what went wrong, None after a regular end."""

    camera: str
    counts: Counts
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Frames of one camera: decoded = written + dropped (by cause) + corrupt, once everything has ended."""

    decoded: int = 0
    corrupt: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


Control: TypeAlias = CameraState | Gap | Missed | Break | Degrade | End
"""Messages that no policy may drop and that keep their order among the frames."""
