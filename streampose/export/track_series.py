"""One person's joints over time, as arrays, from a result: what a plot or an analysis starts from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streampose.errors import DataError, UsageError
from streampose.export.reader import ResultReader

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class TrackSeries:
    """Person `id` in T frames. `times_s` (T,) camera time; `points` and `raw` (T, J, 3) x, y, score for the J `joints`,
    raw NaN where the network was not asked; `std` (T, J) pixels, NaN where it is not known; `measured` (T, J) whether the
    frame's measurement was used; `gaps` (G, 2) the begin and end of what was not analysed; `step_s` the median distance
    of the record's frames."""

    id: int
    joints: tuple[str, ...]
    times_s: Floats
    points: Floats
    raw: Floats
    std: Floats
    measured: npt.NDArray[np.bool_]
    gaps: Floats
    step_s: float


def longest_track(reader: ResultReader) -> int:
    """The id seen in the most frames; raises DataError where nobody was seen."""
    seen = Counter(person["id"] for frame in reader.frames() for person in frame["people"])
    if not seen:
        raise DataError(f"{reader.path}: nobody was seen in this result; there is nothing to plot")
    return int(seen.most_common(1)[0][0])


def check_joints(reader: ResultReader, joints: Sequence[str]) -> list[int]:
    """Indices of the named joints; raises UsageError for a name that the result does not have."""
    for joint in joints:
        if joint not in reader.keypoints:
            raise UsageError(f"no joint {joint!r} in {reader.path}; there are {', '.join(reader.keypoints)}")
    return [reader.keypoints.index(joint) for joint in joints]


def read_track(reader: ResultReader, track_id: int, joints: Sequence[str]) -> TrackSeries:
    """The series of one person; raises UsageError where the id is not in the result."""
    chosen = check_joints(reader, joints)
    times: list[float] = []
    points: list[list[list[float]]] = []
    raw: list[list[list[float]]] = []
    std: list[list[float]] = []
    measured: list[list[bool]] = []
    gaps: list[tuple[float, float]] = []
    every: list[float] = []
    nothing = [[float("nan")] * 3] * len(reader.keypoints)
    for _, record in reader.records():
        if record["type"] == "gap":
            gaps.append((record["start"], record["end"]))
        if record["type"] != "frame":
            continue
        every.append(record["time"])
        for person in record["people"]:
            if person["id"] == track_id:
                times.append(record["time"])
                points.append([person["keypoints"][joint] for joint in chosen])
                raw.append([(person["raw"] or nothing)[joint] for joint in chosen])
                std.append([float("nan") if person["std"][j] is None else person["std"][j] for j in chosen])
                measured.append([person["joint_state"][joint] == "measured" for joint in chosen])
    if not times:
        raise UsageError(f"no person {track_id} in {reader.path}; leave --id away for the one seen longest")
    return TrackSeries(
        track_id,
        tuple(joints),
        np.array(times),
        np.array(points, np.float64),
        np.array(raw, np.float64),
        np.array(std, np.float64),
        np.array(measured),
        np.array(gaps, np.float64).reshape(-1, 2),
        float(np.median(np.diff(every))) if len(every) > 1 else 0.0,
    )
