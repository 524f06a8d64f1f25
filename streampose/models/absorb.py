"""Lite-HRNet rewritten for inference: the same function without channel shuffles, concatenations and batch norms.

A shuffle unit lets half of its channels pass, computes the other half anew, and interleaves both. Interleaving moves no
information, but costs a runtime more than the convolutions do. Here every channel stays in one place for the whole stage;
what wanders is only our record of which logical channel lies where, and it goes into the weights: the first convolution
of a unit reads all channels with zero weights for those that pass, the last writes into the places of those it replaces.
Coarser branches are also summed before they are brought to the finest size, not after (nearest neighbours commute).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from streampose.pose.lite_hrnet import IterativeHead, LiteHRNet, LiteModule, ShuffleUnit, Stem

Places: TypeAlias = Tensor
"""(C,) index: logical channel i lies at place `places[i]` of the tensor."""


def absorb_shuffles(network: nn.Module) -> nn.Module:
    """An equal network without shuffles where `network` is a naive Lite-HRNet; any other as it is. Float32, eval mode."""
    naive = isinstance(network, LiteHRNet) and not network.weighting
    return _PlacedLiteHRNet(network).eval() if naive else network


def _fold(modules: Sequence[Any]) -> list[Any]:
    """Convolutions of a chain with their batch norms folded in, in order; ReLUs and the like are left out."""
    folded: list[Any] = []
    for module in modules:
        if isinstance(module, nn.Sequential):
            folded.extend(_fold(list(module.children())))
        elif isinstance(module, nn.BatchNorm2d):
            folded[-1] = fuse_conv_bn_eval(folded[-1], module)
        elif isinstance(module, nn.Conv2d):
            folded.append(module)
    return folded


def _placed(conv: Any, source: Places | None, target: Places | None, scale: float = 1.0) -> Any:
    """A copy of `conv` that reads channels lying at `source` and writes them to `target`, times `scale`.

    A depthwise convolution keeps its channels where they lie (`source`).
    """
    weight, bias = conv.weight.detach().clone(), conv.bias.detach().clone()
    if conv.groups > 1:
        target, order = source, None
    else:
        order = source
    if order is not None:
        weight[:, order] = weight.clone()
    if target is not None:
        weight[target], bias[target] = weight.clone(), bias.clone()
    return _convolution(weight * scale, bias * scale, conv.stride, conv.padding, conv.groups)


def _convolution(weight: Tensor, bias: Tensor, stride: Any, padding: Any, groups: int = 1) -> Any:
    outputs, inputs, kernel = weight.shape[0], weight.shape[1] * groups, weight.shape[2]
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)
    return conv


def _chain(
    path: Any, source: Places, target: Places | None, relus: Sequence[bool], scale: float = 1.0
) -> nn.Sequential:
    """The convolutions of `path` from `source` places to `target` places, a ReLU after those that `relus` names.

    In between, a depthwise convolution leaves its channels where they are and a pointwise one puts them in order.
    """
    steps: list[nn.Module] = []
    convs = _fold([path])
    place: Places | None = source
    for position, (conv, relu) in enumerate(zip(convs, relus, strict=True)):
        last = position == len(convs) - 1
        steps.append(_placed(conv, place, target if last else None, scale if last else 1.0))
        place = place if conv.groups > 1 else None
        if relu:
            steps.append(nn.ReLU())
    return nn.Sequential(*steps)


class _PlacedUnit(nn.Module):  # type: ignore[misc, unused-ignore]
    """A shuffle unit that leaves every channel where it lies; `places` becomes the record after it."""

    keep: Tensor

    def __init__(self, unit: ShuffleUnit, places: Places) -> None:
        super().__init__()
        enter, depth, leave = _fold([unit.branch2])
        channels, half = len(places), len(places) // 2
        renewed = places[half:]
        reading = torch.zeros(half, channels, 1, 1)
        reading[:, renewed] = enter.weight.detach()
        writing, bias = torch.zeros(channels, half, 1, 1), torch.zeros(channels)
        writing[renewed], bias[renewed] = leave.weight.detach(), leave.bias.detach()
        self.enter = _convolution(reading, enter.bias.detach(), 1, 0)
        self.depth = _placed(depth, torch.arange(half), None)
        self.leave = _convolution(writing, bias, 1, 0)
        keep = torch.ones(1, channels, 1, 1)
        keep[0, renewed] = 0
        self.register_buffer("keep", keep)
        self.places = torch.stack((places[:half], renewed), dim=1).flatten()

    def forward(self, x: Tensor) -> Tensor:
        renewed = functional.relu(self.leave(self.depth(functional.relu(self.enter(x)))))
        return x * self.keep + renewed


class _PlacedModule(nn.Module):  # type: ignore[misc, unused-ignore]
    """Units on every branch, then the fusion of all; `places` of each branch is the record after it."""

    def __init__(self, module: LiteModule, places: Sequence[Places]) -> None:
        super().__init__()
        self.units = nn.ModuleList()
        self.places: list[Places] = []
        for layer, place in zip(module.layers, places, strict=True):
            units: list[nn.Module] = []
            for unit in layer:
                units.append(_PlacedUnit(unit, place))
                place = units[-1].places
            self.units.append(nn.Sequential(*units))
            self.places.append(place)
        self.paths = nn.ModuleList()
        for target, paths in enumerate(module.fuse_layers):
            self.paths.append(nn.ModuleList(self._path(paths[s], s, target) for s in range(len(places))))

    def _path(self, path: Any, source: int, target: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        count = len(_fold([path]))
        relus = [source < target and step % 2 == 1 and step < count - 1 for step in range(count)]
        # The published network adds the term of branch 0 twice.
        scale = 2.0 if source == 0 else 1.0
        return _chain(path, self.places[source], self.places[target], relus, scale)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        branches = [units(x) for units, x in zip(self.units, branches, strict=True)]
        fused = []
        for target, paths in enumerate(self.paths):
            coarse: Tensor | None = None
            for source in range(len(branches) - 1, target, -1):
                term = paths[source](branches[source])
                coarse = term if coarse is None else term + _double(coarse)
            total = 2 * branches[0] if target == 0 else branches[target]
            if coarse is not None:
                total = total + _double(coarse)
            for source in range(target):
                total = total + paths[source](branches[source])
            if target == 0:
                branches[0] = total
            fused.append(functional.relu(total))
        return fused


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class _PlacedStem(nn.Module):  # type: ignore[misc, unused-ignore]
    """The stem without its last shuffle, its first convolution in two halves; `places` is the record after it."""

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        (first,) = _fold([stem.conv1])
        half = first.out_channels // 2
        to_left, to_right = (
            _convolution(weight.detach().clone(), bias.detach().clone(), first.stride, first.padding)
            for weight, bias in zip(first.weight.split(half), first.bias.split(half), strict=True)
        )
        self.left = nn.Sequential(to_left, nn.ReLU(), *_fold([stem.branch1]), nn.ReLU())
        expand, depth, linear = _fold([stem.expand_conv, stem.depthwise_conv, stem.linear_conv])
        self.right = nn.Sequential(to_right, nn.ReLU(), expand, nn.ReLU(), depth, linear, nn.ReLU())
        self.places = torch.stack((torch.arange(half), torch.arange(half) + half), dim=1).flatten()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.left(x), self.right(x)), dim=1)


class _PlacedHead(nn.Module):  # type: ignore[misc, unused-ignore]
    """The iterative head and the last convolution, reading branches at their places."""

    def __init__(self, head: IterativeHead, final: Any, places: Sequence[Places]) -> None:
        super().__init__()
        coarse = list(reversed(places))
        targets: list[Places | None] = [*coarse[1:], None]
        self.projects = nn.ModuleList(
            _chain(project, source, target, (False, True))
            for project, source, target in zip(head.projects, coarse, targets, strict=True)
        )
        self.final = final

    def forward(self, branches: list[Tensor]) -> Tensor:
        result: Tensor | None = None
        for project, x in zip(self.projects, reversed(branches), strict=True):
            if result is not None:
                x = x + functional.interpolate(result, size=x.shape[-2:], mode="bilinear", align_corners=True)
            result = project(x)
        heatmaps: Tensor = self.final(result)
        return heatmaps


class _PlacedLiteHRNet(nn.Module):  # type: ignore[misc, unused-ignore]
    """The whole network, from pictures to heatmaps."""

    def __init__(self, network: LiteHRNet) -> None:
        super().__init__()
        backbone: Any = network.backbone
        self.stem = _PlacedStem(backbone.stem)
        places: list[Places] = [self.stem.places]
        self.transitions = nn.ModuleList()
        self.stages = nn.ModuleList()
        for index in range(backbone.stage_count):
            paths, entered = nn.ModuleList(), []
            for position, path in enumerate(getattr(backbone, f"transition{index}")):
                source = places[min(position, len(places) - 1)]
                if path is None:
                    paths.append(nn.Identity())
                    entered.append(source)
                else:
                    paths.append(_chain(path, source, None, (False, True)))
                    entered.append(torch.arange(_fold([path])[-1].out_channels))
            places = entered
            modules = nn.ModuleList()
            for module in getattr(backbone, f"stage{index}"):
                modules.append(_PlacedModule(module, places))
                places = modules[-1].places
            self.transitions.append(paths)
            self.stages.append(modules)
        self.head = _PlacedHead(backbone.head_layer, network.head.final_layer, places)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.stem(x)]
        for paths, modules in zip(self.transitions, self.stages, strict=True):
            branches = [path(branches[min(i, len(branches) - 1)]) for i, path in enumerate(paths)]
            for module in modules:
                branches = module(branches)
        heatmaps: Tensor = self.head(branches)
        return heatmaps
