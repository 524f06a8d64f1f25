"""How good is the smoothing: error, jitter and lag of raw, live-filtered and offline key points against known truth.

The figures of the synthetic source walk, cross and wave; their key points are spoilt as a pose network spoils them: noise
by score and size, scores that wander, outliers, joints hidden for a while, and moments in which nobody is seen at all.
Each figure has a tracker of its own, so that what is measured is smoothing and not identity.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.messages import Person
from streampose.pose.skeleton import load_skeleton
from streampose.sources.figures import figure_box
from streampose.sources.synthetic import PatternOptions, SyntheticSource
from streampose.track.offline import Moment, smooth_recording
from streampose.track.options import SmoothOptions, TrackOptions
from streampose.track.smoother import joint_spread
from streampose.track.tracker import CameraTracker

Floats = npt.NDArray[np.float64]
RATES = (8, 15, 30)
PEOPLE = 4
SECONDS = 20.0
INSTANT_S = 1e-3


@dataclass(frozen=True, slots=True)
class Spoil:
    """What is done to the truth. `noise` in body heights at score 1; rates of hiding and of absence per second."""

    noise: float = 0.012
    outliers: float = 0.02
    outlier_size: float = 0.25
    hidden_per_s: float = 0.15
    hidden_s: float = 0.4
    absent_per_s: float = 0.05
    absent_s: float = 0.5
    box_noise: float = 0.02


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: errors in pixels and in parts of the body height, acceleration error in px per frame²."""

    fps: int
    method: str
    error_px: float
    error_percent: float
    acceleration_px: float
    lag_ms: float
    gap_error_px: float | None


def record(rows: list[Row]) -> dict[str, Any]:
    """The rows for JSON, with what they were measured on."""
    return {"people": PEOPLE, "seconds": SECONDS, "spoil": asdict(Spoil()), "rows": [asdict(row) for row in rows]}


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| fps | key points | error, px | % of height | acceleration error, px/frame² | lag, ms | error in gaps, px |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        gaps = "none given" if row.gap_error_px is None else f"{row.gap_error_px:.2f}"
        lines.append(
            f"| {row.fps} | {row.method} | {row.error_px:.2f} | {row.error_percent:.2f} "
            f"| {row.acceleration_px:.2f} | {round(row.lag_ms)} | {gaps} |"
        )
    return "\n".join(lines)


def measure(
    fps: int,
    smooth: SmoothOptions | None = None,
    spoil: Spoil | None = None,
    seed: int = 7,
    seconds: float | None = None,
) -> list[Row]:
    """The three rows of one frame rate: raw, live, offline."""
    smooth, spoil, seconds = smooth or SmoothOptions(), spoil or Spoil(), seconds or SECONDS
    source = SyntheticSource(PatternOptions(fps=Fraction(fps), seconds=seconds, people=PEOPLE, seed=seed))
    times_s = np.arange(round(seconds * fps)) / fps
    errors: dict[str, list[Row]] = {"raw": [], "live": [], "offline": []}
    for figure in range(PEOPLE):
        rng = np.random.default_rng([seed, figure])
        life = _Life(source, figure, times_s, rng, spoil)
        live = life.track(smooth)
        offline = smooth_recording(live, smooth, load_skeleton("coco17").sigmas)
        errors["raw"].append(life.row("raw", life.raw_points()))
        errors["live"].append(life.row("live", life.points(live)))
        errors["offline"].append(life.row("offline", life.points(offline)))
    return [_mean(rows) for rows in errors.values()]


class _Life:
    """One figure's truth and spoilt measurements over `times_s` (T,)."""

    def __init__(
        self, source: SyntheticSource, figure: int, times_s: Floats, rng: np.random.Generator, spoil: Spoil
    ) -> None:
        self._picture, self.times_s = (source.options.width, source.options.height), times_s
        self.fps = 1 / float(times_s[1] - times_s[0])
        one = source.figures[figure]
        poses = np.array([one.pose(time_s) for time_s in times_s.tolist()], np.float64)
        ahead = np.array([one.pose(time_s + INSTANT_S) for time_s in times_s.tolist()], np.float64)
        self.boxes = np.array([figure_box(pose, one.height_px) for pose in poses], np.float64)
        self.height = float(np.median(self.boxes[:, 3] - self.boxes[:, 1]))
        self.truth = poses[..., :2]
        self._velocity = (ahead - poses)[..., :2] / INSTANT_S
        self._rng, self._spoil = rng, spoil
        self._spoil_all()

    def _spoil_all(self) -> None:
        rng, spoil = self._rng, self._spoil
        count, joints = self.truth.shape[:2]
        wander = _wander(rng, (count, joints), self.fps, 0.5)
        score = 0.25 + 0.7 / (1 + np.exp(-1.5 * wander - 1.0))
        std = spoil.noise * self.height * joint_spread(load_skeleton("coco17").sigmas) / score
        points = self.truth + rng.normal(size=self.truth.shape) * std[..., None]
        angle = rng.uniform(0, 2 * np.pi, (count, joints))
        throw = spoil.outlier_size * self.height * rng.uniform(0.5, 1.5, (count, joints))
        outlier = rng.random((count, joints)) < spoil.outliers
        points += (outlier * throw)[..., None] * np.stack((np.cos(angle), np.sin(angle)), axis=-1)
        hidden = _spells(rng, (count, joints), self.fps, spoil.hidden_per_s, spoil.hidden_s)
        points += (hidden * throw)[..., None] * rng.normal(size=points.shape)
        score = np.where(hidden, rng.uniform(0.0, 0.09, score.shape), score)
        self.raw = np.concatenate((points, score[..., None]), axis=2)
        self.hidden = hidden
        self.absent = _spells(rng, (count, 1), self.fps, spoil.absent_per_s, spoil.absent_s)[:, 0]
        self.absent[: round(self.fps)] = False

    def track(self, smooth: SmoothOptions) -> list[Moment]:
        """What the tracker makes of it."""
        tracker = CameraTracker(load_skeleton("coco17").sigmas, TrackOptions(), smooth)
        width, height = self._picture
        moments: list[Moment] = []
        for t, time_s in enumerate(self.times_s.tolist()):
            spoilt = self.boxes[t] + self._rng.normal(size=4) * self._spoil.box_noise * self.height
            boxes = spoilt[None].astype(np.float32)[: 0 if self.absent[t] else 1]
            proposal = tracker.propose(time_s, boxes, np.full(len(boxes), 0.85, np.float32), width, height)
            raw = self.raw[t].copy()
            raw[:, 2] *= not self.absent[t]
            keypoints = np.repeat(raw[None], len(proposal.boxes), axis=0).astype(np.float32)
            moments.append((t, time_s, tracker.update(proposal, keypoints)))
        return moments

    def raw_points(self) -> Floats:
        """(T, K, 2) as measured, NaN where nothing was."""
        given = ~(self.hidden | self.absent[:, None])
        return np.where(given[..., None], self.raw[..., :2], np.nan)

    def points(self, moments: list[Moment]) -> Floats:
        """(T, K, 2) as the tracker has them, NaN where there is no person."""
        result = np.full_like(self.truth, np.nan)
        for t, _, people in moments:
            best = max(people, key=_standing, default=None)
            if best is not None:
                result[t] = best.keypoints[:, :2]
        return result

    def row(self, method: str, points: Floats) -> Row:
        gap = self.hidden | self.absent[:, None]
        settled = np.arange(len(gap))[:, None] >= round(self.fps)
        inside = self._inside()
        error = np.linalg.norm(points - self.truth, axis=2)
        given, gap = ~gap & settled & inside, gap & settled & inside & np.isfinite(error)
        return Row(
            fps=round(self.fps),
            method=method,
            error_px=float(np.nanmean(error[given])),
            error_percent=float(100 * np.nanmean(error[given]) / self.height),
            acceleration_px=self._acceleration_error(points, given),
            lag_ms=self._lag_ms(points, given),
            gap_error_px=None if method == "raw" else float(error[gap].mean()),
        )

    def _inside(self) -> npt.NDArray[np.bool_]:
        within = np.concatenate((self.boxes[:, :2] >= 0, self.boxes[:, 2:] < self._picture), axis=1).all(
            axis=1, keepdims=True
        )
        return np.broadcast_to(within, self.truth.shape[:2])

    def _acceleration_error(self, points: Floats, where: npt.NDArray[np.bool_]) -> float:
        """Mean length of the difference of the second differences, px per frame², where three frames follow."""
        difference = np.linalg.norm(np.diff(points - self.truth, n=2, axis=0), axis=2)
        return float(np.nanmean(difference[where[2:] & where[1:-1] & where[:-2]]))

    def _lag_ms(self, points: Floats, where: npt.NDArray[np.bool_]) -> float:
        """The delay d for which truth - d * velocity fits the points best, by least squares without the outliers."""
        error = points - self.truth
        where = where & (np.linalg.norm(np.nan_to_num(error, nan=np.inf), axis=2) < 0.1 * self.height)
        velocity = self._velocity[where]
        return float(-1000 * (error[where] * velocity).sum() / (velocity**2).sum())


def _standing(person: Person) -> tuple[bool, int]:
    return person.state != "tentative", -person.id


def _mean(rows: list[Row]) -> Row:
    gaps = [row.gap_error_px for row in rows if row.gap_error_px is not None]
    return Row(
        rows[0].fps,
        rows[0].method,
        error_px=float(np.mean([row.error_px for row in rows])),
        error_percent=float(np.mean([row.error_percent for row in rows])),
        acceleration_px=float(np.mean([row.acceleration_px for row in rows])),
        lag_ms=float(np.mean([row.lag_ms for row in rows])),
        gap_error_px=float(np.mean(gaps)) if gaps else None,
    )


def _wander(rng: np.random.Generator, shape: tuple[int, int], fps: float, span_s: float) -> Floats:
    """Unit-variance noise (T, K) that forgets itself within `span_s`."""
    keep = float(np.exp(-1 / (fps * span_s)))
    values = rng.normal(size=shape)
    for t in range(1, shape[0]):
        values[t] = keep * values[t - 1] + np.sqrt(1 - keep**2) * values[t]
    return values


def _spells(
    rng: np.random.Generator, shape: tuple[int, int], fps: float, per_s: float, span_s: float
) -> npt.NDArray[np.bool_]:
    """Spells (T, K) of `span_s` each that begin `per_s` times a second."""
    begin = rng.random(shape) < per_s / fps
    on = np.zeros(shape, bool)
    for t, joint in np.argwhere(begin):
        on[t : t + max(1, round(span_s * fps)), joint] = True
    return on
