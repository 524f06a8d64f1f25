"""Reading a JSONL result: line by line, validated, with one clear line for what is wrong with it.

A result that was cut (a kill, a full disk) has no footer, perhaps half a line at its end. What is whole is read, and
`ResultReader.cut` says what is missing.
"""

from __future__ import annotations

import io
import json
import logging
import os
import stat
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from streampose.errors import DataError, words_of
from streampose.export.fields import Record, fault_of
from streampose.sinks.write_lock import is_locked

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger(__name__)

SCHEMA = 1
_PIECE = 1 << 20  # bytes that are copied at once


class _FromBeginning(io.RawIOBase):
    """What `file` holds, from its beginning, with a place of its own in it."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        piece = os.pread(self._file.fileno(), len(view), self._at)
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


class ResultReader:
    """A result file. `header` is read at once, `records` reads the rest as often as asked, in constant memory, each time up
    to where the file ended at first: a run may go on writing it. What can be read only once (a pipe, standard input) is
    read into a temporary file first.

    `states` (confirmed, tentative, coasting): only people in one of these are in `frames`; None: everybody. `footer` and
    `cut` are known once `records` has been read to its end: `cut` is None for a whole file, else one line, which is said in
    the log, once, unless `quiet`. Raises DataError with the path and the number of the line.
    """

    def __init__(self, path: str | Path, states: Collection[str] | None = None, *, quiet: bool = False) -> None:
        self.path = Path(path)
        self.states = states
        self._said = quiet
        self._spool: io.FileIO | None = None
        self._end: int | None = None
        self._goes_on = False
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
            if record["type"] == "header":
                raise DataError(
                    f"{self.path}: line {number}: a second header; one file holds one result, split it before this line"
                )
            if self.footer is not None:
                raise DataError(
                    f"{self.path}: line {number}: a record behind the footer; a result ends with its footer"
                )
            self._check(number, record)
            if record["type"] == "footer":
                self.footer = record
            yield number, record
        if self.footer is None and self.cut is None:
            self.cut = self._why("no footer")
        if self.cut is not None and not self._said:
            self._said = True
            log.warning("%s: %s; what is there was read", self.path, self.cut)

    def frames(self) -> Iterator[Record]:
        """The frame records, in order."""
        for _, record in self.records():
            if record["type"] == "frame":
                if self.states is not None:
                    record["people"] = [person for person in record["people"] if person["state"] in self.states]
                yield record

    def _lines(self) -> Iterator[tuple[int, Record]]:
        """Line numbers and parsed lines; a half line at the very end ends the reading and is said."""
        for number, line in enumerate(self._text(), 1):
            try:
                record = json.loads(line.decode())
            except (ValueError, RecursionError) as error:  # the first is also a UnicodeDecodeError
                if number > 1 and not line.endswith(b"\n"):
                    self.cut = self._why(f"line {number} breaks off")
                    return
                where = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else getattr(error, "msg", error)
                raise DataError(f"{self.path}: line {number}: not JSON ({where}); a result is JSON lines") from None
            if not isinstance(record, dict) or not isinstance(record.get("type"), str):
                raise DataError(f'{self.path}: line {number}: not a record; an object with a "type" is wanted')
            yield number, record

    def _why(self, what: str) -> str:
        return "is being written" if self._goes_on else f"{what}: the run was cut short"

    def _text(self) -> Iterator[bytes]:
        """The lines as they are, up to where the file ended at first."""
        try:
            with self._open() as file:
                left = -1 if self._end is None else self._end
                while line := file.readline(left):
                    left -= len(line) if self._end is not None else 0
                    yield line
        except FileNotFoundError:
            raise DataError(f"{self.path}: no such file; name a .jsonl result") from None
        except OSError as error:
            raise self._unreadable(error) from error

    def _open(self) -> io.BufferedReader:
        """The content from its beginning."""
        if self._spool is None:
            file = self.path.open("rb")
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                if self._end is None:
                    self._goes_on = is_locked(file.fileno())  # asked first: who lets go has written all
                    self._end = os.fstat(file.fileno()).st_size or None  # 0: of a file that is no file of a disk, too
                return file
            with file:
                self._spool = self._copy(file)
        return io.BufferedReader(_FromBeginning(self._spool))

    def _copy(self, file: BinaryIO) -> io.FileIO:
        """What is left of `file`, in a file without a name, of which nothing stays however this process ends."""
        try:
            copy = tempfile.TemporaryFile("w+b", 0)  # noqa: SIM115  (as long as this reader)
            while piece := self._piece(file):
                while piece:
                    piece = piece[copy.write(piece) :]
        except OSError as error:
            folder = tempfile.tempdir or "any folder for temporary files"
            raise DataError(
                f"{self.path}: can be read only once, and its copy cannot be written to {folder} ({words_of(error)}); "
                "name a folder with room for it in TMPDIR"
            ) from error
        return copy

    def _piece(self, file: BinaryIO) -> bytes:
        try:
            return file.read(_PIECE)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> DataError:
        return DataError(f"{self.path}: cannot be read ({words_of(error)}); name a .jsonl result")

    def _check_header(self, header: Record) -> Record:
        if header["type"] != "header":
            raise DataError(f'{self.path}: line 1: a "{header["type"]}" where the header should be; not a result')
        version = header.get("schema")
        if version != SCHEMA:
            raise DataError(f"{self.path}: line 1: schema {version!r} is not known; this version reads schema {SCHEMA}")
        self._check(1, header)
        return header

    def _check(self, number: int, record: Record) -> None:
        fault = fault_of(record, 0 if record["type"] == "header" else len(self.keypoints))
        if fault is not None:
            raise DataError(f"{self.path}: line {number}: {fault}")
