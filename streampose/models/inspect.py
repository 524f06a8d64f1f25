"""What a checkpoint is: which network its tensors fit, told by their names and shapes alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from streampose.errors import ModelError
from streampose.models.networks import running
from streampose.pose.checkpoint import State, head_name, layout_of, our_names, read_state
from streampose.pose.network import build_pose_network, list_networks


def pose_architecture(path: Path) -> dict[str, Any]:
    """The `architecture` of the pose network whose tensors `path` holds; raises ModelError where it is none we know."""
    state = read_state(path, as_model=True)
    layout = layout_of(state)
    if layout is None:
        raise ModelError(f"{path}: its {len(state)} tensors are of no HRNet or Lite-HRNet ({next(iter(state))} …)")
    tensors = our_names(state)
    for name in list_networks():
        if (joints := _fits(name, tensors)) is not None:
            return {"network": name, "joints": joints}
    raise ModelError(f"{path}: has {layout} names, but its shapes are of no preset ({', '.join(list_networks())})")


def _fits(name: str, tensors: State) -> int | None:
    """The number of joints, where `tensors` are those of preset `name`."""
    with torch.device("meta"):
        network = build_pose_network({"network": name, "joints": 1})
    head = head_name(network)
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items() if not key.startswith(head)}
    found = {key: tuple(value.shape) for key, value in tensors.items() if not key.startswith(head)}
    counters = "num_batches_tracked"
    same = {k: v for k, v in wanted.items() if counters not in k} == {
        k: v for k, v in found.items() if counters not in k
    }
    weight = tensors.get(f"{head}.weight")
    return int(weight.shape[0]) if same and weight is not None else None


def cost_of(network: nn.Module, width: int, height: int) -> dict[str, float]:
    """What a manifest's `measured` says of a network's cost: `parameters_m` in millions, `gmacs` in 10^9 a picture, both
    to three digits. Raises ModelError where it does not take pictures of that size."""
    with running(width, height):
        cost = {"parameters_m": count_parameters(network) / 1e6, "gmacs": count_gmacs(network.eval(), width, height)}
    return {name: float(f"{value:.3g}") for name, value in cost.items()}


def count_parameters(network: nn.Module) -> int:
    """Learned numbers of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_gmacs(network: nn.Module, width: int, height: int) -> float:
    """Multiply-accumulates, in 10^9, of convolutions and linear layers for one picture of `width` x `height` pixels."""
    total = 0

    def count(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            total += output.numel() * module.in_channels // module.groups * kernel
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features

    handles = [module.register_forward_hook(count) for module in network.modules()]
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, height, width, device=next(network.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return total / 1e9
