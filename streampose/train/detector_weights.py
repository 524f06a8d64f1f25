"""What a detector's training leaves behind: weights in half precision and the manifest that says how to use them."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from streampose.detect.network import PeopleNetwork
from streampose.errors import SinkError
from streampose.models import manifest
from streampose.train.detector_config import Recipe


def save_weights(network: PeopleNetwork, path: Path) -> None:
    """Write the network's state as safetensors, float16: beside, then renamed. Raises SinkError where it cannot."""
    from safetensors.torch import save_file

    state = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in network.model.state_dict().items()
    }
    part = path.with_name(path.name + ".part")
    try:
        save_file(state, str(part))
        part.chmod(0o644)  # safetensors writes for the owner alone
        os.replace(part, path)
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise SinkError(f"{path}: cannot write the weights ({str(error).splitlines()[0]:.100})") from error


def save_model(network: PeopleNetwork, recipe: Recipe, folder: Path, step: int, figures: Mapping[str, float]) -> None:
    """Write `NAME.safetensors` and `NAME.yaml`, as they can be copied into `weights/`.

    The figures are rounded to three places and stand beside the command that makes them.
    """
    weights = folder / f"{recipe.name}.safetensors"
    save_weights(network, weights)
    manifest.save(
        manifest.Manifest(
            name=recipe.name,
            task="detect",
            architecture=recipe.architecture,
            weights=weights.name,
            sha256=manifest.sha256_of(weights),
            input=manifest.InputSpec(width=recipe.size, height=recipe.size),
            output=manifest.OutputSpec(kind="yolo_end2end" if network.end2end else "yolo"),
            licence=recipe.licence,
            origin=recipe.origin,
            training={
                "data": dict(recipe.data.licences),
                "step": step,
                "pictures": step * recipe.batch,
                "lr": recipe.lr,
                "machine": f"{_processor()}, {torch.get_num_threads()} thread(s)",
            },
            measured={
                "command": "streampose train detector configs/train/detector.yaml",
                "size": recipe.size,
                **{name: round(float(value), 3) for name, value in figures.items()},
            },
        ),
        folder / f"{recipe.name}.yaml",
    )


def _processor() -> str:
    """The processor's name, as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names: Any = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()
