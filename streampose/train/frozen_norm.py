"""Frozen batch norms at no cost: their statistics stay, and convolution and norm run as one convolution.

Fine-tuning with frozen statistics keeps a network's clean accuracy (a small, degraded batch would shift them). A frozen
norm is a fixed affine map of the convolution before it, so the pair is computed as a single convolution with scaled
weights; the parameters, their names and their gradients are those of the pair.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class _FusedConv(nn.Conv2d):  # type: ignore[misc, unused-ignore]
    """A convolution that also does the work of the frozen norm behind it."""

    def forward(self, x: Tensor) -> Tensor:
        norm: nn.BatchNorm2d = self.__dict__["frozen_norm"]
        assert norm.running_var is not None
        assert norm.running_mean is not None
        factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * factor
        if self.bias is not None:
            shift = shift + self.bias * factor
        weight = self.weight * factor[:, None, None, None]
        if self.groups > 1 and self.stride[0] == 2 and x.device.type == "cpu" and x.requires_grad:
            # oneDNN's backward of a depthwise convolution of stride 2 takes ten times that of stride 1 on CPUs, whose
            # every second output is the same.
            full = functional.conv2d(x, weight, shift, 1, self.padding, self.dilation, self.groups)
            return full[:, :, ::2, ::2]
        return functional.conv2d(x, weight, shift, self.stride, self.padding, self.dilation, self.groups)


class _AbsorbedNorm(nn.BatchNorm2d):  # type: ignore[misc, unused-ignore]
    """A frozen norm whose work the convolution before it does."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def freeze_norms(network: nn.Module) -> int:
    """Freeze the statistics of every convolution's norm in place; gives how many pairs were fused.

    A pair is a convolution whose next sibling is a batch norm of as many channels, which holds for every network here.
    """
    pairs = 0
    for parent in network.modules():
        children = list(parent.children())
        for conv, norm in pairwise(children):
            same = (
                isinstance(conv, nn.Conv2d)
                and isinstance(norm, nn.BatchNorm2d)
                and conv.out_channels == norm.num_features
            )
            if same:
                conv.__class__, norm.__class__ = _FusedConv, _AbsorbedNorm
                conv.__dict__["frozen_norm"] = norm
                pairs += 1
    return pairs
