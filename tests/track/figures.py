"""People for the tracker's tests: stick poses in boxes, walking straight lines, and a driver that plays them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from streampose.messages import Person
from streampose.pose.skeleton import load_skeleton
from streampose.track.options import SmoothOptions, TrackOptions
from streampose.track.tracker import CameraTracker

COCO = load_skeleton("coco17")
SIGMAS = COCO.sigmas
WIDTH, HEIGHT = 1280, 720
# x and y of the 17 joints in parts of the box
STANCE = np.array(
    [
        (0.5, 0.07), (0.56, 0.05), (0.44, 0.05), (0.62, 0.07), (0.38, 0.07), (0.75, 0.2), (0.25, 0.2), (0.85, 0.36),
        (0.15, 0.36), (0.88, 0.5), (0.12, 0.5), (0.65, 0.52), (0.35, 0.52), (0.66, 0.74), (0.34, 0.74), (0.67, 0.96),
        (0.33, 0.96),
    ]
)  # fmt: skip


def box(x: float, y: float, height: float = 200.0) -> np.ndarray:
    """A standing person's box about the centre (x, y)."""
    return np.array([x - 0.2 * height, y - height / 2, x + 0.2 * height, y + height / 2], np.float32)


def pose(of: np.ndarray, score: float = 0.9, lean: float = 0.0) -> np.ndarray:
    """Key points (17, 3) in a box (4,); `lean` shears the body by so many box widths from feet to head."""
    points = of[:2] + STANCE * (of[2:] - of[:2])
    points[:, 0] += lean * (1 - STANCE[:, 1]) * (of[2] - of[0])
    return np.concatenate((points, np.full((17, 1), score)), axis=1).astype(np.float32)


def make(**options: object) -> CameraTracker:
    """A tracker with these of the track options."""
    return CameraTracker(SIGMAS, TrackOptions(**options), SmoothOptions(), COCO.body)  # type: ignore[arg-type]


def step(
    tracker: CameraTracker,
    time_s: float,
    boxes: Sequence[np.ndarray] | None,
    scores: Sequence[float] | None = None,
    look: Callable[[np.ndarray], np.ndarray] = pose,
) -> tuple[Person, ...]:
    """One frame: `look` says what the pose network answers for a box; None for `boxes`: detection was not due."""
    found = None if boxes is None else np.array(boxes, np.float32).reshape(-1, 4)
    sure = None if found is None else np.array(scores if scores is not None else [0.85] * len(found), np.float32)
    proposal = tracker.propose(time_s, found, sure, WIDTH, HEIGHT)
    return tracker.update(proposal, np.array([look(b) for b in proposal.boxes], np.float32).reshape(-1, 17, 3))


def nobody(of: np.ndarray) -> np.ndarray:
    """What a network says of a box with nobody in it: points of no score."""
    return pose(of, score=0.03)


def seeing(people: Iterable[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A pose network that finds the nearest of `people`'s boxes, and nobody where none is near."""
    there = list(people)

    def look(of: np.ndarray) -> np.ndarray:
        away = [float(np.abs((b[:2] + b[2:]) / 2 - (of[:2] + of[2:]) / 2).max()) for b in there]
        best = int(np.argmin(away)) if away else -1
        return pose(there[best]) if best >= 0 and away[best] < 60 else nobody(of)

    return look
