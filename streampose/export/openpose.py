"""OpenPose JSON: a folder with one file for each frame, as Pose2Sim and the Blender add-ons read it.

Format: OpenPose, doc/02_output.md, version 1.3. The points keep the record's order (for the shipped models COCO's 17,
which readers call COCO_17); a point that nobody knows is 0, 0, 0.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from streampose.errors import SinkError
from streampose.export.fields import Record
from streampose.export.output import cannot_write, write_text
from streampose.export.reader import ResultReader

_TIME = re.compile(r"\d\d-\d\d-\d\d(-\d+)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
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
    """Write `out/<name>_<index>_keypoints.json` for every frame; gives the folder.

    `<name>` is the picture's name, or the result's, of one that rolled `<camera>_<date>_<time>`; the index has 12 digits, as
    OpenPose counts. A picture's file has the index only where the name is taken: by one in another folder, of another type,
    or that differs in case alone, which many disks do not see. Files that an earlier, longer export of the same result left
    are removed: they would be read as its end. Those of another result are never: raises SinkError.
    """
    name = _name_of(reader)
    of_pictures = any(frame.get("file") for frame in itertools.islice(reader.frames(), 1))
    files = {file for _, file in _files(reader, name)} if of_pictures else set()
    old = _claim(reader, out, name, files)
    written: set[str] = set()
    for frame, file in _files(reader, name):
        written.add(write_text(out / file, _pieces(frame)).name)
    try:
        for path in old:
            if path.name not in written:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    return out


def _files(reader: ResultReader, name: str) -> Iterator[tuple[Record, str]]:
    """Every frame with the name of its file."""
    taken: set[str] = set()
    for frame in reader.frames():
        number = f"_{frame['index']:012d}"
        stem = Path(frame["file"]).stem if frame.get("file") else name + number
        while stem.casefold() in taken:
            stem += number
        taken.add(stem.casefold())
        yield frame, f"{stem}_keypoints.json"


def _name_of(reader: ResultReader) -> str:
    """What the files of a result are called: all cameras and days share the times that files roll at."""
    path = Path(os.path.abspath(reader.path))
    if not _TIME.fullmatch(path.stem):
        return path.stem
    date = [path.parent.name] if _DATE.fullmatch(path.parent.name) else []
    return "_".join([reader.camera.replace(os.sep, "_"), *date, path.stem])


def _claim(reader: ResultReader, out: Path, name: str, files: Set[str]) -> list[Path]:
    """The files that an earlier export of this result left, by the mark in the folder: the result's place, its camera, run
    and part, and its `files` if they are called by pictures. The mark is then this result's. Raises SinkError where some of
    another result are in the way."""
    numbered = re.compile(re.escape(name) + r"_\d{12}_keypoints\.json")
    mark = out / f".{name}.streampose"
    run = [reader.camera, reader.header.get("run"), reader.header.get("part")]
    mine = {"result": os.path.realpath(reader.path), "run": run, "files": sorted(files)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        there = [path for path in out.iterdir() if path.name.endswith("_keypoints.json")]
        said = json.loads(mark.read_text(encoding="utf-8")) if mark.is_file() else {}
    except OSError as error:
        raise cannot_write(out, error) from error
    except ValueError:
        said = {}
    theirs = said if isinstance(said, dict) else {}
    listed = theirs.get("files")
    earlier = listed if isinstance(listed, list) else []
    same_place = theirs.get("result") == mine["result"] and reader.path.is_file()
    known = same_place or (run[1] is not None and theirs.get("run") == run)
    old = [path for path in there if numbered.fullmatch(path.name) or path.name in earlier] if known else []
    for path in sorted(set(there) - set(old)):
        if numbered.fullmatch(path.name) or path.name in files:
            raise SinkError(
                f"{out}: {path.name} and others there are not known to be of {reader.path}; delete them, or name another "
                "folder with --out"
            )
    write_text(mark, [json.dumps(mine)])
    return old


def _pieces(frame: Record) -> Iterator[str]:
    people = [openpose_person(person) for person in frame["people"]]
    yield json.dumps({"version": 1.3, "people": people}, separators=(",", ":"))


def openpose_person(person: Record) -> dict[str, Any]:
    """One person; `person_id` carries the track's id, where OpenPose itself writes -1."""
    points: list[float] = []
    for (x, y, score), std in zip(person["keypoints"], person["std"], strict=True):
        points.extend((0, 0, 0) if score <= 0 or std is None else (x, y, score))
    return {"person_id": [person["id"]], "pose_keypoints_2d": points, **{name: [] for name in _EMPTY}}
