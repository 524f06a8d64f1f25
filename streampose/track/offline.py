"""Smoothing a recording with hindsight: each track filtered forward again, then backward; no lag, and gaps are bridged.

The forward pass is made anew from the raw points, so that no filter state has to be kept while the recording is read;
the backward pass is that of Rauch, Tung and Striebel (1965). What live filtering rejected is looked at once more from
both sides. A track that was confirmed is so from its first frame, one that never was may be dropped, and a person's last
coasting, after which nobody was seen, is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from streampose.messages import JointState, Person, TrackState
from streampose.track import kalman
from streampose.track.options import SmoothOptions
from streampose.track.smoother import COAST_DECAY, VELOCITY_STD, joint_spread, noise_var, process_noise

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Moment: TypeAlias = tuple[int, float, tuple[Person, ...]]
Sighting: TypeAlias = tuple[int, Person]
MEASURED: JointState = "measured"
UNKNOWN = 10.0  # body heights: what is known of a joint before the recording begins


def smooth_track(
    times_s: npt.NDArray[Any],
    raw: npt.NDArray[Any],
    used: Bools,
    boxes: npt.NDArray[Any],
    options: SmoothOptions,
    sigmas: npt.NDArray[Any],
    asked: Bools | None = None,
) -> tuple[Floats, Floats]:
    """The points of one person as seen from before and after: key points (T, K, 3) and their std (T, K) px per axis.

    `times_s` (T,) grows strictly, `raw` (T, K, 3) holds x, y, score, NaN where nothing was measured, `used` (T, K) says
    which measurements count, `boxes` (T, 4) xyxy px hold the body, `sigmas` (K,) are the OKS's, `asked` (T,) says in
    which frames the body was looked for, None for all. A joint hidden for long goes with the box. Where it is never
    measured its position is NaN and its std infinite. The score of a bridged point falls with the time to the nearest
    measurement, to 0 at `coast_s`.
    """
    times_s, boxes = np.asarray(times_s, np.float64), np.asarray(boxes, np.float64)
    sizes = _heights(boxes)
    raw = np.asarray(raw, np.float64)
    used = used & np.isfinite(raw).all(axis=2)
    asked = np.ones(len(times_s), np.bool_) if asked is None else asked
    score = np.where(used, np.clip(np.nan_to_num(raw[..., 2]), 0.0, 1.0), 0.0)
    r = noise_var(score, sizes[:, None], joint_spread(sigmas), options)
    steps = _Steps(times_s, asked, used, boxes, options)
    mean, cov = _forward(steps, raw[..., :2], used, r)
    smooth_mean, smooth_cov = _backward(steps, mean, cov)
    points = np.concatenate((smooth_mean[:, :, 0, :], _bridged_score(times_s, score, used, options)[..., None]), axis=2)
    std = np.sqrt(smooth_cov[..., 0, 0])
    never = ~used.any(axis=0)
    points[:, never, :2], std[:, never] = np.nan, np.inf
    return points, std


def _heights(boxes: Floats) -> Floats:
    """Body heights (T,) px: the longer sides, at least 1."""
    return np.asarray(np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), 1.0))


class _Steps:
    """How the K joints of a body move between T frames: evenly, but one hidden for longer than `coast_s`, or not seen
    before or after, takes the velocity of its body, as in live filtering. Hidden is what was looked for in a frame and
    not found; frames that were not `asked` hide nothing."""

    def __init__(self, times_s: Floats, asked: Bools, used: Bools, boxes: Floats, options: SmoothOptions) -> None:
        self.sizes = _heights(boxes)
        self._dt = np.diff(times_s)
        self._q = process_noise(self.sizes, options)
        self._drift = np.diff((boxes[:, :2] + boxes[:, 2:]) / 2, axis=0) / self._dt[:, None]
        last_s, next_s = _around(times_s, used)
        last_missed_s, next_missed_s = _around(times_s, asked[:, None] & ~used)
        missed = (last_missed_s > last_s) | (next_missed_s < next_s) | np.isinf(next_s - last_s)
        hidden = ~(used[:-1] & used[1:]) & (next_s - last_s > options.coast_s) & missed
        self._decay = np.where(hidden, COAST_DECAY, 0.0)
        settled_var = self._q[0] / (2 * COAST_DECAY)  # of a velocity that decays: what is added is what is lost
        self.first_velocity_var = np.where(used[0], (2 * VELOCITY_STD * self.sizes[0]) ** 2, settled_var)
        self.first_velocity = self._drift[:1].sum(axis=0)  # the body's, 0 where there is but one frame

    def predict(self, t: int, mean: Floats, cov: Floats) -> tuple[Floats, Floats]:
        """From frame t to the next."""
        return kalman.predict(mean, cov, float(self._dt[t]), self._q[t], self._drift[t], self._decay[t])

    def smooth(self, t: int, mean: Floats, cov: Floats, next_mean: Floats, next_cov: Floats) -> tuple[Floats, Floats]:
        """Frame t, filtered, once the next is smoothed."""
        ahead = self.predict(t, mean, cov)
        return kalman.smooth_step(mean, cov, *ahead, next_mean, next_cov, float(self._dt[t]), self._decay[t])


def _around(times_s: Floats, true: Bools) -> tuple[Floats, Floats]:
    """For each of the T - 1 steps between frames the time of the last frame up to it, and of the first after it, in which
    `true` (T, K) is; infinite where there is none."""
    last_s = np.maximum.accumulate(np.where(true, times_s[:, None], -np.inf))[:-1]
    next_s = np.minimum.accumulate(np.where(true, times_s[:, None], np.inf)[::-1])[::-1][1:]
    return last_s, next_s


def _forward(steps: _Steps, z: Floats, used: Bools, r: Floats) -> tuple[Floats, Floats]:
    """Filtered means (T, K, 2, 2) and covariances (T, K, 2, 2), from next to no knowledge at the start."""
    count, joints = used.shape
    means, covs = np.empty((count, joints, 2, 2)), np.empty((count, joints, 2, 2))
    safe = np.nan_to_num(z)
    begin = safe[used.argmax(axis=0), np.arange(joints)]
    begin_var = (UNKNOWN * steps.sizes[0]) ** 2
    mean, cov = kalman.begin(begin, steps.first_velocity, begin_var, steps.first_velocity_var)
    for t in range(count):
        if t:
            mean, cov = steps.predict(t - 1, mean, cov)
        seen_mean, seen_cov = kalman.update(mean, cov, safe[t], r[t])
        seen = used[t][:, None, None]
        mean, cov = np.where(seen, seen_mean, mean), np.where(seen, seen_cov, cov)
        means[t], covs[t] = mean, cov
    return means, covs


def _backward(steps: _Steps, means: Floats, covs: Floats) -> tuple[Floats, Floats]:
    """The Rauch-Tung-Striebel pass over what `_forward` left: smoothed means and covariances."""
    means, covs = means.copy(), covs.copy()
    for t in range(len(means) - 2, -1, -1):
        means[t], covs[t] = steps.smooth(t, means[t], covs[t], means[t + 1], covs[t + 1])
    return means, covs


def _bridged_score(times_s: Floats, score: Floats, used: Bools, options: SmoothOptions) -> Floats:
    """The scores (T, K): as measured, and between measurements that of the nearest, falling to 0 at `coast_s` from it."""
    result = np.zeros_like(score)
    for joint in range(score.shape[1]):
        at = np.flatnonzero(used[:, joint])
        if not len(at):
            continue
        after = np.clip(np.searchsorted(at, np.arange(len(times_s))), 0, len(at) - 1)
        before = np.maximum(after - 1, 0)
        away = np.abs(times_s[at[[before, after]]] - times_s)
        nearest = np.where(away[0] < away[1], at[before], at[after])
        result[:, joint] = score[nearest, joint] * np.clip(1 - away.min(axis=0) / options.coast_s, 0.0, 1.0)
    return result


def reconsider(
    raw: npt.NDArray[Any], used: Bools, smooth: Floats, std: Floats, r: Floats, options: SmoothOptions
) -> Bools:
    """Which measurements (T, K) count, seen from both sides: those within the gate of the smoothed points.

    The residual of one that was used has variance R - P, of another R + P (P the smoothed variance).
    """
    usable = np.isfinite(raw).all(axis=2) & (np.nan_to_num(raw[..., 2]) >= options.min_score) & np.isfinite(std)
    residual2 = ((np.nan_to_num(raw[..., :2]) - np.nan_to_num(smooth[..., :2])) ** 2).sum(axis=2)
    p = np.where(np.isfinite(std), std, 0.0) ** 2
    var = np.where(used, np.maximum(r - p, 0.1 * r), r + p)
    return np.asarray(usable & (residual2 <= options.gate**2 * var))


def smooth_recording(moments: Iterable[Moment], options: SmoothOptions, sigmas: npt.NDArray[Any]) -> list[Moment]:
    """The people of a whole recording with boxes, key points and std as they are with hindsight.

    `moments` are (index, time_s, people) of every frame in order, and so is what is returned. Raw points stay. People
    are kept in frames where they were seen or between such frames, marked as coasting there: up to `bridge_s`, and
    longer where live filtering never let them go.
    """
    if not options.enabled:
        return list(moments)
    frames: list[tuple[int, float]] = []
    sightings: dict[int, list[Sighting]] = {}
    for position, (index, time_s, people) in enumerate(moments):
        frames.append((index, time_s))
        for person in people:
            sightings.setdefault(person.id, []).append((position, person))
    times_s = np.array([time_s for _, time_s in frames])
    found: list[list[Person]] = [[] for _ in frames]
    for track_id in sorted(sightings):
        for position, person in _smooth_person(sightings.pop(track_id), times_s, options, sigmas):
            found[position].append(person)
    return [(index, time_s, tuple(people)) for (index, time_s), people in zip(frames, found, strict=True)]


def _smooth_person(
    sightings: list[Sighting], times_s: Floats, options: SmoothOptions, sigmas: npt.NDArray[Any]
) -> list[Sighting]:
    """One track with hindsight: (frame position, person) of every frame it is in."""
    confirmed = any(person.state == "confirmed" for _, person in sightings)
    if options.drop_unconfirmed and not confirmed:
        return []
    seen = [(position, person) for position, person in sightings if person.state != "coasting"]
    life = _bridge(seen, dict(sightings), times_s, options.bridge_s)
    people = [person for _, person in life]
    times = times_s[[position for position, _ in life]]
    boxes = np.array([person.box for person in people], np.float64)
    blank = np.full(people[0].keypoints.shape, np.nan)
    raw = np.array([blank if person.raw is None else person.raw for person in people], np.float64)
    used = np.array([[word == MEASURED for word in person.joint_state] for person in people])
    asked = np.array([person.raw is not None or person.state == "coasting" for person in people])
    r = noise_var(np.nan_to_num(raw[..., 2]), _heights(boxes)[:, None], joint_spread(sigmas), options)
    points, std = smooth_track(times, raw, used, boxes, options, sigmas, asked)
    used = reconsider(raw, used, points, std, r, options)
    points, std = smooth_track(times, raw, used, boxes, options, sigmas, asked)
    usable = np.nan_to_num(raw[..., 2]) >= options.min_score
    words = np.where(used, "measured", np.where(usable, "rejected", "coasted"))
    state: TrackState = "confirmed" if confirmed else "tentative"
    return [
        (position, _with_hindsight(person, points[t], std[t], words[t].tolist(), state))
        for t, (position, person) in enumerate(life)
    ]


def _bridge(seen: list[Sighting], known: dict[int, Person], times_s: Floats, bridge_s: float) -> list[Sighting]:
    """The sightings, and between two of them not further apart than `bridge_s`, or through which live filtering never let
    go, somebody coasting in a box moved evenly."""
    life = seen[:1]
    coasted: JointState = "coasted"
    nothing = (coasted,) * len(seen[0][1].joint_state)
    for (start, before), (end, after) in pairwise(seen):
        span = times_s[end] - times_s[start]
        between = range(start + 1, end)
        if span > bridge_s and not all(position in known for position in between):
            between = range(0)
        for position in between:
            part = (times_s[position] - times_s[start]) / span
            person = known.get(position, before)
            life.append(
                (
                    position,
                    replace(
                        person,
                        state="coasting",
                        box=((1 - part) * before.box + part * after.box).astype(np.float32),
                        raw=person.raw if position in known else None,
                        joint_state=person.joint_state if position in known else nothing,
                    ),
                )
            )
        life.append((end, after))
    return life


def _with_hindsight(person: Person, points: Floats, std: Floats, words: list[JointState], state: TrackState) -> Person:
    keypoints = np.where(np.isfinite(std)[:, None], points, person.keypoints)
    return replace(
        person,
        state="coasting" if person.state == "coasting" else state,
        keypoints=keypoints.astype(np.float32),
        std=std.astype(np.float32),
        joint_state=tuple(words),
    )
