"""HRNet for human pose: high resolution kept from the first layer to the last, fused with lower ones at every module.

Sun et al., "Deep High-Resolution Representation Learning for Human Pose Estimation", CVPR 2019. Parameter names are
those of the published checkpoints (and of simple-HRNet; MMPose's have a prefix, see checkpoint.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class HRNetPreset:
    """What makes one HRNet: `stem` channels, `width` of the finest branch (each coarser one has twice as many channels),
    `bottlenecks` of stage 1, per later stage `modules` of `blocks` residual blocks a branch."""

    width: int
    stem: int = 64
    bottlenecks: int = 4
    modules: tuple[int, ...] = (1, 4, 3)
    blocks: int = 4


HRNET_PRESETS: dict[str, HRNetPreset] = {
    "hrnet_w32": HRNetPreset(32),
    "hrnet_w48": HRNetPreset(48),
    "hrnet_w32_small": HRNetPreset(32, stem=32, bottlenecks=1, modules=(1, 1, 1), blocks=1),
    "hrnet_w16_small": HRNetPreset(16, stem=32, bottlenecks=2, modules=(1, 1, 1), blocks=2),
    "hrnet_tiny": HRNetPreset(8, stem=16, bottlenecks=1, modules=(1,), blocks=1),
}


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class BasicBlock(nn.Module):  # type: ignore[misc, unused-ignore]
    """Two 3x3 convolutions and a shortcut; channels stay."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, 3)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + x)


class Bottleneck(nn.Module):  # type: ignore[misc, unused-ignore]
    """1x1, 3x3, 1x1 convolutions with four times the `planes` at the end, and a shortcut."""

    def __init__(self, inputs: int, planes: int) -> None:
        super().__init__()
        outputs = 4 * planes
        self.conv1 = _conv(inputs, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv(planes, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        if inputs != outputs:
            self.downsample: nn.Module = nn.Sequential(_conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        else:
            self.downsample = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)))
        inner = functional.relu(self.bn2(self.conv2(inner)))
        return functional.relu(self.bn3(self.conv3(inner)) + self.downsample(x))


class HRModule(nn.Module):  # type: ignore[misc, unused-ignore]
    """Residual blocks on every branch, then each of the first `outputs` branches takes the sum of all, resampled."""

    def __init__(self, widths: Sequence[int], blocks: int, outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(width) for _ in range(blocks))) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(widths, source, target) for source in range(len(widths)))
            for target in range(outputs)
        )

    @staticmethod
    def _path(widths: Sequence[int], source: int, target: int) -> nn.Module | None:
        if source == target:
            return None
        if source > target:
            return nn.Sequential(
                _conv(widths[source], widths[target], 1),
                nn.BatchNorm2d(widths[target]),
                nn.Upsample(scale_factor=2 ** (source - target), mode="nearest"),
            )
        steps: list[nn.Module] = []
        for _ in range(source + 1, target):
            same = widths[source]
            steps.append(nn.Sequential(_conv(same, same, 3, 2), nn.BatchNorm2d(same), nn.ReLU(inplace=True)))
        last = nn.Sequential(_conv(widths[source], widths[target], 3, 2), nn.BatchNorm2d(widths[target]))
        return nn.Sequential(*steps, last)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        branches = [branch(x) for branch, x in zip(self.branches, inputs, strict=True)]
        fused = []
        for paths in self.fuse_layers:
            terms = [x if path is None else path(x) for path, x in zip(paths, branches, strict=True)]
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            fused.append(functional.relu(total))
        return fused


class HRNet(nn.Module):  # type: ignore[misc, unused-ignore]
    """Normalised pictures (B, 3, H, W), H and W multiples of 32, to heatmaps (B, joints, H/4, W/4)."""

    def __init__(self, preset: HRNetPreset | str = "hrnet_w32", joints: int = 17) -> None:
        super().__init__()
        preset = HRNET_PRESETS[preset] if isinstance(preset, str) else preset
        self.conv1 = _conv(3, preset.stem, 3, 2)
        self.bn1 = nn.BatchNorm2d(preset.stem)
        self.conv2 = _conv(preset.stem, preset.stem, 3, 2)
        self.bn2 = nn.BatchNorm2d(preset.stem)
        inputs = [preset.stem, *[4 * preset.stem] * (preset.bottlenecks - 1)]
        self.layer1 = nn.Sequential(*(Bottleneck(channels, preset.stem) for channels in inputs))
        self.stages = len(preset.modules)
        before = [4 * preset.stem]
        for index, modules in enumerate(preset.modules):
            widths = [preset.width * 2**branch for branch in range(index + 2)]
            last = index == self.stages - 1
            setattr(self, f"transition{index + 1}", self._transition(before, widths))
            stage = [
                HRModule(widths, preset.blocks, 1 if last and module == modules - 1 else len(widths))
                for module in range(modules)
            ]
            setattr(self, f"stage{index + 2}", nn.Sequential(*stage))
            before = widths
        self.final_layer = nn.Conv2d(preset.width, joints, 1)

    @staticmethod
    def _transition(before: Sequence[int], after: Sequence[int]) -> nn.ModuleList:
        """One entry a branch of the next stage: None where it goes on as it is."""
        paths: list[nn.Module | None] = []
        for index, width in enumerate(after):
            if index < len(before):
                here = before[index]
                step = nn.Sequential(_conv(here, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
                paths.append(None if here == width else step)
            else:
                step = nn.Sequential(_conv(before[-1], width, 3, 2), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
                paths.append(nn.Sequential(step))
        return nn.ModuleList(paths)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        branches = [self.layer1(x)]
        for index in range(self.stages):
            entered = []
            for position, path in enumerate(getattr(self, f"transition{index + 1}")):
                source = branches[min(position, len(branches) - 1)]
                entered.append(source if path is None else path(source))
            branches = getattr(self, f"stage{index + 2}")(entered)
        heatmaps: Tensor = self.final_layer(branches[0])
        return heatmaps
