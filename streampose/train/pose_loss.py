"""What a pose network is trained towards: a teacher's heatmaps and Gaussians at the labels, weighed joint by joint."""

from __future__ import annotations

import torch
from torch import Tensor

from streampose.models.manifest import OutputSpec
from streampose.train.pose_config import LossSpec

SCALE = 1000.0
"""Squared errors over mostly empty heatmaps are tiny; this makes them readable and does not move AdamW."""


def cells_of(points: Tensor, output: OutputSpec) -> Tensor:
    """Where `points` (…, 2) in input pixels lie in a heatmap, in cells."""
    return (points - output.offset) / torch.tensor(output.strides, device=points.device)


def gaussian_heatmaps(points: Tensor, size: tuple[int, int], output: OutputSpec, sigma: float) -> Tensor:
    """Heatmaps (B, K, h, w) of height `output.peak` at `points` (B, K, 2) in input pixels, exact below the cell."""
    height, width = size
    cells = cells_of(points, output)
    x = torch.arange(width, device=points.device) - cells[..., 0, None]
    y = torch.arange(height, device=points.device) - cells[..., 1, None]
    across, down = torch.exp(-0.5 * (x / sigma) ** 2), torch.exp(-0.5 * (y / sigma) ** 2)
    return output.peak * down[..., :, None] * across[..., None, :]


def peak_cells(heatmaps: Tensor) -> Tensor:
    """Cell (x, y) of each maximum, (B, K, 2) float."""
    best = heatmaps.flatten(2).argmax(2)
    return torch.stack((best % heatmaps.shape[3], best // heatmaps.shape[3]), -1).float()


def pose_losses(
    heatmaps: Tensor,
    points: Tensor,
    weights: Tensor,
    human: Tensor,
    spec: LossSpec,
    output: OutputSpec,
    teacher: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Label loss and distillation loss (the second zero without `teacher`), scalars.

    `heatmaps` and `teacher` (B, K, h, w); `points` (B, K, 2) input pixels; `weights` (B, K); `human` (B, K) bool.
    """
    label_weights = weights * torch.where(human, spec.human, spec.machine)
    target = gaussian_heatmaps(points, (heatmaps.shape[2], heatmaps.shape[3]), output, spec.sigma)
    label_loss = (label_weights * (heatmaps - target).square().mean((2, 3))).mean() * SCALE
    if teacher is None:
        return label_loss, torch.zeros_like(label_loss)
    away = (peak_cells(teacher) - cells_of(points, output)).square().sum(-1)
    faith = torch.where(human & (weights > 0), torch.exp(-0.5 * away / spec.doubt**2), 1.0)
    distil_loss = (faith * (heatmaps - teacher).square().mean((2, 3))).mean() * SCALE
    return label_loss, spec.distil * distil_loss
