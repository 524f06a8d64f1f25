"""`streampose verify`: proof that the records, videos and gaps of a run agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streampose.errors import DataError


def verify(folder: Annotated[Path, typer.Argument(help="The folder that a run wrote into, such as out/.")]) -> None:
    """Prove that JSONL, video and gap ledger in FOLDER agree: each frame, its second, its count.

    Prints a line for each camera, for what retention took, for what a run has yet to write, and for each disagreement. Ends
    with code 5 if there is a disagreement.
    """
    from streampose.export.verify import verify_folder

    verdict = verify_folder(folder)
    for line in (*verdict.facts, *verdict.disagreements):
        print(line)
    if verdict.disagreements:
        count = len(verdict.disagreements)
        raise DataError(f"{folder}: {count} disagreement{'s' if count > 1 else ''} between records and videos")
