"""What a detector's training leaves behind: weights in half precision and the manifest that says how to use them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from streampose.detect.network import PeopleNetwork
from streampose.evaluate.set_files import set_name
from streampose.models.inspect import cost_of
from streampose.models.manifest import InputSpec, Manifest, OutputSpec, sha256_of
from streampose.runtime.select import core_count, cpu_name
from streampose.train.detector_config import Recipe
from streampose.train.run_folder import finite
from streampose.train.weights_file import write_model


def save_model(network: PeopleNetwork, recipe: Recipe, folder: Path, step: int, figures: Mapping[str, float]) -> None:
    """Write `NAME.safetensors` and `NAME.yaml`, as they can be copied into `weights/`. Raises SinkError.

    The figures are rounded to three places, null where nobody was there to be measured; beside them stands the command that
    makes them.
    """

    def describe(weights: Path) -> Manifest:
        return Manifest(
            name=recipe.name,
            task="detect",
            architecture=recipe.architecture,
            weights=weights.name,
            sha256=sha256_of(weights),
            input=InputSpec(width=recipe.size, height=recipe.size),
            output=OutputSpec(kind=network.output_kind),
            licence=recipe.licence,
            origin=recipe.origin,
            training={
                "data": dict(recipe.data.licences),
                "sets": [set_name(recipe.data.found(name)) for name in recipe.data.sets],
                "step": step,
                "pictures": step * recipe.batch,
                "lr": recipe.lr,
                "machine": f"{cpu_name()}, {core_count()} cores, {torch.get_num_threads()} thread(s)",
            },
            measured={
                **cost_of(network, recipe.size, recipe.size),
                "command": f"streampose train detector {recipe.file}",
                "size": recipe.size,
                **{name: finite(round(float(value), 3)) for name, value in figures.items()},
            },
        )

    write_model(network.model.state_dict(), folder / f"{recipe.name}.safetensors", describe)
