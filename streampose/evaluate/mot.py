"""How well identity is kept: IDF1, MOTA, identity switches and HOTA of a JSONL result against MOTChallenge ground truth.

Counted by TrackEval, a box match at IoU 0.5 (HOTA over 0.05 to 0.95). Ground truth lines are
`frame,id,left,top,width,height[,flag[,class[,visibility]]]`, or the ten columns of MOT15 (`…,flag,x,y,z`), which name no
class; frames from 1, so frame n is the record with index n - 1.
As MOT16 and MOT17 are counted: classes other than pedestrian are not looked for, and whoever is found on people in vehicles,
static people, distractors or reflections is not counted as wrong; on any other class it is. Not as there: who is found on
a pedestrian of flag 0, who can hardly be seen, is not counted as wrong either.
"""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.errors import DataError, UsageError, words_of
from streampose.export.reader import ResultReader
from streampose.track.association import assign, iou

PEDESTRIAN = (1, -1)
"""Classes that count: MOTChallenge's pedestrian, and -1 where the file has no classes."""
DISTRACTORS = (2, 7, 8, 12)
"""Person on vehicle, static person, distractor, reflection; MOT20 has one more, non-MOT vehicles."""
COLUMNS_MOT15 = 10
MATCH_IOU = 0.5
LARGEST_ID = 2**53
"""Up to here a float has every whole number."""


class Role(IntEnum):
    """What a box of the ground truth is for: a person to be found, one of flag 0, a distractor, or anything else."""

    COUNTED = 0
    UNSURE = 1
    DISTRACTOR = 2
    OTHER = 3


@dataclass(frozen=True, slots=True, eq=False)
class FrameBoxes:
    """The boxes of one frame: `ids` (N,) int64, `boxes` (N, 4) float64 xyxy px, `roles` (N,) int8."""

    ids: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    roles: npt.NDArray[np.int8]

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """(N,) whether it is somebody who is to be found."""
        return np.asarray(self.roles == Role.COUNTED, np.bool_)

    def rows(self, kept: npt.NDArray[np.bool_]) -> FrameBoxes:
        """Those that are `kept` (N,)."""
        return FrameBoxes(self.ids[kept], self.boxes[kept], self.roles[kept])


NOBODY = FrameBoxes(np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0, np.int8))


@dataclass(frozen=True, slots=True)
class TrackingFigures:
    """IDF1, MOTA, HOTA, IDP, IDR as fractions (MOTA may be negative); the rest are counts."""

    idf1: float
    mota: float
    hota: float
    idp: float
    idr: float
    id_switches: int
    fragmentations: int
    false_positives: int
    missed: int
    people: int
    ids: int
    boxes: int
    frames: int

    def as_dict(self) -> dict[str, float]:
        """Plain numbers by name, the well-known ones under their well-known names."""
        known = {"idf1": "IDF1", "mota": "MOTA", "hota": "HOTA", "idp": "IDP", "idr": "IDR"}
        return {known.get(name, name): round(value, 5) for name, value in asdict(self).items()}


def read_truth(path: str | Path) -> dict[int, FrameBoxes]:
    """Ground truth by frame number (from 1); raises DataError naming the line at fault."""
    path = Path(path)
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as MOT text ({words_of(error)})") from None
    rows: dict[int, list[tuple[int, list[float], Role]]] = defaultdict(list)
    for number, line in enumerate(lines, 1):
        if line.strip():
            frame, who, box, role = _truth_line(line, f"{path}: line {number}")
            if any(other == who for other, _, _ in rows[frame]):
                raise DataError(f"{path}: line {number}: id {who} stands twice in frame {frame}")
            rows[frame].append((who, box, role))
    if not any(role is Role.COUNTED for people in rows.values() for _, _, role in people):
        raise DataError(f"{path}: no person in it; expected lines frame,id,left,top,width,height,1,1,1")
    return {frame: _frame(people) for frame, people in rows.items()}


def _truth_line(line: str, where: str) -> tuple[int, int, list[float], Role]:
    try:
        values = [float(value) for value in line.strip().rstrip(",").split(",")]
    except ValueError:
        values = []
    if len(values) < 6 or not np.isfinite(values).all():
        raise DataError(f"{where}: expected frame,id,left,top,width,height and numbers only, got {line!r:.60}")
    kind = values[7] if 7 < len(values) < COLUMNS_MOT15 else PEDESTRIAN[0]
    if any(value != int(value) or abs(value) > LARGEST_ID for value in (*values[:2], kind)):
        raise DataError(f"{where}: frame, id and class are whole numbers, got {line!r:.60}")
    frame, who, (left, top, width, height) = int(values[0]), int(values[1]), values[2:6]
    if frame < 1 or width <= 0 or height <= 0:
        raise DataError(f"{where}: frames count from 1 and boxes have a width and height, got {line!r:.60}")
    flag = values[6] if len(values) > 6 else 1.0
    if kind in PEDESTRIAN:
        role = Role.COUNTED if flag else Role.UNSURE
    else:
        role = Role.DISTRACTOR if kind in DISTRACTORS else Role.OTHER
    return frame, who, [left, top, left + width, top + height], role


def read_result(path: str | Path, *, camera: str | None = None, coasting: bool = True) -> dict[int, FrameBoxes]:
    """People by frame number (record index + 1) out of a JSONL result; tentative ones are left out, and coasting ones
    unless `coasting`. Every frame of the record is there, also an empty one; one that was cut is read as far as it goes.
    Raises DataError."""
    wanted = {"confirmed", "coasting"} if coasting else {"confirmed"}
    frames: dict[int, FrameBoxes] = {}
    for record in ResultReader(path).frames():
        if camera is not None and record.get("camera") != camera:
            continue
        index = record["index"]
        if index + 1 in frames:
            raise DataError(f"{path}: frame index {index} stands there twice; one camera a file")
        frames[index + 1] = _frame((p["id"], p["box"], Role.COUNTED) for p in record["people"] if p["state"] in wanted)
    if not frames:
        whose = "" if camera is None else f' of the camera "{camera}"'
        raise DataError(f"{path}: no frame record{whose} in it; expected what the jsonl sink writes")
    return frames


def _frame(people: Iterable[tuple[int, list[float], Role]]) -> FrameBoxes:
    rows = list(people)
    boxes = np.array([box for _, box, _ in rows], np.float64).reshape(-1, 4)
    return FrameBoxes(np.array([i for i, _, _ in rows], np.int64), boxes, np.array([r for _, _, r in rows], np.int8))


def without_ignored(truth: FrameBoxes, found: FrameBoxes) -> tuple[FrameBoxes, FrameBoxes]:
    """Those who are to be found, and who was found but for those on distractors and on people of flag 0.

    For distractors all boxes of the ground truth are matched alike, one to one; what is left goes to people, those to be
    found first.
    """
    overlap = iou(truth.boxes, found.boxes)
    overlap[overlap < MATCH_IOU] = 0.0
    stays = np.ones(len(found.ids), bool)
    for row, column in assign(overlap, 0.0):
        stays[column] = truth.roles[row] != Role.DISTRACTOR
    people = truth.counted | (truth.roles == Role.UNSURE)
    preferred = np.where((overlap > 0) & people[:, None] & stays, overlap + truth.counted[:, None], 0.0)
    for row, column in assign(preferred, MATCH_IOU):
        stays[column] = truth.counted[row]
    return truth.rows(truth.counted), found.rows(stays)


def measure_tracking(
    truth: dict[int, FrameBoxes], found: dict[int, FrameBoxes], frames: int | None = None
) -> TrackingFigures:
    """Compare over frames 1 to `frames` (None: the last one that either of them has).

    Raises UsageError where nobody is to be found in these frames, or TrackEval is not installed.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from trackeval.metrics import CLEAR, HOTA, Identity
    except ImportError:
        raise UsageError("measuring identity needs trackeval: pip install 'streampose[eval]'") from None
    last = frames or max([*truth, *found])
    pairs = [without_ignored(truth.get(n, NOBODY), found.get(n, NOBODY)) for n in range(1, last + 1)]
    data = _sequence(pairs)
    if not data["num_gt_dets"]:
        raise UsageError(
            f"nobody is to be found in frames 1 to {last}; the first are in frame {_first(truth)}: --frames"
        )
    with contextlib.redirect_stdout(io.StringIO()):
        identity = Identity({"PRINT_CONFIG": False}).eval_sequence(data)
        clear = CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)
        hota = HOTA().eval_sequence(data)
    return TrackingFigures(
        idf1=float(identity["IDF1"]),
        mota=float(clear["MOTA"]),
        hota=float(np.mean(hota["HOTA"])),
        idp=float(identity["IDP"]),
        idr=float(identity["IDR"]),
        id_switches=int(clear["IDSW"]),
        fragmentations=int(clear["Frag"]),
        false_positives=int(clear["CLR_FP"]),
        missed=int(clear["CLR_FN"]),
        people=data["num_gt_ids"],
        ids=data["num_tracker_ids"],
        boxes=data["num_gt_dets"],
        frames=last,
    )


def _first(truth: dict[int, FrameBoxes]) -> int:
    """The first frame in which somebody is to be found, of a ground truth that has such."""
    return min(number for number, boxes in truth.items() if boxes.counted.any())


def _sequence(pairs: list[tuple[FrameBoxes, FrameBoxes]]) -> dict[str, Any]:
    """What TrackEval's metrics read: ids counted from 0 without holes, and the IoU of each pair, frame by frame."""
    truth_ids = np.unique(np.concatenate([t.ids for t, _ in pairs]))
    found_ids = np.unique(np.concatenate([f.ids for _, f in pairs]))
    return {
        "num_timesteps": len(pairs),
        "gt_ids": [np.searchsorted(truth_ids, t.ids) for t, _ in pairs],
        "tracker_ids": [np.searchsorted(found_ids, f.ids) for _, f in pairs],
        "similarity_scores": [iou(t.boxes, f.boxes) for t, f in pairs],
        "num_gt_ids": len(truth_ids),
        "num_tracker_ids": len(found_ids),
        "num_gt_dets": int(sum(len(t.ids) for t, _ in pairs)),
        "num_tracker_dets": int(sum(len(f.ids) for _, f in pairs)),
    }
