"""The start as a teacher: the mean of what it says of a view, of its mirror image, and of the view at twice the size.

At twice the size a person is found one level up the pyramid, and the anchors of that level lie, halved, exactly on those
of the level below it: so all three answers are of the same anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from streampose.detect.network import PeopleNetwork
from streampose.errors import ModelError

Levels = list[Tensor]
"""(B, 5, h, w) each: cx, cy, w, h in pixels of the view, and the logit of the score."""


class Teacher:
    """A frozen YOLO that names many boxes a person, on levels of which each has twice the stride of the one before.

    Raises ModelError for another network.
    """

    def __init__(self, network: PeopleNetwork, strides: Sequence[int]) -> None:
        doubled = all(after == 2 * before for before, after in pairwise(strides))
        if network.end2end or not doubled:
            raise ModelError("teacher_share: a YOLO with one box an anchor, on strides that double, can teach")
        self.network, self.strides = network.eval().requires_grad_(False), list(strides)

    def __call__(self, detail: Tensor, bf16: bool) -> tuple[Tensor, Tensor]:
        """Of a view at twice the size of the pupil's (B, 3, 2 H, 2 W), RGB 0..1: boxes (B, anchors, 4) xyxy in pixels of the
        pupil's, and how sure they are (B, anchors), 0..1, both in the order of the head's anchors."""
        with torch.no_grad():
            return self._mean(torch.nn.functional.avg_pool2d(detail, 2), detail, bf16)

    def _mean(self, view: Tensor, detail: Tensor, bf16: bool) -> tuple[Tensor, Tensor]:
        larger = [torch.cat([level[:, :4] / 2, level[:, 4:]], dim=1) for level in self._levels(detail, bf16)]
        answers = [self._levels(view, bf16), self._mirrored(view, bf16), larger[1:]]
        means = [
            torch.stack([answer[level] for answer in answers if level < len(answer)]).mean(0).flatten(2)
            for level in range(len(self.strides))
        ]
        mean = torch.cat(means, dim=2).permute(0, 2, 1)
        centre, half = mean[..., :2], mean[..., 2:4] / 2
        return torch.cat([centre - half, centre + half], dim=2), mean[..., 4].sigmoid()

    def _levels(self, view: Tensor, bf16: bool) -> Levels:
        with torch.autocast(view.device.type, torch.bfloat16, enabled=bf16):
            raw = self.network(view.contiguous(memory_format=torch.channels_last)).float()
        raw = torch.cat([raw[:, :4], raw[:, 4:].clamp(1e-6, 1 - 1e-6).logit()], dim=1)
        shapes = [(view.shape[2] // stride, view.shape[3] // stride) for stride in self.strides]
        parts = raw.split([height * width for height, width in shapes], dim=2)
        return [part.unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True)]

    def _mirrored(self, view: Tensor, bf16: bool) -> Levels:
        turned = [level.flip(3) for level in self._levels(view.flip(3), bf16)]
        return [torch.cat([view.shape[3] - level[:, :1], level[:, 1:]], dim=1) for level in turned]
