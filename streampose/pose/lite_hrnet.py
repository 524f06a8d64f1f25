"""Lite-HRNet: HRNet's parallel branches with shuffle units, a pose network for small machines.

Yu et al., "Lite-HRNet: A Lightweight High-Resolution Network", CVPR 2021; the "naive" kind has plain shuffle blocks
(Ma et al., ShuffleNet V2, 2018) where the full one ("ccw") has conditional channel weighting. Parameter names are those
of MMPose's checkpoints, so that published weights load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class LiteHRNetPreset:
    """What makes one Lite-HRNet: `stem` channels, `widths` of the branches, and per stage `modules` of `blocks` units,
    shuffle units or, with `weighting`, conditional channel weighting."""

    stem: int = 32
    widths: tuple[int, ...] = (40, 80, 160, 320)
    modules: tuple[int, ...] = (2, 4, 2)
    blocks: int = 2
    weighting: bool = False


LITE_PRESETS: dict[str, LiteHRNetPreset] = {
    "litehrnet18": LiteHRNetPreset(),
    "litehrnet30": LiteHRNetPreset(modules=(3, 8, 3)),
    "litehrnet18_ccw": LiteHRNetPreset(weighting=True),
    "litehrnet30_ccw": LiteHRNetPreset(modules=(3, 8, 3), weighting=True),
    "litehrnet_tiny": LiteHRNetPreset(stem=16, widths=(16, 32), modules=(1,), blocks=1),
}


def interleave(left: Tensor, right: Tensor) -> Tensor:
    """The channels of two (B, C, H, W) by turns, (B, 2 C, H, W): the channel shuffle of two groups in one copy.

    Pictures that lie channels-last stay so; a plain reshape would turn them and every convolution turn them back.
    """
    if right.is_contiguous(memory_format=torch.channels_last) and not right.is_contiguous():
        pair = torch.stack((left.permute(0, 2, 3, 1), right.permute(0, 2, 3, 1)), dim=-1)
        return pair.flatten(3).permute(0, 3, 1, 2)
    return torch.stack((left, right), dim=2).flatten(1, 2)


class ConvNorm(nn.Sequential):  # type: ignore[misc, unused-ignore]
    """Convolution (children `conv`, `bn`) with "same" padding, batch norm, and a ReLU where `relu`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(outputs))
        if relu:
            self.add_module("activate", nn.ReLU(inplace=True))


def _separable(inputs: int, outputs: int, stride: int, *, relu: bool) -> list[nn.Module]:
    """Depthwise 3x3 and pointwise convolution, each normalised, the pointwise one with a ReLU where `relu`."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return [*layers, nn.ReLU(inplace=True)] if relu else layers


class Stem(nn.Module):  # type: ignore[misc, unused-ignore]
    """Two steps of stride 2: (B, 3, H, W) to (B, stem, H/4, W/4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = ConvNorm(3, channels, 3, 2)
        self.branch1 = nn.Sequential(
            ConvNorm(half, half, 3, 2, groups=half, relu=False), ConvNorm(half, channels - half, 1)
        )
        self.expand_conv = ConvNorm(half, channels, 1)
        self.depthwise_conv = ConvNorm(channels, channels, 3, 2, groups=channels, relu=False)
        self.linear_conv = ConvNorm(channels, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.conv1(x).chunk(2, dim=1)
        right = self.linear_conv(self.depthwise_conv(self.expand_conv(right)))
        return interleave(self.branch1(left), right)


class ShuffleUnit(nn.Module):  # type: ignore[misc, unused-ignore]
    """Half of the channels pass, half go through 1x1, depthwise 3x3, 1x1; then they are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch2 = nn.Sequential(
            ConvNorm(half, half, 1), ConvNorm(half, half, 3, groups=half, relu=False), ConvNorm(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return interleave(left, self.branch2(right))


class LiteModule(nn.Module):  # type: ignore[misc, unused-ignore]
    """Units on every branch, then every branch takes the sum of all, resampled to its size."""

    def __init__(self, widths: Sequence[int], blocks: int, weighting: bool = False) -> None:
        super().__init__()
        self.weighting = weighting
        if weighting:
            from streampose.pose.channel_weighting import ChannelWeighting

            self.layers: nn.Module = nn.Sequential(*(ChannelWeighting(widths) for _ in range(blocks)))
        else:
            self.layers = nn.ModuleList(nn.Sequential(*(ShuffleUnit(width) for _ in range(blocks))) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    @staticmethod
    def _path(widths: Sequence[int], source: int, target: int) -> nn.Module | None:
        if source == target:
            return None
        if source > target:
            return nn.Sequential(
                nn.Conv2d(widths[source], widths[target], 1, bias=False),
                nn.BatchNorm2d(widths[target]),
                nn.Upsample(scale_factor=2 ** (source - target), mode="nearest"),
            )
        steps = [
            nn.Sequential(*_separable(widths[source], widths[source], 2, relu=True)) for _ in range(source + 1, target)
        ]
        return nn.Sequential(*steps, nn.Sequential(*_separable(widths[source], widths[target], 2, relu=False)))

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        if self.weighting:
            branches = self.layers(branches)
        else:
            branches = [layer(x) for layer, x in zip(self.layers, branches, strict=True)]
        fused = []
        for target, paths in enumerate(self.fuse_layers):
            terms = [x if path is None else path(x) for path, x in zip(paths, branches, strict=True)]
            # The published network starts its sum from branch 0's term and adds that term once more ...
            total = 2 * terms[0]
            for term in terms[1:]:
                total = total + term
            if target == 0:
                branches[0] = (
                    total  # ... and, summing in place, leaves output 0 as the branch 0 of the outputs after it.
                )
            fused.append(functional.relu(total))
        return fused


class IterativeHead(nn.Module):  # type: ignore[misc, unused-ignore]
    """From the coarsest branch up: upsample, add to the next finer one, project; gives the finest, (B, C0, H/4, W/4)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        coarse = list(reversed(widths))
        self.projects = nn.ModuleList()
        for inputs, outputs in zip(coarse, [*coarse[1:], coarse[-1]], strict=True):
            project = nn.Sequential()
            project.add_module("depthwise_conv", ConvNorm(inputs, inputs, 3, groups=inputs, relu=False))
            project.add_module("pointwise_conv", ConvNorm(inputs, outputs, 1))
            self.projects.append(project)

    def forward(self, branches: list[Tensor]) -> Tensor:
        result: Tensor | None = None
        for project, x in zip(self.projects, reversed(branches), strict=True):
            if result is not None:
                x = x + functional.interpolate(result, size=x.shape[-2:], mode="bilinear", align_corners=True)
            result = project(x)
        assert result is not None
        return result


class LiteBackbone(nn.Module):  # type: ignore[misc, unused-ignore]
    """Stem, stages of growing numbers of branches, and the iterative head."""

    def __init__(self, preset: LiteHRNetPreset) -> None:
        super().__init__()
        self.stem = Stem(preset.stem)
        self.stage_count = len(preset.modules)
        before: list[int] = [preset.stem]
        for index, modules in enumerate(preset.modules):
            widths = list(preset.widths[: index + 2])
            setattr(self, f"transition{index}", self._transition(before, widths))
            stage = [LiteModule(widths, preset.blocks, preset.weighting) for _ in range(modules)]
            setattr(self, f"stage{index}", nn.Sequential(*stage))
            before = widths
        self.head_layer = IterativeHead(before)

    @staticmethod
    def _transition(before: Sequence[int], after: Sequence[int]) -> nn.ModuleList:
        """One entry a branch of the next stage: None where it goes on as it is."""
        paths: list[nn.Module | None] = []
        for index, width in enumerate(after):
            if index < len(before):
                same = before[index] == width
                paths.append(None if same else nn.Sequential(*_separable(before[index], width, 1, relu=True)))
            else:
                paths.append(nn.Sequential(nn.Sequential(*_separable(before[-1], width, 2, relu=True))))
        return nn.ModuleList(paths)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.stem(x)]
        for index in range(self.stage_count):
            entered = []
            for position, path in enumerate(getattr(self, f"transition{index}")):
                x = branches[min(position, len(branches) - 1)]
                entered.append(x if path is None else path(x))
            branches = getattr(self, f"stage{index}")(entered)
        return self.head_layer(branches)


class LiteHRNet(nn.Module):  # type: ignore[misc, unused-ignore]
    """Normalised pictures (B, 3, H, W), H and W multiples of 32, to heatmaps (B, joints, H/4, W/4)."""

    def __init__(self, preset: LiteHRNetPreset | str = "litehrnet18", joints: int = 17) -> None:
        super().__init__()
        preset = LITE_PRESETS[preset] if isinstance(preset, str) else preset
        self.weighting = preset.weighting
        self.backbone = LiteBackbone(preset)
        self.head = nn.Module()
        self.head.final_layer = nn.Conv2d(preset.widths[0], joints, 1)

    def forward(self, x: Tensor) -> Tensor:
        heatmaps: Tensor = self.head.final_layer(self.backbone(x))
        return heatmaps
