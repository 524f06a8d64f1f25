"""From a training's checkpoint to what ships: weights, blended with the teacher's where asked, and their manifest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from streampose.errors import ConfigError, ModelError, SinkError
from streampose.evaluate.set_files import archive_of, set_name
from streampose.models.inspect import cost_of
from streampose.models.manifest import Manifest, sha256_of
from streampose.models.resolve import SKELETON
from streampose.pose.checkpoint import load_weights
from streampose.pose.decode import decode_heatmaps
from streampose.pose.network import build_pose_network
from streampose.pose.skeleton import load_skeleton
from streampose.sinks.paths import check_apart
from streampose.train.pose_config import PoseRecipe
from streampose.train.pose_data import check_sources, load_people, open_sets, split_people
from streampose.train.pose_start import check_start, recipe_of_run, start_licence
from streampose.train.pose_teacher import AHEAD_AT_ONCE, PoseTeacher, label_moves, still_affine
from streampose.train.precision import Arithmetic
from streampose.train.run_folder import read_checkpoint, writing
from streampose.train.weights_file import check_weights_name, write_model
from streampose.typed_yaml import read_model

log = logging.getLogger(__name__)
Say = Callable[[str], None]


def export_run(
    plan: PoseRecipe,
    target: Path,
    *,
    recipe_file: Path,
    given: Collection[str],
    licence: str | None = None,
    blend: float = 0.0,
    blend_init: float = 0.0,
    align: Sequence[str] = (),
    say: Say = log.info,
) -> Manifest:
    """Export (`export_pose`) best.pt of the run in `plan.out` by the recipe and with the licence and start that it has kept.

    Of `plan`, which is read from `recipe_file`, only those of `root`, `data`, `images` and `init` count that are `given`:
    what the run needs may have moved. A checkpoint that has kept nothing, of before it was, is exported by `plan`. Raises as
    `export_pose` does, UsageError for another start or where nobody says the licence, SinkError where `target` would write
    over what is read.
    """
    checkpoint = plan.out / "best.pt"
    state = read_checkpoint(checkpoint)
    made = recipe_of_run(plan, state, checkpoint)
    moved = {key: getattr(plan, key) for key in ("root", "data", "images", "init") if key in given}
    recipe = made.model_copy(update=moved)
    _check_target(target, recipe, (recipe_file, checkpoint))
    licence = licence or state.get("licence")
    if blend_init or "init" in moved or not licence:
        check_start(recipe, state, checkpoint)
    return export_pose(
        recipe, checkpoint, target, licence=licence or start_licence(recipe), training=training_summary(made, checkpoint),
        blend=blend, blend_init=blend_init, align=align, say=say,
    )  # fmt: skip


def _check_target(target: Path, recipe: PoseRecipe, read: Sequence[Path]) -> None:
    """Raise SinkError where an export to `target` would write over what is `read`, a file of `recipe`, or a YAML that is no
    model's manifest."""
    check_weights_name(target)
    manifest = target.with_suffix(".yaml")
    sources = [*read, Path(recipe.skeleton), *(archive_of(recipe.found(path))[0] for path in recipe.data)]
    for weights in (recipe.init, recipe.teacher):
        if weights is not None:
            with suppress(ModelError):  # what is not there any more cannot be written over
                found = recipe.found_weights(weights)
                sources += [found, found.with_suffix(".yaml")]
    for path in (target, manifest, target.with_name(f"{target.stem}{SKELETON}")):
        check_apart(path, sources)
    if manifest.exists():
        try:
            read_model(manifest, Manifest, ModelError, "model manifest", "")
        except ModelError as error:
            raise SinkError(
                f"{manifest}: is no model's manifest and would be written over; choose another name"
            ) from error


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
    blend_init: float = 0.0,
    align: Sequence[str] = (),
    say: Say = log.info,
) -> Manifest:
    """Write `target` (.safetensors) and the manifest of the same stem from `checkpoint` (best.pt of a run).

    With `blend_init` the weights go that share of the way back to the recipe's `init`, then with `blend` that share of the
    way to its teacher: between a network and its own fine-tuned child the straight line keeps most of what both can
    (Wortsman et al., "WiSE-FT", CVPR 2022). With `align` the manifest's `output.shift` moves each joint to where the people
    who labelled these sources put it, and `say` hears how far. A skeleton that is a file of its own is copied beside the
    manifest. The network's cost is counted and joins `measured`. Raises ModelError where the checkpoint is none or another
    network's, ConfigError with no start or teacher to go back to or too few labels to align with, SinkError where the target
    cannot be written.
    """
    architecture = {"network": recipe.network, "joints": len(load_skeleton(recipe.skeleton).keypoints)}
    network = build_pose_network(architecture)
    load_weights(network, checkpoint)
    if blend_init:
        if recipe.init is None:
            raise ConfigError("blending goes back to the recipe's `init`, and it names none")
        _go_back(network, build_pose_network(architecture), recipe.found_weights(recipe.init), blend_init)
    if blend:
        if recipe.teacher is None or recipe.teacher_zoom != 1:
            raise ConfigError("blending goes back to the recipe's `teacher`, and it names none of the same input")
        _go_back(network, build_pose_network(architecture), recipe.found_weights(recipe.teacher), blend)

    shift = _label_shift(network, recipe, align, say) if align else None
    skeleton = recipe.skeleton
    if Path(skeleton).suffix in (".yaml", ".yml"):
        skeleton = f"{target.stem}{SKELETON}"
        _copy(Path(recipe.skeleton), target.with_name(skeleton))

    def describe(weights: Path) -> Manifest:
        return Manifest(
            name=target.stem,
            task="pose",
            architecture=architecture,
            weights=weights.name,
            sha256=sha256_of(weights),
            input=recipe.input,
            output=recipe.output.model_copy(update={"skeleton": skeleton, "shift": shift}),
            licence=licence,
            origin=origin,
            training=training or {},
            measured={**cost_of(network, recipe.input.width, recipe.input.height), **(measured or {})},
        )

    state = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    return write_model(state, target, describe)


def _copy(source: Path, target: Path) -> None:
    """Copy a skeleton's file. Raises SinkError where it cannot be written."""
    content = source.read_bytes()
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _go_back(network: nn.Module, start: nn.Module, path: Path, share: float) -> None:
    """Move the weights of `network` by `share` of the way to those in `path`, which are read into `start`."""
    load_weights(start, path)
    with torch.no_grad():
        for own, other in zip(network.state_dict().values(), start.state_dict().values(), strict=True):
            if own.is_floating_point():
                own.lerp_(other, share)


def _label_shift(
    network: nn.Module, recipe: PoseRecipe, sources: Sequence[str], say: Say
) -> tuple[tuple[float, float], ...]:
    """What `output.shift` has to be for `network` to agree with the labels of `sources` among the people trained on."""
    skeleton = load_skeleton(recipe.skeleton)
    sets = open_sets(recipe, skeleton)
    check_sources(sets, sources, "align")
    trained, _ = split_people(sets, recipe.holdout)
    people = [[person for person in part if person.image.source in sources] for part in trained]
    if not any(people):
        known = ", ".join(sorted({person.image.source for part in trained for person in part}))
        raise ConfigError(f"{', '.join(sources)}: nobody to train on is from these sources; there are {known}")
    store = load_people(sets, people, recipe.input, torch.device("cpu"))
    for each in sets:
        each.close()
    plain = recipe.model_copy(update={"teacher_flip": False, "teacher_turns": (), "teacher_zoom": 1})
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (recipe.input.mean, recipe.input.std))
    asked = PoseTeacher(network.eval(), plain, skeleton, mean, std)
    said = []
    for rows in torch.arange(len(store)).split(AHEAD_AT_ONCE):
        batch = store.batch(rows)
        heat = asked.look(batch, still_affine(batch, plain), Arithmetic("fp32", channels_last=False))
        said.append(decode_heatmaps(heat.numpy(), recipe.output))
    moves = label_moves(np.concatenate(said), store, plain, skeleton, sources)
    shift = tuple((round(x, 2), round(y, 2)) for x, y in moves.tolist())
    told = [f"{name} {x:g} {y:g}" for name, (x, y) in zip(skeleton.keypoints, shift, strict=True) if x or y]
    size = f"{recipe.input.width}x{recipe.input.height}"
    say(f"moved, in pixels of the {size} crop to the right and down: {', '.join(told) or 'nothing'}; other joints stay")
    return shift


def training_summary(recipe: PoseRecipe, checkpoint: Path) -> dict[str, Any]:
    """What a manifest says of a training: recipe figures and how far `checkpoint` had come.

    Raises DataError where it is no checkpoint of a training.
    """
    return {
        "recipe": recipe.model_dump(
            mode="json", include={"samples", "batch", "lr", "ema", "seed", "freeze_norms", "loss", "augment"}
        ),
        "crops_seen": read_checkpoint(checkpoint)["step"] * recipe.batch,
        "sets": [set_name(recipe.found(path)) for path in recipe.data],
    }
