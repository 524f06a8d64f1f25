"""What a pose training began with, as its checkpoints tell: going on and exporting are of that run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from streampose.errors import DataError, ModelError, UsageError
from streampose.models.manifest import load
from streampose.train.pose_config import PoseRecipe
from streampose.typed_yaml import explain


def start_of(recipe: PoseRecipe) -> dict[str, str]:
    """For a checkpoint: `start`, the sha256 of the file of `init`, and `licence` by the manifest beside it; each "" where
    there is none. Raises ModelError where the file cannot be read."""
    try:
        licence = start_licence(recipe)
    except (UsageError, ModelError):  # whoever exports is asked for it then
        licence = ""
    return {"start": recipe.start_digest(), "licence": licence}


def start_licence(recipe: PoseRecipe) -> str:
    """The licence of the weights that the recipe starts from, by the manifest beside them.

    Raises UsageError where there is none, ModelError where it is damaged.
    """
    beside = None if recipe.init is None else recipe.found_weights(recipe.init).with_suffix(".yaml")
    if beside is None or not beside.is_file():
        missing = "the recipe names no `init`" if beside is None else f"{beside} is missing"
        raise UsageError(f"--licence: say which the weights have; {missing}, which would say that of the start")
    return load(beside, verify=False)[0].licence


def going_on(recipe: PoseRecipe, state: Mapping[str, Any]) -> PoseRecipe:
    """`recipe` with the start of the run that has saved `state`; as it is where that does not say it, as older ones."""
    if "start" not in state:
        return recipe
    init = state["recipe"].get("init")
    return recipe.model_copy(update={"init": None if init is None else Path(init)})


def recipe_of_run(plan: PoseRecipe, state: Mapping[str, Any], checkpoint: Path) -> PoseRecipe:
    """The recipe by which the run made `state`, read from `checkpoint`; `plan` where it does not say it, as older ones.

    Raises DataError where this version cannot read it.
    """
    if "start" not in state:
        return plan
    try:
        return PoseRecipe.model_validate(state.get("recipe"))
    except ValidationError as error:
        raise DataError(
            f"{checkpoint}: the recipe in it is of another version: {explain(error, PoseRecipe)}"
        ) from error


def check_start(recipe: PoseRecipe, state: Mapping[str, Any], checkpoint: Path) -> None:
    """Raise UsageError where `init` is not the file with which the run of `state` began, ModelError where it cannot be read;
    an older checkpoint does not tell."""
    if "start" not in state or state["start"] == recipe.start_digest():
        return
    made = f"one of sha256 {state['start'][:12]}…; name that file by --init" if state["start"] else "none"
    raise UsageError(f"{checkpoint}: the run began with another start than {recipe.init}: {made}")
