"""`streampose plot`: a person's joint paths, raw against smoothed, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streampose.cli.export import say_where, target_of


def plot(
    result: Annotated[Path, typer.Argument(help="A JSONL result, such as out/gate.jsonl.")],
    id: Annotated[  # noqa: A002  (the option is called --id)
        int | None, typer.Option("--id", help="Which person; the one seen longest if not given.")
    ] = None,
    joint: Annotated[
        list[str] | None, typer.Option("--joint", "-j", help="A joint, such as left_wrist; repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The picture; RESULT.png if not given; - is standard output.")
    ] = None,
) -> None:
    """Draw the joint paths of a person of RESULT over time to PNG."""
    from streampose.export.plot import plot_track
    from streampose.export.reader import ResultReader
    from streampose.export.track_series import longest_track, read_track

    target = target_of(result, out, ".png")
    reader = ResultReader(result)
    chosen = longest_track(reader) if id is None else id
    usual = [name for name in ("left_wrist", "right_wrist", "left_ankle") if name in reader.keypoints]
    series = read_track(reader, chosen, joint or usual or list(reader.keypoints[:3]))
    say_where(plot_track(series, target, f"{reader.camera}: person {chosen}, {len(series.times_s)} frames"))
