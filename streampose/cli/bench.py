"""`streampose bench`: time the parts of the pipeline on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streampose.cli.bench_models import models
from streampose.cli.evaluate import write_json

app = typer.Typer(help="Time the pipeline and the networks on this machine.", no_args_is_help=True)
app.command("models")(models)


@app.command("pipeline")
def pipeline(
    video: Annotated[Path | None, typer.Option(help="A video file; without it figures are painted.")] = None,
    people: Annotated[int, typer.Option(min=1, max=50, help="How many people.")] = 5,
    size: Annotated[str, typer.Option(help="Of the painted video, WIDTHxHEIGHT.")] = "1280x720",
    frames: Annotated[int, typer.Option(min=10, max=500, help="How many frames are timed.")] = 100,
    networks: Annotated[bool, typer.Option("--networks/--no-networks", help="Also run the real networks.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to FILE.")] = None,
) -> None:
    """CPU time of everything that is not a network, part by part, and the whole against its networks."""
    from streampose.bench.pipeline import BenchOptions, bench_pipeline
    from streampose.errors import UsageError

    width, mark, height = size.partition("x")
    if not (mark and width.isdecimal() and height.isdecimal()):
        raise UsageError(f"--size {size}: expected WIDTHxHEIGHT, such as 1280x720")
    options = BenchOptions(video, people, int(width), int(height), frames=frames, networks=networks)
    found = bench_pipeline(options, say=lambda line: typer.echo(f"{line} …", err=True))
    _show(found)
    if json_file is not None:
        write_json(json_file, found)


@app.command("smoothing")
def smoothing(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to FILE.")] = None,
) -> None:
    """Position error, acceleration error and lag of raw, live and offline key points, where the truth is known."""
    from streampose.bench.smoothing import RATES, measure, record, table

    rows = [row for fps in RATES for row in measure(fps)]
    print(table(rows))
    if json_file is not None:
        write_json(json_file, record(rows))


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    machine, console = found["machine"], Console(width=100)
    print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_1min']}, {machine['system']}")
    width, height = found["size"]
    print(f"{found['video']}, {width}x{height} {found['codec']}, {found['people']} people, {found['frames']} frames")
    table = Table("part", "CPU ms a frame")
    table.columns[1].justify = "right"
    for name, value in found["parts_ms"].items():
        table.add_row(name, f"{value:.2f}")
    table.add_section()
    table.add_row(f"sum (aim: {found['aim_ms']:.0f})", f"{found['parts_sum_ms']:.2f}")
    whole = found["constant_networks"]
    table.add_row("the whole pipeline, constant networks, one core", f"{whole['cpu_ms_per_frame']:.2f}")
    table.add_row("the same on all cores", f"{whole['all_cores']['cpu_ms_per_frame']:.2f}")
    console.print(table)
    if (real := found.get("real_networks")) is not None:
        detector, pose = real["detector"], real["pose"]
        print(f"detector {detector['name']} {detector['precision']}: {detector['ms_per_frame']:.1f} ms a frame")
        print(
            f"pose {pose['name']} {pose['precision']}: {pose['ms_per_person']:.1f} ms a person, {pose['people']} people"
        )
        print(
            f"whole pipeline {real['wall_s']:.2f} s, in networks {real['networks_s']:.2f} s: "
            f"{real['wall_over_networks']:.2f} of it ({real['frames']} frames)"
        )
