"""Conditional channel weighting against the paper's equations written out, and the published names and sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streampose.models.inspect import count_parameters
from streampose.pose.channel_weighting import ChannelWeighting
from streampose.pose.network import build_pose_network


def published_names(widths: tuple[int, ...]) -> set[str]:
    """The learned tensors of one unit as MMPose's checkpoints call them."""
    names = set()
    for conv in ("conv1", "conv2"):
        names |= {f"cross_resolution_weighting.{conv}.{tensor}" for tensor in ("conv.weight", "bn.weight", "bn.bias")}
    for branch in range(len(widths)):
        names |= {f"depthwise_convs.{branch}.{tensor}" for tensor in ("conv.weight", "bn.weight", "bn.bias")}
        for conv in ("conv1", "conv2"):
            names |= {f"spatial_weighting.{branch}.{conv}.conv.{tensor}" for tensor in ("weight", "bias")}
    return names


def test_names_are_the_published_ones() -> None:
    assert {name for name, _ in ChannelWeighting((40, 80)).named_parameters()} == published_names((40, 80))


@pytest.mark.parametrize(("preset", "millions"), [("litehrnet18_ccw", 1.1), ("litehrnet30_ccw", 1.8)])
def test_sizes_are_the_papers(preset: str, millions: float) -> None:
    with torch.device("meta"):
        network = build_pose_network({"network": preset})
    assert count_parameters(network) / 1e6 == pytest.approx(millions, abs=0.05)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_one_unit_is_the_equations() -> None:
    """f(X) by NumPy: pooled halves -> 1x1 -> ReLU -> 1x1 -> sigmoid -> nearest; depthwise 3x3; means -> two layers."""
    torch.manual_seed(4)
    unit = ChannelWeighting((16, 32)).eval()
    branches = [torch.randn(1, 16, 8, 8), torch.randn(1, 32, 4, 4)]
    with torch.inference_mode():
        got = [x.numpy()[0] for x in unit([x.clone() for x in branches])]
    state = {name: value.numpy() for name, value in unit.state_dict().items()}
    left = [x.numpy()[0, : x.shape[1] // 2] for x in branches]
    right = [x.numpy()[0, x.shape[1] // 2 :] for x in branches]
    pooled = right[0].reshape(8, 4, 2, 4, 2).mean((2, 4))
    scale = 1 / np.sqrt(1 + 1e-5)  # batch norms as they are made: mean 0, variance 1
    inner = np.maximum(np.einsum("oi,ihw->ohw", cross(state, "conv1"), np.concatenate((pooled, right[1]))) * scale, 0)
    weights = sigmoid(np.einsum("oi,ihw->ohw", cross(state, "conv2"), inner) * scale)
    scaled = [right[0] * weights[:8].repeat(2, 1).repeat(2, 2), right[1] * weights[8:]]
    for branch, x in enumerate(scaled):
        kernel = state[f"depthwise_convs.{branch}.conv.weight"][:, 0]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        height, width = x.shape[1:]
        filtered = sum(
            kernel[:, dy, dx, None, None] * padded[:, dy : dy + height, dx : dx + width]
            for dy in range(3)
            for dx in range(3)
        )
        filtered = filtered * scale
        hidden = np.maximum(own(state, branch, "conv1") @ filtered.mean((1, 2)) + bias(state, branch, "conv1"), 0)
        filtered *= sigmoid(own(state, branch, "conv2") @ hidden + bias(state, branch, "conv2"))[:, None, None]
        np.testing.assert_allclose(got[branch][0::2], left[branch], atol=1e-5)
        np.testing.assert_allclose(got[branch][1::2], filtered, atol=1e-5)


def cross(state: dict[str, np.ndarray], conv: str) -> np.ndarray:
    return state[f"cross_resolution_weighting.{conv}.conv.weight"][:, :, 0, 0]


def own(state: dict[str, np.ndarray], branch: int, conv: str) -> np.ndarray:
    return state[f"spatial_weighting.{branch}.{conv}.conv.weight"][:, :, 0, 0]


def bias(state: dict[str, np.ndarray], branch: int, conv: str) -> np.ndarray:
    return state[f"spatial_weighting.{branch}.{conv}.conv.bias"]
