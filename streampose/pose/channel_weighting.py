"""The units of the full Lite-HRNet: channels weighted by what all resolutions see, where the naive kind convolves.

Conditional channel weighting (Yu et al., "Lite-HRNet: A Lightweight High-Resolution Network", CVPR 2021, section 3.2).
Half of every branch's channels pass; the other half are scaled by weights computed from all branches at the coarsest
resolution, filtered in space, and scaled by weights of their own means. Parameter names are those of MMPose's checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from streampose.pose.lite_hrnet import ConvNorm, interleave

CROSS_REDUCTION = 8
OWN_REDUCTION = 4


class CrossResolutionWeighting(nn.Module):  # type: ignore[misc, unused-ignore]
    """Scales branches, each half as large as the one before it, by weights in 0..1 computed from all of them."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = list(channels)
        total = sum(channels)
        self.conv1 = ConvNorm(total, total // CROSS_REDUCTION, 1)
        self.conv2 = ConvNorm(total // CROSS_REDUCTION, total, 1, relu=False)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        factors = [2 ** (len(branches) - 1 - index) for index in range(len(branches))]
        small = [functional.avg_pool2d(x, f) if f > 1 else x for x, f in zip(branches, factors, strict=True)]
        weights = torch.sigmoid(self.conv2(self.conv1(torch.cat(small, dim=1)))).split(self.channels, dim=1)
        return [
            x * (functional.interpolate(weight, scale_factor=float(f), mode="nearest") if f > 1 else weight)
            for x, weight, f in zip(branches, weights, factors, strict=True)
        ]


class SpatialWeighting(nn.Module):  # type: ignore[misc, unused-ignore]
    """Scales the channels of one branch by weights in 0..1 computed from their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential()
        self.conv1.add_module("conv", nn.Conv2d(channels, channels // OWN_REDUCTION, 1))
        self.conv2 = nn.Sequential()
        self.conv2.add_module("conv", nn.Conv2d(channels // OWN_REDUCTION, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.conv2(functional.relu(self.conv1(means))))


class ChannelWeighting(nn.Module):  # type: ignore[misc, unused-ignore]
    """One unit over all branches at once: a list of (B, C, H, W) to one of the same shapes."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        halves = [width // 2 for width in widths]
        self.cross_resolution_weighting = CrossResolutionWeighting(halves)
        self.depthwise_convs = nn.ModuleList(ConvNorm(half, half, 3, groups=half, relu=False) for half in halves)
        self.spatial_weighting = nn.ModuleList(SpatialWeighting(half) for half in halves)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        pairs = [x.chunk(2, dim=1) for x in branches]
        weighted = self.cross_resolution_weighting([right for _, right in pairs])
        outputs = []
        for (left, _), x, depthwise, own in zip(
            pairs, weighted, self.depthwise_convs, self.spatial_weighting, strict=True
        ):
            outputs.append(interleave(left, own(depthwise(x))))
        return outputs
