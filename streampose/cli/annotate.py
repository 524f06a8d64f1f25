"""`streampose annotate`: recordings and pictures in, JSONL and annotated video or pictures out, one after the other."""

from __future__ import annotations

import json
import logging
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from streampose.cli.run import Settings

log = logging.getLogger(__name__)


def annotate(
    paths: Annotated[list[str], typer.Argument(help="Videos, pictures, or folders of pictures.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; made where it is missing.")],
    overlay: Annotated[bool, typer.Option("--overlay/--no-overlay", help="Also draw: a video or pictures.")] = True,
    print_: Annotated[
        bool,
        typer.Option(
            "--print",
            help="Print {name: {bounding_box: N×4, key_points: N×17×3}} of pictures as JSON; "
            "where several have one name, their paths are the keys. The report goes to standard error.",
        ),
    ] = False,
    settings: Settings = None,
) -> None:
    """Annotate recordings and pictures.

    A video gives OUT/<stem>.jsonl and OUT/<stem>.mp4, smoothed without lag (--set smooth.offline=false turns that off).
    Pictures and folders give one OUT/<folder>.jsonl and a picture each.
    """
    from streampose.annotate import by_name, check_printable, jobs_for, people_of_pictures, recorded
    from streampose.build import check_recordings
    from streampose.build_models import load_models
    from streampose.build_sinks import check_outputs, first_files, reserved_files
    from streampose.cli.execute import Signals, execute_with, finish, reserved
    from streampose.errors import StreamposeError, UsageError

    if {"{", "}"} & set(str(out)):
        raise UsageError(f"--out {out}: a brace in it would make it a template; name a folder without one")
    started_s = time.monotonic()
    inputs = [recorded(path) for path in paths]
    if print_:
        check_printable(inputs)
    jobs = jobs_for(inputs, out, overlay=overlay, settings=settings or [])
    for job in jobs:
        check_outputs(job.config)
    begun = frozenset(path for job in jobs for path in first_files(job.config))
    failures: list[Exception] = []
    printed: dict[Path, Any] = {}
    tell = partial(print, file=sys.stderr) if print_ else print  # what reads the dictionary gets nothing else
    with Signals() as signals, reserved() as outputs:
        outputs.take(path for job in jobs for path in reserved_files(job.config))
        models = load_models(jobs[0].config)
        for job in jobs:
            if signals.times:
                break
            files = reserved_files(job.config)
            try:
                outputs.take(files)
                check_recordings(job.config)
                failures += execute_with(job.config, models, signals, started_s=started_s, others=begun, tell=tell)
            except StreamposeError as error:
                log.error("%s", error)
                failures.append(error)
                continue
            finally:
                outputs.release(files)
            if print_:
                printed.update(people_of_pictures(job))
    if print_:
        json.dump(by_name(printed), sys.stdout)
        print()
    finish(failures, signals)
