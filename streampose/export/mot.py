"""MOTChallenge text: `frame,id,x,y,width,height,confidence,-1,-1,-1`, frames counted from 1.

Format: Milan et al., MOT16 (arXiv:1603.00831), table 4. Coordinates are those of the record, without MOT's shift by one
pixel, as every common evaluator and tracker writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streampose.export.output import write_text
from streampose.export.reader import ResultReader


def export_mot(reader: ResultReader, out: Path) -> Path:
    """Write the boxes of people in one of the reader's `states`; gives the file written.

    A coasting person is predicted and not seen, a tentative one may be nobody: both are left out where none are named.
    """
    states = {"confirmed"} if reader.states is None else reader.states

    def lines() -> Iterator[str]:
        for frame in reader.frames():
            for person in frame["people"]:
                if person["state"] in states:
                    x1, y1, x2, y2 = person["box"]
                    yield (
                        f"{frame['index'] + 1},{person['id']},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},"
                        f"{person['score']:.3f},-1,-1,-1\n"
                    )

    return write_text(out, lines())
