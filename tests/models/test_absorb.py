"""The network rewritten without shuffles is the same function."""

from __future__ import annotations

import pytest
import torch

from streampose.models.absorb import absorb_shuffles
from streampose.pose.lite_hrnet import LiteHRNet, LiteHRNetPreset
from tests.made_models import seeded_pose_network


@pytest.mark.parametrize("preset", ["litehrnet_tiny", "litehrnet18"])
def test_same_heatmaps(preset: str) -> None:
    network = seeded_pose_network(preset)
    pictures = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted, got = network(pictures), absorb_shuffles(network)(pictures)
    assert float((got - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def test_same_heatmaps_with_odd_halves_and_deep_modules() -> None:
    torch.manual_seed(2)
    network = LiteHRNet(LiteHRNetPreset(stem=20, widths=(14, 22, 38), modules=(2, 1), blocks=3), joints=5).eval()
    pictures = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        wanted, got = network(pictures), absorb_shuffles(network)(pictures)
    assert float((got - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def test_other_networks_stay_as_they_are() -> None:
    network = seeded_pose_network("hrnet_tiny")
    assert absorb_shuffles(network) is network
    weighted = LiteHRNet(LiteHRNetPreset(stem=16, widths=(16, 32), modules=(1,), blocks=1, weighting=True))
    assert absorb_shuffles(weighted) is weighted
