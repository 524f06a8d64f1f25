"""OpenPose JSON: a folder with one file for each frame, as Pose2Sim and the Blender add-ons read it.

Format: OpenPose, doc/02_output.md, version 1.3. The points keep the record's order (for the shipped models COCO's 17,
which readers call COCO_17); a point that nobody knows is 0, 0, 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streampose.export.fields import Record
from streampose.export.output import cannot_write, write_text
from streampose.export.reader import ResultReader

_EMPTY = (
    "face_keypoints_2d",
    "hand_left_keypoints_2d",
    "hand_right_keypoints_2d",
    "pose_keypoints_3d",
    "face_keypoints_3d",
    "hand_left_keypoints_3d",
    "hand_right_keypoints_3d",
)


def export_openpose(reader: ResultReader, out: Path) -> Path:
    """Write `out/<stem>_<index>_keypoints.json` for every frame; gives the folder.

    `<stem>` is the picture's name, or the result's; the index has 12 digits, as OpenPose counts. A picture's file has the
    index only where the name is taken: by one in another folder, of another type, or that differs in case alone, which many
    disks do not see. Numbered files of the same result that are there from an earlier, longer
    export are removed: they would be read as its end.
    """
    taken: set[str] = set()
    written: set[str] = set()
    for frame in reader.frames():
        number = f"_{frame['index']:012d}"
        name = Path(frame["file"]).stem if frame.get("file") else reader.path.stem + number
        while name.casefold() in taken:
            name += number
        taken.add(name.casefold())
        written.add(write_text(out / f"{name}_keypoints.json", _pieces(frame)).name)
    numbered = re.compile(re.escape(reader.path.stem) + r"_\d{12}_keypoints\.json")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for old in list(out.iterdir()):
            if numbered.fullmatch(old.name) and old.name not in written:
                old.unlink()
    except OSError as error:
        raise cannot_write(out, error) from error
    return out


def _pieces(frame: Record) -> Iterator[str]:
    people = [openpose_person(person) for person in frame["people"]]
    yield json.dumps({"version": 1.3, "people": people}, separators=(",", ":"))


def openpose_person(person: Record) -> dict[str, Any]:
    """One person; `person_id` carries the track's id, where OpenPose itself writes -1."""
    points: list[float] = []
    for (x, y, score), std in zip(person["keypoints"], person["std"], strict=True):
        points.extend((0, 0, 0) if score <= 0 or std is None else (x, y, score))
    return {"person_id": [person["id"]], "pose_keypoints_2d": points, **{name: [] for name in _EMPTY}}
