"""From a training's checkpoint to what ships: fp16 safetensors and their manifest, both written beside and renamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from streampose.errors import ConfigError, SinkError
from streampose.models.manifest import Manifest, save, sha256_of
from streampose.pose.checkpoint import State, our_names, read_state
from streampose.pose.skeleton import load_skeleton
from streampose.train.pose_config import PoseRecipe


def export_pose(
    recipe: PoseRecipe,
    checkpoint: Path,
    target: Path,
    *,
    licence: str,
    origin: str = "",
    training: dict[str, Any] | None = None,
    measured: dict[str, Any] | None = None,
    blend: float = 0.0,
) -> Manifest:
    """Write `target` (.safetensors) and the manifest of the same stem from `checkpoint` (best.pt of a run).

    With `blend` the weights go that share of the way back to the recipe's teacher: between a network and its own
    fine-tuned child the straight line keeps most of what both can (Wortsman et al., "WiSE-FT", CVPR 2022).
    Weights are stored as fp16, half the bytes; every runtime turns them to what it computes in. Raises ModelError where
    the checkpoint is none, ConfigError without a teacher to go back to, SinkError where the target cannot be written.
    """
    if target.suffix != ".safetensors":
        raise SinkError(f"{target}: weights are written as .safetensors")
    trained = read_state(checkpoint)
    if blend:
        if recipe.teacher is None:
            raise ConfigError("blending goes back to the recipe's `teacher`, and it names none")
        start = our_names(read_state(recipe.found(recipe.teacher)))
        trained = {name: torch.lerp(value, start[name].to(value), blend) for name, value in _floats(trained).items()}
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in trained.items()
        if not name.endswith("num_batches_tracked")
    }
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, part, metadata={"format": "pt"})
        part.chmod(0o644)  # safetensors makes files that only their owner reads
        os.replace(part, target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SinkError(f"{target}: cannot be written ({error.strerror})") from error
    manifest = Manifest(
        name=target.stem,
        task="pose",
        architecture={"network": recipe.network, "joints": len(load_skeleton(recipe.skeleton).keypoints)},
        weights=target.name,
        sha256=sha256_of(target),
        input=recipe.input,
        output=recipe.output.model_copy(update={"skeleton": recipe.skeleton}),
        licence=licence,
        origin=origin,
        training=training or {},
        measured=measured or {},
    )
    save(manifest, target.with_suffix(".yaml"))
    return manifest


def _floats(state: State) -> State:
    return {name: value for name, value in state.items() if value.is_floating_point()}


def training_summary(recipe: PoseRecipe, checkpoint: Path) -> dict[str, Any]:
    """What a manifest says of a training: recipe figures and how far `checkpoint` had come."""
    step = int(torch.load(checkpoint, map_location="cpu", weights_only=True).get("step", 0))
    return {
        "recipe": recipe.model_dump(
            mode="json", include={"samples", "batch", "lr", "ema", "seed", "freeze_norms", "loss", "augment"}
        ),
        "crops_seen": step * recipe.batch,
        "sets": [path.name for path in recipe.data],
    }
