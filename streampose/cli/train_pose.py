"""`streampose train pose RECIPE`: train or fine-tune a pose network, or go on with a training that was cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streampose.cli.training_sets import DataOption, ImagesOption, root_and_sets


def train_pose_command(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="The recipe, for example configs/train/pose.yaml.")],
    init: Annotated[
        Path | None,
        typer.Option(help="Checkpoint or model's name to start from; with other joints the head is made anew."),
    ] = None,
    data: DataOption = None,
    images: ImagesOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run, instead of the recipe's.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="How many crops to see, instead of the recipe's.")] = None,
    subset: Annotated[int | None, typer.Option(min=1, help="Train on the first people only, to rehearse.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in that folder.")] = False,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the run's best weights to this .safetensors, with a manifest; trains nothing."),
    ] = None,
    blend: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="With --export: share of the way back to the recipe's teacher.")
    ] = 0.0,
    blend_init: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="With --export: before that, share of the way back to the start.")
    ] = 0.0,
    align: Annotated[
        str | None,
        typer.Option(
            help="With --export: sources, with commas, to whose labels by people the manifest moves each joint."
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="With --export: licence for the manifest, where not the start's.")
    ] = None,
) -> None:
    """Train a pose network by a recipe; writes best.pt, last.pt, metrics.jsonl and curves.png into the run's folder."""
    from rich.console import Console

    from streampose.cli.idle import refuse_idle
    from streampose.train.memory import telling_of_memory
    from streampose.train.pose_config import read_recipe

    if export is None:
        refuse_idle(context, {"--export": ("blend", "blend_init", "align", "licence")})
    if init is not None and init.is_file():
        init = init.absolute()  # what is named here is what lies here; else it is looked for as a recipe's is
    root, sets = root_and_sets(data, images)
    changes: dict[str, Any] = {"out": out, "root": root, "samples": samples, "subset": subset, "init": init}
    changes = {key: value for key, value in changes.items() if value is not None}
    if sets:
        changes |= {"data": tuple(sets), "images": images and images.absolute()}
    plan = read_recipe(recipe).model_copy(update=changes)
    console = Console()

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    if export is not None:
        from streampose.train.pose_export import export_run

        sources = tuple(name.strip() for name in align.split(",")) if align else ()
        with telling_of_memory():
            manifest = export_run(
                plan, export, recipe_file=recipe, given=changes, licence=licence, blend=blend, blend_init=blend_init,
                align=sources, say=say,
            )  # fmt: skip
        say(f"{export} and {export.with_suffix('.yaml').name} written, sha256 {manifest.sha256[:12]}…")
        return
    from streampose.train.pose import PoseTraining
    from streampose.train.pose_start import check_start
    from streampose.train.run_folder import read_checkpoint

    if resume and init is not None:
        last = plan.out / "last.pt"
        check_start(plan, read_checkpoint(last), last)
    with telling_of_memory():
        result = PoseTraining(plan, say, resume=resume).run()
    for view, figures in result.figures.items():
        say(f"{view}: AP {figures.ap:.3f}, AP50 {figures.ap50:.3f}, AR {figures.ar:.3f} on {figures.people} people")
    say(
        f"best weights: {result.best}; metrics and curves beside them. With --export NAME.safetensors they become a model"
    )
