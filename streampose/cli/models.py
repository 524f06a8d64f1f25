"""`streampose models`: what there is, get one, look at a file, export one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from streampose.models.catalogue import KnownModel

app = typer.Typer(help="The networks: list, fetch, check, export.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="As JSON on standard output.")]


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """Show the models on this machine and the published ones that can be fetched."""
    rows = _rows()
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("model", "task", "where", "input", "Mpar", "GMAC", "AP", "of", "licence", "verified by"):
        table.add_column(column, justify="right" if column in ("Mpar", "GMAC", "AP") else "left", no_wrap=True)
    notes = list(dict.fromkeys(row["ap_of"] for row in rows if row["ap"] is not None))
    for row in rows:
        cells = ("name", "task", "where", "input", "parameters_m", "gmacs", "ap", "note", "licence", "verified_by")
        shown = row | {"note": None if row["ap"] is None else notes.index(row["ap_of"]) + 1}
        table.add_row(*("" if shown[cell] is None else str(shown[cell]) for cell in cells))
    Console(width=150).print(table)
    print("AP in per cent, of:")
    for number, note in enumerate(notes, 1):
        print(f"  {number}  {note}")


def _rows() -> list[dict[str, Any]]:
    from streampose.errors import ModelError
    from streampose.models import manifest as manifests
    from streampose.models.catalogue import catalogue
    from streampose.models.resolve import fetched_folder, local_models

    rows: list[dict[str, Any]] = []
    local = local_models()
    for name, path in local.items():
        where = "fetched" if path.parent == fetched_folder().resolve() else "here"
        row: dict[str, Any] = {"name": name, "where": where, "file": str(path)}
        try:
            manifest, _ = manifests.load(path, verify=False)
        except ModelError as error:
            row |= dict.fromkeys(("task", "input", "parameters_m", "gmacs", "ap", "ap_of", "licence", "verified_by"))
            rows.append(row | {"where": "broken", "problem": str(error)})
            continue
        known = catalogue().get(name)
        measured = manifest.measured
        row |= {
            "task": manifest.task,
            "input": f"{manifest.input.width}x{manifest.input.height}",
            "parameters_m": known.parameters_m if known else measured.get("parameters_m"),
            "gmacs": known.gmacs if known else measured.get("gmacs"),
            "ap": known.ap if known else None,
            "ap_of": _of(known) if known else "",
            "measured": measured,
            "licence": manifest.licence,
            "verified_by": manifest.sha256[:12],
        }
        rows.append(row if known else row | _measured_ap(measured))
    for name, known in catalogue().items():
        if name not in local:
            rows.append(
                {
                    "name": name,
                    "task": known.task,
                    "where": "known",
                    "input": f"{known.size[0]}x{known.size[1]}",
                    "parameters_m": known.parameters_m,
                    "gmacs": known.gmacs,
                    "ap": known.ap,
                    "ap_of": _of(known),
                    "licence": known.licence,
                    "verified_by": known.sha256[:12] or "(no hash published)",
                    "url": known.url,
                    "note": known.note,
                }
            )
    return rows


def _of(known: KnownModel) -> str:
    return known.ap_of if "COCO" in known.ap_of else f"COCO val2017, {known.ap_of}"


def _measured_ap(measured: dict[str, Any]) -> dict[str, Any]:
    """The AP that a manifest of our own training states, and of what; {} where it states none."""
    of_people = measured.get("OKS-AP")
    if isinstance(of_people, dict) and isinstance(of_people.get("clean"), float):
        return {
            "ap": round(100 * of_people["clean"], 1),
            "ap_of": f"key points, {measured.get('people', 'its training')}",
        }
    if isinstance(measured.get("held_out_ap"), float):
        return {
            "ap": round(100 * measured["held_out_ap"], 1),
            "ap_of": "boxes of people, pictures that its training kept",
        }
    return {}


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A name of `streampose models list`.")],
    source: Annotated[Path | None, typer.Option("--from", help="A file brought by other means.")] = None,
    url: Annotated[str | None, typer.Option(help="Another address for the same file, such as a mirror.")] = None,
    sha256: Annotated[str | None, typer.Option(help="The hash it must have, where the publisher states none.")] = None,
    unverified: Annotated[bool, typer.Option(help="Take a file whose hash nobody states.")] = False,
) -> None:
    """Get a published model into the cache; the one verb that uses the network."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from streampose.models import fetch as fetching
    from streampose.models.catalogue import catalogue

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(name, total=None)
        path = fetching.fetch(
            name,
            source=source,
            url=url,
            sha256=sha256,
            unverified=unverified,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"{name}: {path}; use it by its name, such as --set {catalogue()[name].task}.model={name}")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A checkpoint, manifest or exported model.")],
    trust: Annotated[bool, typer.Option(help="Open a pickled .pt of unknown origin (it can run code).")] = False,
    record: Annotated[bool, typer.Option("--record", help="Write its cost, as counted, into its manifest.")] = False,
    as_json: Json = False,
) -> None:
    """Say what a model file is, which preset it fits, and whether it runs."""
    from streampose.models.check import check_file, record_cost

    facts = check_file(file, trust=trust)
    if record:
        facts["recorded in"] = str(record_cost(file, trust=trust))
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        print(f"{key:{width}}  {value}")


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="A model name, manifest or checkpoint.")],
    runtime: Annotated[str, typer.Option(help="openvino, onnx or torchscript.")] = "openvino",
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("exported"),
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the input, where not the manifest's.")] = None,
    trust: Annotated[bool, typer.Option(help="Open a pickled .pt of unknown origin (it can run code).")] = False,
) -> None:
    """Write a model for another program, with its difference from torch beside it."""
    from streampose.errors import UsageError
    from streampose.models.export import export as export_model
    from streampose.models.resolve import resolve_any

    found = resolve_any(name, trust=trust)
    parsed = None
    if size is not None:
        sides = size.lower().split("x")
        if len(sides) != 2 or not all(side.isdecimal() and int(side) % 32 == 0 and int(side) for side in sides):
            raise UsageError(f"--size {size}: WIDTHxHEIGHT in multiples of 32 is wanted, such as 640x384")
        parsed = (int(sides[0]), int(sides[1]))
    record = export_model(*found, runtime, out, parsed)
    print(
        f"{out}: {found[0].name} for {runtime}; greatest difference from torch {record['max_relative_difference']:.1e}"
    )
