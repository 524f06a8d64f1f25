"""`streampose bench models`: time the networks on this machine, by runtime, precision and batch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streampose.cli.evaluate import write_json

PRESETS = ["hrnet_w32@192x256"]


def models(
    pose: Annotated[
        list[str] | None, typer.Option(help="A pose model; repeatable. The shipped ones by default.")
    ] = None,
    detector: Annotated[
        list[str] | None, typer.Option(help="A detector; repeatable. The shipped one by default.")
    ] = None,
    preset: Annotated[
        list[str] | None, typer.Option(help="NETWORK@WIDTHxHEIGHT with random weights; repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, openvino:GPU, onnx:tensorrt …")] = "cpu",
    setup: Annotated[
        list[str] | None, typer.Option(help="RUNTIME:PRECISION; repeatable. What the device has by default.")
    ] = None,
    size: Annotated[
        str, typer.Option(help="Of the detector's input, WIDTHxHEIGHT, unless its file takes one size alone.")
    ] = "640x384",
    trust: Annotated[
        bool, typer.Option(help="Open a detector's pickled .pt of unknown origin (it can run code).")
    ] = False,
    batch: Annotated[list[int] | None, typer.Option(min=1, max=64, help="Batch sizes; repeatable.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a network; all cores by default.")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Time spent on each model.")] = 30.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to FILE.")] = None,
) -> None:
    """Milliseconds a person and a frame, against torch fp32 eager in the same run."""
    from streampose.bench.models import BenchModelsOptions, bench_models
    from streampose.errors import UsageError
    from streampose.models.load import DEFAULT_DETECTOR, DEFAULT_POSE
    from streampose.models.resolve import local_models

    width, mark, height = size.partition("x")
    sides = [int(side) if mark and side.isdecimal() else 0 for side in (width, height)]
    if not all(sides) or any(side % 32 for side in sides):
        raise UsageError(f"--size {size}: expected WIDTHxHEIGHT, multiples of 32, such as 640x384")
    shipped = [name for name in (DEFAULT_POSE, "litehrnet18_128x96") if name in local_models()]
    chosen = pose is not None or detector is not None or preset is not None
    found = bench_models(
        BenchModelsOptions(
            poses=tuple((pose or []) if chosen else shipped),
            detectors=tuple((detector or []) if chosen else [DEFAULT_DETECTOR]),
            presets=tuple((preset or []) if chosen else PRESETS),
            detector_size=(sides[0], sides[1]),
            trust=trust,
            setups=tuple(setup) if setup else None,
            device=device,
            batches=tuple(batch or (1, 4)),
            threads=threads,
            seconds=seconds,
        ),
        say=lambda line: typer.echo(f"{line} …", err=True),
    )
    _show(found)
    if json_file is not None:
        write_json(json_file, found)


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    machine = found["machine"]
    threads = found["options"]["threads"] or machine["cores"]
    if machine["gpu"]:
        print(machine["gpu"])
    print(
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_1min']}, {machine['system']}; {threads} threads"
    )
    print(", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version))
    columns = (
        "model",
        "input",
        "set-up",
        "got",
        "batch",
        "ms min",
        "ms median",
        "CPU ms",
        "to torch",
        "CPU to torch",
        "ready s",
    )
    table = Table(*columns)
    for column in table.columns[4:]:
        column.justify = "right"
    before = None
    for row in found["rows"]:
        if before not in (None, row["model"]):
            table.add_section()
        before = row["model"]
        figures = ("batch", "wall_ms_min", "wall_ms_median", "cpu_ms_min", "wall_to_torch", "cpu_to_torch", "ready_s")
        table.add_row(
            row["model"],
            f"{row['size'][0]}x{row['size'][1]}",
            row["setup"],
            row["got"],
            *("" if row[figure] is None else str(row[figure]) for figure in figures),
        )
    Console(width=140).print(table)
    print("Times are for one picture (a person's crop, a frame). min: an idle machine's; CPU: of all threads together.")
    for name, reason in found["left_out"].items():
        print(f"left out: {name} ({reason})")
