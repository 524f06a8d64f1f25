"""Pictures as they come to a network as it wants them, as part of the network: uint8 BGR in, normalised planes out."""

from __future__ import annotations

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
