"""The errors a user can meet, each one line: what, where, and what would be right.

    StreamposeError              exit 1   the run failed
    ├── UsageError               exit 2   the command line asks for something that cannot be
    │   └── ConfigError          exit 2   the configuration is wrong: key path, value, what would be right
    ├── SourceError              exit 3   a camera, video or picture cannot be read
    │   ├── TransientSourceError          ... now, but a later try may succeed (refused, timed out, ended early)
    │   └── PermanentSourceError          ... and no retry will help (not found, not a video, authentication)
    ├── ModelError               exit 4   a model file is missing, damaged, of another shape, or not trusted
    ├── DataError                exit 5   a data set, result file or label file is wrong
    ├── SinkError                exit 6   an output cannot be written (no space, no permission)
    └── InterruptedRun           exit 130 ended by SIGINT (143 by SIGTERM) after everything was closed

Anything else that escapes is a bug: exit 70, with its traceback. Exit 0: done, also where a recording was cut or damaged or
a picture of several torn: what could be read is written, what could not is said and is a gap in the record.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias


class StreamposeError(Exception):
    """Root of every expected failure; `str(error)` is the one line that a user sees, `lines` are several where faults are
    listed."""

    exit_code = 1

    @property
    def lines(self) -> tuple[str, ...]:
        """What is said, a fault a line."""
        return (str(self),)


class UsageError(StreamposeError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration is wrong; the message names the key path."""


FailureKind: TypeAlias = Literal[
    "refused", "auth", "not_found", "tls", "timeout", "unreachable", "ended", "codec", "usage", "other"
]
"""Why a source cannot be read, for counters and for whoever decides on another try."""


class SourceError(StreamposeError):
    """A source cannot be read; `kind` is the reason in one word."""

    exit_code = 3

    def __init__(self, message: str, kind: FailureKind = "other") -> None:
        super().__init__(message)
        self.kind: FailureKind = kind


class TransientSourceError(SourceError):
    """A source cannot be read now; trying again may help."""


class PermanentSourceError(SourceError):
    """A source cannot be read, and trying again will not help."""


class ModelError(StreamposeError):
    """A model file is missing, damaged, of another shape, or not trusted."""

    exit_code = 4


class DataError(StreamposeError):
    """A data set, result file or label file is wrong; `faults` are one or more."""

    exit_code = 5

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self._faults = faults

    @property
    def lines(self) -> tuple[str, ...]:
        return self._faults


class SinkError(StreamposeError):
    """An output cannot be written. `lost`: so many of the results that were taken before are not in it after all."""

    exit_code = 6

    def __init__(self, message: str, lost: int = 0) -> None:
        super().__init__(message)
        self.lost = lost


class InterruptedRun(StreamposeError):
    """The run was ended by a signal, after everything queued was finished and every file closed."""

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


EXIT_BUG = 70


PLACE = re.compile(r"Exception from |Check '.*' failed at |FrontEnd API failed")
"""A line of OpenVINO's that says where in its source something failed, before those that say what."""


def words_of(error: BaseException, most: int = 160) -> str:
    """What another library's error says, for the inside of a line: the system's words, else the first line of its own, at
    most `most` characters, else the error's name."""
    said = str(getattr(error, "strerror", None) or error)
    lines = [line.strip() for line in said.splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if not PLACE.match(line)), lines[0])[:most]
