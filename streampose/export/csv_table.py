"""A tidy table as CSV: one row for each person, joint and frame."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streampose.export.fields import Record
from streampose.export.output import write_text
from streampose.export.reader import ResultReader

COLUMNS: dict[str, type] = {
    "camera": str, "index": int, "segment": int, "time": float, "wall": str, "file": str,
    "id": int, "state": str, "person_score": float, "x1": float, "y1": float, "x2": float, "y2": float,
    "joint": str, "x": float, "y": float, "score": float, "raw_x": float, "raw_y": float, "raw_score": float,
    "std": float, "joint_state": str,
}  # fmt: skip
"""Names and types of the columns, in order; pixels and seconds as in the record, empty where it has null."""


def rows(reader: ResultReader, frame: Record) -> Iterator[tuple[Any, ...]]:
    """The rows of one frame, in the order of COLUMNS."""
    file = frame.get("file")
    if file is not None:
        file = file.encode(errors="backslashreplace").decode()  # a name need not be UTF-8, the table is
    seen = (reader.camera, frame["index"], frame.get("segment", 0), frame["time"], frame.get("wall"), file)
    for person in frame["people"]:
        who = (person["id"], person["state"], person["score"], *person["box"])
        raw = person["raw"] or [(None, None, None)] * len(reader.keypoints)
        joints = zip(reader.keypoints, person["keypoints"], raw, person["std"], person["joint_state"], strict=True)
        for joint, point, measured, std, state in joints:
            yield (*seen, *who, joint, *point, *measured, std, state)


def export_csv(reader: ResultReader, out: Path) -> Path:
    """Write the table with a header row (RFC 4180, UTF-8); gives the file written."""

    def lines() -> Iterator[str]:
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        writer.writerow(COLUMNS)
        for frame in reader.frames():
            writer.writerows(rows(reader, frame))
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
        yield buffer.getvalue()

    return write_text(out, lines())
