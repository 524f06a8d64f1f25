"""Reading a JSONL result: line by line, validated, with one clear line for what is wrong with it.

A result that was cut (a kill, a full disk) has no footer, perhaps half a line at its end. What is whole is read, and
`ResultReader.cut` says what is missing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streampose.errors import DataError

log = logging.getLogger(__name__)

SCHEMA = 1
Record = dict[str, Any]
_FRAME_FIELDS = ("index", "time", "width", "height", "people")
_PERSON_FIELDS = ("id", "state", "score", "box", "keypoints", "raw", "std", "joint_state")


class ResultReader:
    """A result file. `header` is read at once, `records` reads the rest as often as asked, in constant memory.

    `footer` and `cut` are known once `records` has been read to its end: `cut` is None for a whole file, else one line.
    Raises DataError with the path and the number of the line.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.footer: Record | None = None
        self.cut: str | None = None
        first = next(self._lines(), None)
        if first is None:
            raise DataError(f"{self.path}: the file is empty; a result begins with a header line")
        self.header = self._check_header(first[1])
        self.keypoints: tuple[str, ...] = tuple(self.header["keypoints"])

    @property
    def camera(self) -> str:
        return str(self.header["camera"])

    def records(self) -> Iterator[tuple[int, Record]]:
        """Every record behind the header with the number of its line; fields and types not known are let through."""
        self.footer = self.cut = None
        numbered = self._lines()
        next(numbered, None)
        for number, record in numbered:
            if self.footer is not None:
                raise DataError(
                    f"{self.path}: line {number}: a record behind the footer; a result ends with its footer"
                )
            kind = record["type"]
            if kind == "frame":
                self._check_frame(number, record)
            elif kind == "footer":
                self.footer = record
            elif kind == "header":
                raise DataError(f"{self.path}: line {number}: a second header; one file holds one result")
            elif kind == "gap":
                self._need(number, record, "gap", ("cause", "start", "end"))
            yield number, record
        if self.footer is None and self.cut is None:
            self.cut = "no footer: the run was cut short"

    def frames(self) -> Iterator[Record]:
        """The frame records, in order. Says it in the log where the file was cut."""
        for _, record in self.records():
            if record["type"] == "frame":
                yield record
        if self.cut is not None:
            log.warning("%s: %s; what is there was read", self.path, self.cut)

    def _lines(self) -> Iterator[tuple[int, Record]]:
        """Line numbers and parsed lines; a half line at the very end ends the reading and is said."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            raise DataError(f"{self.path}: no such file; name a .jsonl result") from None
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror}); name a .jsonl result") from error
        with file:
            for number, line in enumerate(file, 1):
                try:
                    record = json.loads(line.decode())
                except ValueError as error:  # also a UnicodeDecodeError
                    if number > 1 and not line.endswith(b"\n"):
                        self.cut = f"line {number} breaks off: the run was cut short"
                        return
                    where = getattr(error, "msg", "not UTF-8 text")
                    raise DataError(f"{self.path}: line {number}: not JSON ({where}); a result is JSON lines") from None
                if not isinstance(record, dict) or not isinstance(record.get("type"), str):
                    raise DataError(f'{self.path}: line {number}: not a record; an object with a "type" is wanted')
                yield number, record

    def _check_header(self, header: Record) -> Record:
        if header["type"] != "header":
            raise DataError(f'{self.path}: line 1: a "{header["type"]}" where the header should be; not a result')
        version = header.get("schema")
        if version != SCHEMA:
            raise DataError(f"{self.path}: line 1: schema {version!r} is not known; this version reads schema {SCHEMA}")
        self._need(1, header, "header", ("camera", "keypoints"))
        names = header["keypoints"]
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise DataError(f"{self.path}: line 1: keypoints: a list of names is wanted")
        return header

    def _check_frame(self, number: int, frame: Record) -> None:
        self._need(number, frame, "frame", _FRAME_FIELDS)
        for field, kinds in (("index", int), ("time", (int, float)), ("width", int), ("height", int), ("people", list)):
            if not isinstance(frame[field], kinds) or isinstance(frame[field], bool):
                raise DataError(f"{self.path}: line {number}: {field}: {frame[field]!r} is of the wrong type")
        count = len(self.keypoints)
        for position, person in enumerate(frame["people"]):
            where = f"people[{position}]"
            if not isinstance(person, dict):
                raise DataError(f"{self.path}: line {number}: {where}: an object is wanted")
            self._need(number, person, where, _PERSON_FIELDS)
            shapes = (("box", 4, False), ("keypoints", count, True), ("raw", count, True), ("std", count, False))
            for field, length, points in shapes:
                if field == "raw" and person[field] is None:
                    continue
                if not _has_shape(person[field], length, points):
                    wanted = f"{length} points [x, y, score]" if points else f"{length} numbers"
                    raise DataError(f"{self.path}: line {number}: {where}.{field}: {wanted} are wanted")
            if not isinstance(person["joint_state"], list) or len(person["joint_state"]) != count:
                raise DataError(f"{self.path}: line {number}: {where}.joint_state: {count} words are wanted")

    def _need(self, number: int, record: Record, what: str, fields: tuple[str, ...]) -> None:
        for field in fields:
            if field not in record:
                raise DataError(f'{self.path}: line {number}: {what} has no "{field}"; not a whole result')


def _has_shape(value: Any, length: int, points: bool) -> bool:
    if not isinstance(value, list) or len(value) != length:
        return False
    if not points:
        return all(item is None or isinstance(item, int | float) for item in value)
    return all(isinstance(p, list) and len(p) == 3 and all(isinstance(x, int | float) for x in p) for p in value)
