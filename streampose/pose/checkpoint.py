"""Reading pose checkpoints: ours and the published layouts, each known by its keys, turned into our names.

Layouts: official HRNet and simple-HRNet (bare names, perhaps in a `state_dict` or with `module.`), MMPose (`backbone.`
and `head.` or `keypoint_head.` in front). Files are safetensors or pickles that `weights_only=True` accepts; nothing in
them is executed.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from streampose.errors import ModelError, words_of
from streampose.models.file_kind import require_pytorch
from streampose.pose.hrnet import HRNet

Layout = Literal["official", "mmpose", "lite"]
State = dict[str, Tensor]


def read_state(path: str | Path, *, as_model: bool = False) -> State:
    """The tensors of a checkpoint, float32, names as in the file; raises ModelError where it is none.

    `as_model` refuses what a training keeps for itself: it says nothing of its input, and is made a model by exporting.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint")
    if path.suffix != ".safetensors":
        require_pytorch(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_arrays()):
            warnings.simplefilter("ignore")  # of pickle's version: the one line below says all
            raw = (
                load_file(path)
                if path.suffix == ".safetensors"
                else torch.load(path, map_location="cpu", weights_only=True)
            )
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: not loaded: it holds more than tensors, or is damaged; convert it to safetensors"
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: not a checkpoint ({words_of(error, 90)})") from error
    if as_model and isinstance(raw, dict) and isinstance(raw.get("step"), int) and {"network", "student"} & raw.keys():
        raise ModelError(
            f"{path}: is a training's checkpoint, not a model; for a pose network `streampose train pose RECIPE --export "
            "NAME.safetensors` makes one of best.pt, a detector's is the .safetensors beside it"
        )
    for key in ("state_dict", "model", "network"):
        if isinstance(raw, dict) and isinstance(raw.get(key), dict):
            raw = raw[key]
    if not isinstance(raw, dict) or not raw:
        raise ModelError(f"{path}: not a checkpoint: it holds no state dict")
    state = {
        str(name).removeprefix("module."): value.float() if value.is_floating_point() else value
        for name, value in raw.items()
        if isinstance(value, Tensor)
    }
    if not state:
        raise ModelError(f"{path}: not a checkpoint: no tensors in it")
    return state


def _arrays() -> list[Any]:
    """What a pickled NumPy array of numbers is made of, by its names of old and new: MMPose keeps some beside tensors."""
    from numpy._core import multiarray

    reconstruct, scalar = multiarray._reconstruct, multiarray.scalar
    parts: list[Any] = [np.ndarray, np.dtype]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        parts += [(reconstruct, f"{module}._reconstruct"), (scalar, f"{module}.scalar")]
    return parts + [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "u1", "?")]


def layout_of(state: State) -> Layout | None:
    """Which published layout the names are of; None where they are of no HRNet."""
    if any(name.startswith("backbone.stem.branch1.") for name in state):
        return "lite"
    if any(name.startswith("backbone.stage2.") for name in state):
        return "mmpose"
    return "official" if "conv1.weight" in state and any(name.startswith("stage2.") for name in state) else None


def our_names(state: State) -> State:
    """The same tensors under the names of our networks, whatever layout they came in."""
    layout = layout_of(state)
    renamed = {name.replace("keypoint_head.", "head.", 1): value for name, value in state.items()}
    if layout == "mmpose":
        kept = ("backbone.", "head.final_layer.")
        renamed = {
            n.removeprefix("backbone.").removeprefix("head."): v for n, v in renamed.items() if n.startswith(kept)
        }
    return renamed


def head_name(network: nn.Module) -> str:
    """Name of the last convolution, the one that knows how many joints there are."""
    return "final_layer" if isinstance(network, HRNet) else "head.final_layer"


def load_weights(network: nn.Module, path: str | Path, *, remake_head: bool = False) -> str | None:
    """Load a checkpoint of any known layout into `network`.

    Where the number of joints differs and `remake_head` is set, the head keeps its random weights, and the sentence that
    says so is returned. Raises ModelError, in one line, for a file that is no checkpoint, or one of other joints or of
    another preset.
    """
    return load_state(network, our_names(read_state(path)), path, remake_head=remake_head)


def load_state(network: nn.Module, state: State, path: str | Path, *, remake_head: bool = False) -> str | None:
    """The same for tensors under our names that were read from `path`."""
    own, head = network.state_dict(), head_name(network)
    note = None
    found, wanted = state.get(f"{head}.weight"), own[f"{head}.weight"]
    if found is not None and found.shape[1:] == wanted.shape[1:] and found.shape != wanted.shape:
        note = f"{path}: has {found.shape[0]} joints, {wanted.shape[0]} are wanted"
        if not remake_head:
            raise ModelError(note)
        note += ": the head starts from random weights"
        state = {**state, f"{head}.weight": wanted, f"{head}.bias": own[f"{head}.bias"]}
    counters = {name: own[name] for name in own if name.endswith("num_batches_tracked") and name not in state}
    state = {**state, **counters}
    missing = [name for name in own if name not in state]
    foreign = [name for name in state if name not in own]
    if missing or foreign:
        what = f"lacks {missing[0]}" if missing else f"has {foreign[0]}, which the network has not"
        raise ModelError(
            f"{path}: of another network: it {what} ({len(missing)} missing, {len(foreign)} unknown names)"
        )
    wrong = [name for name in own if own[name].shape != state[name].shape]
    if wrong:
        shapes = f"{tuple(state[wrong[0]].shape)}, the network's is {tuple(own[wrong[0]].shape)}"
        raise ModelError(f"{path}: of another preset: {wrong[0]} is {shapes} ({len(wrong)} of {len(own)} differ)")
    network.load_state_dict(state)
    return note
