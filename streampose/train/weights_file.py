"""Trained weights as they ship: fp16 safetensors with their manifest, each written beside and renamed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from streampose.errors import SinkError, words_of
from streampose.models.manifest import Manifest, save


def write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as `path` (.safetensors), floats in half precision; every runtime turns them to what it computes in.

    Raises SinkError where it cannot; what was there before stays then.
    """
    check_weights_name(path)
    halves = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in state.items()
    }
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(halves, part, metadata={"format": "pt"})
        part.chmod(0o644)  # safetensors makes files that only their owner reads
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise SinkError(f"{path}: cannot write the weights ({words_of(error, 120)})") from error


def check_weights_name(path: Path) -> None:
    """Raise SinkError where a file of weights is not called .safetensors."""
    if path.suffix != ".safetensors":
        raise SinkError(f"{path}: weights are written as .safetensors")


def write_model(state: Mapping[str, Tensor], path: Path, describe: Callable[[Path], Manifest]) -> Manifest:
    """Write the weights and, of the same stem, the manifest that `describe` makes of them. Raises SinkError."""
    write_weights(state, path)
    manifest = describe(path)
    write_manifest(manifest, path.with_suffix(".yaml"))
    return manifest


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest. Raises SinkError where it cannot; what was there before stays then."""
    try:
        save(manifest, path)
    except OSError as error:
        raise SinkError(f"{path}: cannot write the manifest ({words_of(error)})") from error
