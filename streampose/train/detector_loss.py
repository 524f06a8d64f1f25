"""The detector's loss: ultralytics' (task-aligned assignment, CIoU, DFL, BCE), told where "nobody" is not to be believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from streampose.detect.network import head_of
from streampose.detect.quiet import silence_ultralytics
from streampose.train.detector_augment import Sample

LEAST_SURE = 0.05
"""Boxes of which a teacher is less sure are not taught."""


class WeightedBce(nn.Module):  # type: ignore[misc, unused-ignore]
    """Binary cross-entropy of (B, anchors, 1) logits in which background counts by `weights` (B, anchors)."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: torch.Tensor | None = None

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        if self.weights is None:
            return loss
        return loss * torch.where(targets > 0, torch.ones_like(loss), self.weights[..., None].to(loss))


class DetectorLoss:
    """Loss of a one-class model on a batch of samples; one for the life of a training."""

    def __init__(self, model: Any) -> None:
        silence_ultralytics()
        from ultralytics.cfg import get_cfg

        model.args = get_cfg()
        self.criterion = model.init_criterion()
        self.strides = [int(stride) for stride in head_of(model).stride]
        self.bce = WeightedBce()
        # An end2end head has two criteria, one for each branch; each gets the same weights.
        for part in (self.criterion, *(getattr(self.criterion, name, None) for name in ("one2many", "one2one"))):
            if part is not None and hasattr(part, "bce"):
                part.bce = self.bce

    def __call__(self, outputs: Any, samples: Sequence[Sample]) -> tuple[torch.Tensor, dict[str, float]]:
        """The mean loss of a picture, and its parts (box, cls, dfl) as numbers; `outputs` are the head's, float32."""
        height, width = samples[0].image.shape[:2]
        self.bce.weights = torch.from_numpy(np.stack([anchor_weights(s, self.strides) for s in samples]))
        boxes = [torch.from_numpy(s.boxes) for s in samples]
        flat = torch.cat(boxes) + 0.5
        size = flat.new_tensor([width, height])
        batch = {
            "batch_idx": torch.cat([torch.full((len(b),), float(i)) for i, b in enumerate(boxes)]),
            "cls": torch.zeros(len(flat)),
            "bboxes": torch.cat([(flat[:, :2] + flat[:, 2:]) / 2 / size, (flat[:, 2:] - flat[:, :2]) / size], dim=1),
        }
        device = next(iter(self._tensors(outputs))).device
        self.bce.weights = self.bce.weights.to(device)
        loss, parts = self.criterion(outputs, {name: tensor.to(device) for name, tensor in batch.items()})
        return loss.sum() / len(samples), {name.removesuffix("_loss"): float(value) for name, value in parts.items()}

    def lesson(self, outputs: Any, boxes: torch.Tensor, sure: torch.Tensor) -> torch.Tensor:
        """How far the head's float32 `outputs` are from a teacher's `boxes` (B, anchors, 4), xyxy in pixels, of which it is
        `sure` (B, anchors): the parts and gains of the loss towards labels, each anchor by how sure the teacher is."""
        from ultralytics.utils.metrics import bbox_iou
        from ultralytics.utils.tal import bbox2dist, make_anchors

        criterion = self.criterion
        logits, spread = outputs["scores"][:, 0], outputs["boxes"].permute(0, 2, 1)
        anchors, strides = make_anchors(outputs["feats"], criterion.stride, 0.5)
        total = sure.sum().clamp(min=1)
        loss = criterion.hyp.cls * nn.functional.binary_cross_entropy_with_logits(logits, sure, reduction="sum") / total
        some = sure > LEAST_SURE
        weight, wanted = sure[some], (boxes / strides)[some]
        said = criterion.bbox_decode(anchors, spread)[some]
        distances = bbox2dist(anchors.expand(len(sure), -1, -1)[some], wanted, criterion.reg_max - 1)
        away = 1 - bbox_iou(said, wanted, xywh=False, CIoU=True)[:, 0]
        sides = criterion.bbox_loss.dfl_loss(spread[some].reshape(-1, criterion.reg_max), distances)[:, 0]
        return loss + ((criterion.hyp.box * away + criterion.hyp.dfl * sides) * weight).sum() / total

    def _tensors(self, outputs: Any) -> list[torch.Tensor]:
        if isinstance(outputs, torch.Tensor):
            return [outputs]
        parts = outputs.values() if isinstance(outputs, dict) else outputs
        return [tensor for part in parts for tensor in self._tensors(part)]


def anchor_weights(sample: Sample, strides: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """How far "nobody" counts at each anchor (anchors,), in the head's order: levels, then rows, then columns."""
    height, width = sample.image.shape[:2]
    levels = []
    for stride in strides:
        weights = np.ones((height // stride, width // stride), np.float32)
        for x1, y1, x2, y2, weight in sample.regions:
            # The anchors lie at (column + 0.5) * stride in pixel edges, which is half a pixel less in pixel centres.
            columns = slice(*(max(0, int(np.ceil((edge + 0.5) / stride - 0.5))) for edge in (x1, x2)))
            rows = slice(*(max(0, int(np.ceil((edge + 0.5) / stride - 0.5))) for edge in (y1, y2)))
            weights[rows, columns] = weight
        levels.append(weights.ravel())
    return np.concatenate(levels)


def floats(outputs: Any) -> Any:
    """The head's outputs in float32, whatever they were computed in."""
    if isinstance(outputs, torch.Tensor):
        return outputs.float()
    if isinstance(outputs, dict):
        return {name: floats(value) for name, value in outputs.items()}
    return [floats(value) for value in outputs]
