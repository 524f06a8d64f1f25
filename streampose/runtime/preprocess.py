"""Pictures as they come to a network as it wants them, as part of the network: uint8 BGR in, normalised planes out."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from streampose.models.manifest import InputSpec


class WithPreprocessing(nn.Module):  # type: ignore[misc, unused-ignore]
    """`network` for pictures (B, H, W, 3) uint8 BGR instead of (B, 3, H, W) normalised floats.

    Channel order, mean and standard deviation of `spec` become one 1x1 convolution, which every runtime runs fast and
    traces without a batch size in it.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, network: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.network = network
        weight, bias = normalisation(spec)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, pictures: Tensor) -> Tensor:
        planes = pictures.permute(0, 3, 1, 2).to(self.weight.dtype)
        result: Tensor = self.network(functional.conv2d(planes, self.weight, self.bias))
        return result


def normalisation(spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Weight (3, 3, 1, 1) and bias (3,) of the 1x1 convolution that takes BGR planes 0..255 to the network's input."""
    weight = torch.zeros(3, 3, 1, 1)
    for output in range(3):
        source = 2 - output if spec.channels == "rgb" else output
        weight[output, source] = 1 / spec.std[output]
    return weight, -torch.tensor(spec.mean) / torch.tensor(spec.std)


class Pictures(nn.Module):  # type: ignore[misc, unused-ignore]
    """`network`, which takes planes (B, 3, H, W) of 0..255 in BGR, for pictures (B, H, W, 3) uint8."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        result: Tensor = self.network(pictures.permute(0, 3, 1, 2).float())
        return result


def for_pictures(network: nn.Module, spec: InputSpec) -> nn.Module:
    """`network` (float32, eval mode, on the CPU) behind its pre-processing, as little of it as can be.

    Where nothing is subtracted, scale and channel order go into the weights of the one convolution that reads the
    picture: a pass over the whole picture less. (What is subtracted cannot go there: the stem pads with zeros after it.)
    """
    stem = None if any(spec.mean) else _stem(network, spec)
    if stem is None:
        return WithPreprocessing(network, spec).eval()
    folded = copy.deepcopy(network)
    convolution = folded.get_submodule(stem)
    weight, _ = normalisation(spec)
    with torch.no_grad():
        convolution.weight.copy_(torch.einsum("oihw,ij->ojhw", convolution.weight, weight[:, :, 0, 0]))
    return Pictures(folded).eval()


def _stem(network: nn.Module, spec: InputSpec) -> str | None:
    """The name of the convolution that alone reads the network's input, None where there is no such."""
    planes = torch.zeros(1, 3, spec.height, spec.width)
    readers: list[str] = []

    def note(name: str) -> Callable[[nn.Module, tuple[object, ...]], None]:
        return lambda module, given: readers.append(name) if given and given[0] is planes else None

    leaves = [(name, module) for name, module in network.named_modules() if name and not any(module.children())]
    hooks = [module.register_forward_pre_hook(note(name)) for name, module in leaves]
    with torch.inference_mode():
        network(planes)
    for hook in hooks:
        hook.remove()
    if len(readers) != 1:
        return None
    found = network.get_submodule(readers[0])
    return readers[0] if isinstance(found, nn.Conv2d) and found.groups == 1 else None
