"""Results made of numbers, for the tests of sinks and exports."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from streampose.messages import Frame, Person, PoseResult, SourceInfo, TrackState

# A standing figure in a unit box: the 17 points of COCO, facing the camera.
FIGURE = np.array(
    [
        [0.50, 0.08], [0.53, 0.06], [0.47, 0.06], [0.57, 0.08], [0.43, 0.08], [0.65, 0.20], [0.35, 0.20], [0.75, 0.36],
        [0.25, 0.36], [0.80, 0.50], [0.15, 0.50], [0.60, 0.52], [0.40, 0.52], [0.62, 0.74], [0.38, 0.74], [0.64, 0.95],
        [0.36, 0.95],
    ],
    np.float32,
)  # fmt: skip


def make_person(
    id: int = 1,  # noqa: A002
    box: Sequence[float] = (10, 10, 60, 130),
    state: TrackState = "confirmed",
    scores: float | Sequence[float] = 0.9,
    raw: bool = True,
) -> Person:
    corner = np.asarray(box, np.float32)
    points = corner[:2] + FIGURE * (corner[2:] - corner[:2])
    keypoints = np.concatenate([points, np.full((17, 1), 0.0, np.float32)], axis=1).astype(np.float32)
    keypoints[:, 2] = scores
    measured = ("measured" if raw else "coasted",) * 17
    std = np.full(17, 1.234567, np.float32)
    return Person(
        id,
        state,
        0.91,
        corner,
        keypoints,
        keypoints + np.array([0.5, -0.5, 0.0], np.float32) if raw else None,
        std,
        measured,
    )  # type: ignore[arg-type]


def make_result(
    index: int = 0,
    time_s: float | None = None,
    people: Sequence[Person] = (),
    *,
    size: tuple[int, int] = (160, 120),
    segment: int = 0,
    wall_s: float | None = None,
    file: str | None = None,
    image: np.ndarray | None = None,
    camera: str = "gate",
) -> PoseResult:
    time_s = index / 25 if time_s is None else time_s
    if image is None:
        image = np.full((size[1], size[0], 3), 30 + index % 200, np.uint8)
    pts = round(time_s * 90000)
    frame = Frame(
        camera, index, segment, pts, Fraction(1, 90000), time_s, time_s, wall_s, "rtcp" if wall_s is not None else "none",
        0.0, image, 0.02 if wall_s is not None else None, None, file,
    )  # fmt: skip
    return PoseResult(frame, tuple(people))


def make_info(size: tuple[int, int] = (160, 120), **changes: object) -> SourceInfo:
    known = {"url": "samples/cctv.mp4", "kind": "video", "live": False, "nominal_fps": 25.0, "codec": "h264"}
    return SourceInfo(**{**known, "width": size[0], "height": size[1], **changes})  # type: ignore[arg-type]
