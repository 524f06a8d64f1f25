"""`streampose train detector RECIPE`: train the person detector, or go on with a training that was cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streampose.cli.training_sets import DataOption, ImagesOption, root_and_sets


def train_detector_command(
    recipe: Annotated[Path, typer.Argument(help="the recipe, for example configs/train/detector.yaml")],
    init: Annotated[
        Path | None,
        typer.Option(help="weights or model's name to start from, here or in the data's folder"),
    ] = None,
    data: DataOption = None,
    images: ImagesOption = None,
    out: Annotated[Path | None, typer.Option(help="folder of the run, instead of the recipe's")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="how many steps, instead of the recipe's")] = None,
    trust: Annotated[bool, typer.Option(help="Open a pickled .pt of unknown origin (it can run code).")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run in that folder")] = False,
) -> None:
    """Train the person detector by a recipe; writes NAME.safetensors, NAME.yaml, metrics.jsonl and curves.png."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from streampose.sinks.paths import check_apart
    from streampose.train.detector import train_detector
    from streampose.train.detector_config import read_recipe
    from streampose.train.memory import telling_of_memory

    if init is not None and init.is_file():
        init = init.absolute()  # what is named here is what lies here; else it is looked for as a recipe's is
    changes = {"init": init and str(init), "out": out and str(out), "steps": steps, "trust": trust or None}
    plan = read_recipe(recipe).model_copy(update={key: value for key, value in changes.items() if value is not None})
    root, sets = root_and_sets(data, images)
    told: dict[str, Any] = {} if root is None else {"root": str(root)}
    if sets:
        told |= {"sets": [str(path) for path in sets], "images": images and str(images.absolute())}
    plan = plan.model_copy(update={"data": plan.data.model_copy(update=told)})
    check_apart(Path(plan.out) / f"{plan.name}.yaml", [recipe])
    console = Console()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with telling_of_memory(), Progress(*columns, console=console) as bar:
        task = bar.add_task(plan.name, total=plan.steps)

        def progress(step: int, parts: dict[str, float]) -> None:
            told = " ".join(f"{name} {value:.2f}" for name, value in parts.items())
            bar.update(task, completed=step, description=f"{plan.name} {told}")

        def say(line: str) -> None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        train_detector(plan, resume=resume, say=say, progress=progress)
