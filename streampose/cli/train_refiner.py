"""`streampose train refiner RECIPE`: better key points, and scores to be trusted, for a pose network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streampose.cli.training_sets import DataOption, ImagesOption, root_and_sets


def train_refiner_command(
    recipe: Annotated[Path, typer.Argument(help="The recipe, for example configs/train/refiner.yaml.")],
    model: Annotated[
        Path | None, typer.Option(help="Name or manifest of the pose model to refine, instead of the recipe's.")
    ] = None,
    data: DataOption = None,
    images: ImagesOption = None,
) -> None:
    """Train a refiner for a pose model; writes MODEL.refiner-….safetensors beside it and names it in the manifest, where it
    is better than none and than the one there is."""
    from rich.console import Console

    from streampose.train.memory import telling_of_memory
    from streampose.train.refiner import train_refiner
    from streampose.train.refiner_config import read_refiner_recipe

    if model is not None and model.is_file():
        model = model.absolute()
    root, sets = root_and_sets(data, images)
    changes: dict[str, Any] = {"root": root, "model": model}
    changes = {key: value for key, value in changes.items() if value is not None}
    if sets:
        changes |= {"data": tuple(sets), "images": images and images.absolute()}
    console = Console()

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with telling_of_memory():
        result = train_refiner(read_refiner_recipe(recipe).model_copy(update=changes), say)
    for view, alone in result.alone.items():
        steps = [alone, *([result.before[view]] if result.before else []), result.after[view]]
        ap, ap50 = (" to ".join(f"{getattr(step, name):.3f}" for step in steps) for name in ("ap", "ap50"))
        say(f"{view}: AP {ap}, AP50 {ap50} on {alone.people} people")
    if result.before:
        say("(alone, with the refiner that it has, with the new one)")
    if result.manifest is None:
        say("not kept: the people kept to measure on gain nothing by it")
    else:
        say(f"{result.manifest} names it now")
