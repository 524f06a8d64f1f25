"""`streampose export`: a JSONL result in the formats that others read."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from streampose.errors import UsageError


class Format(StrEnum):
    """What a result can become."""

    coco = "coco"
    mot = "mot"
    openpose = "openpose"
    csv = "csv"
    parquet = "parquet"


ENDINGS = {
    Format.coco: ".coco.json",
    Format.mot: ".mot.txt",
    Format.openpose: "_openpose",
    Format.csv: ".csv",
    Format.parquet: ".parquet",
}


def export(
    result: Annotated[Path, typer.Argument(help="A JSONL result, such as out/gate.jsonl.")],
    format: Annotated[  # noqa: A002  (the option is called --format)
        Format,
        typer.Option(
            "--format",
            "-f",
            help="coco: key-point results; mot: boxes and ids; openpose: a JSON for each frame; "
            "csv, parquet: a row for each person and joint.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Where to; beside the result if not given; - is standard output, and a pipe is written through. "
            "openpose: a folder.",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="coco: an annotation file whose image ids to use, by file name.")
    ] = None,
    states: Annotated[
        str | None,
        typer.Option(
            "--states",
            help="Which people, of confirmed, tentative, coasting; by comma. If not given: mot confirmed, others all.",
        ),
    ] = None,
) -> None:
    """Write RESULT in another format."""
    from streampose.export.output import is_written_through
    from streampose.export.reader import ResultReader
    from streampose.sinks.paths import check_apart

    if images is not None and format is not Format.coco:
        raise UsageError("--images belongs to --format coco")
    target = target_of(result, out, ENDINGS[format])
    if format is Format.openpose and is_written_through(target):
        raise UsageError(f"--out {out}: openpose is a folder; standard output, a pipe or a device cannot be one")
    reader = ResultReader(result, None if states is None else _states(states))
    check_apart(target, [read for read in (result, images) if read is not None])
    if format is Format.coco:
        from streampose.export.coco import export_coco, read_image_ids

        written = export_coco(reader, target, None if images is None else read_image_ids(images))
    elif format is Format.mot:
        from streampose.export.mot import export_mot

        written = export_mot(reader, target)
    elif format is Format.openpose:
        from streampose.export.openpose import export_openpose

        written = export_openpose(reader, target)
    elif format is Format.csv:
        from streampose.export.csv_table import export_csv

        written = export_csv(reader, target)
    else:
        from streampose.export.parquet import export_parquet

        written = export_parquet(reader, target)
    say_where(written)


def target_of(result: Path, out: Path | None, ending: str) -> Path:
    """Where to write: `out`, - being standard output, else beside `result`; raises UsageError where that is no file of its
    own."""
    from streampose.export.output import is_written_through

    if out is not None:
        return Path("/dev/stdout") if out == Path("-") else out
    if is_written_through(result):
        raise UsageError(f"{result}: is no file, beside which something could be written; say where to with --out")
    return result.with_name(result.stem + ending)


def say_where(written: Path) -> None:
    """Print what was written: to standard error where standard output may be what was written to."""
    from streampose.export.output import is_written_through

    print(written, file=sys.stderr if is_written_through(written) else sys.stdout)


def _states(text: str) -> set[str]:
    known = {"confirmed", "tentative", "coasting"}
    chosen = {word.strip() for word in text.split(",") if word.strip()}
    if not chosen or not chosen <= known:
        raise UsageError(f"--states {text}: give some of confirmed, tentative, coasting, by comma")
    return chosen
