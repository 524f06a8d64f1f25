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
    """`network`, which takes BGR planes (B, 3, H, W) in 0..255 less `mean` (3,), for pictures (B, H, W, 3) uint8."""

    mean: Tensor

    def __init__(self, network: nn.Module, mean: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.centred = bool(mean.any())

    def forward(self, pictures: Tensor) -> Tensor:
        pixels = pictures.float()
        pixels = pixels - self.mean if self.centred else pixels
        result: Tensor = self.network(pixels.permute(0, 3, 1, 2))
        return result


def for_pictures(network: nn.Module, spec: InputSpec) -> nn.Module:
    """`network` (float32, eval mode, on the CPU) behind its pre-processing, as little of it as can be.

    Where only convolutions read the picture, scale and channel order go into their weights; the mean is taken off before,
    since they pad with zeros, which are to be that mean. A convolution over the whole picture less.
    """
    readers = _readers(network, spec)
    if not readers or not all(isinstance(one, nn.Conv2d) and one.groups == 1 for one in readers.values()):
        return WithPreprocessing(network, spec).eval()
    folded = copy.deepcopy(network)
    scale = normalisation(spec)[0][:, :, 0, 0]
    with torch.no_grad():
        for name in readers:
            weight = folded.get_submodule(name).weight
            weight.copy_(torch.einsum("oihw,ij->ojhw", weight, scale))
    mean = torch.tensor(spec.mean[::-1] if spec.channels == "rgb" else spec.mean)
    return Pictures(folded, mean).eval()


def _readers(network: nn.Module, spec: InputSpec) -> dict[str, nn.Module]:
    """The layers that are given the network's input, by name."""
    planes = torch.zeros(1, 3, spec.height, spec.width)
    readers: dict[str, nn.Module] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[object, ...]], None]:
        def look(module: nn.Module, given: tuple[object, ...]) -> None:
            if given and given[0] is planes:
                readers[name] = module

        return look

    layers = [(name, module) for name, module in network.named_modules() if name and not any(module.children())]
    hooks = [module.register_forward_pre_hook(note(name)) for name, module in layers]
    with torch.inference_mode():
        network(planes)
    for hook in hooks:
        hook.remove()
    return readers
