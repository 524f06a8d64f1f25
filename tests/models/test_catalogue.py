"""The catalogue is well-formed, and what it says of a network is true of the network."""

from __future__ import annotations

import re

import pytest
import torch

from streampose.models.catalogue import catalogue
from streampose.models.inspect import count_gmacs, count_parameters
from streampose.models.resolve import size_in_name
from streampose.pose.network import build_pose_network


def test_every_entry_can_be_verified_or_says_so() -> None:
    for name, known in catalogue().items():
        assert known.url.startswith("https://") or (known.url == "" and known.note), name
        in_name = re.search(r"-([0-9a-f]{8})_\d{8}\.pth$", known.url)
        assert in_name is None or in_name[1] == known.sha256, name
        assert all(side % 32 == 0 for side in known.size), name
        assert known.ap is not None, name
        assert known.ap_of, name


POSES = [name for name, known in catalogue().items() if known.task == "pose"]


@pytest.mark.parametrize("name", POSES)
def test_costs_are_the_networks(name: str) -> None:
    known = catalogue()[name]
    assert size_in_name(name) == known.size[::-1]
    assert known.joints == (133 if "wholebody" in name else 17)
    with torch.device("meta"):
        network = build_pose_network({"network": known.network, "joints": known.joints})
    assert count_parameters(network) / 1e6 == pytest.approx(known.parameters_m, abs=0.06)


def test_multiplications_are_counted() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 8, 3, groups=8, stride=2, padding=1)
    )
    assert count_gmacs(network, 10, 20) * 1e9 == pytest.approx(3 * 8 * 9 * 200 + 8 * 9 * 50)
