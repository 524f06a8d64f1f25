"""From the words of a manifest or recipe to a pose network: `{"network": "litehrnet18", "joints": 17}`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from torch import nn

from streampose.errors import ModelError
from streampose.pose.hrnet import HRNET_PRESETS, HRNet
from streampose.pose.lite_hrnet import LITE_PRESETS, LiteHRNet

MOST_JOINTS = 1000


def list_networks() -> list[str]:
    """Names of all presets."""
    return sorted([*HRNET_PRESETS, *LITE_PRESETS])


def build_pose_network(architecture: Mapping[str, Any]) -> nn.Module:
    """The network, with random weights; raises ModelError for a preset that does not exist or joints that are no number.

    It takes normalised pictures (B, 3, H, W), H and W multiples of 32, and gives heatmaps (B, joints, H/4, W/4).
    """
    name, joints = str(architecture.get("network")), architecture.get("joints", 17)
    if not isinstance(joints, int) or not 1 <= joints <= MOST_JOINTS:
        raise ModelError(f"architecture.joints: {joints!r} is no whole number from 1 to {MOST_JOINTS}")
    if name in LITE_PRESETS:
        return LiteHRNet(name, joints)
    if name in HRNET_PRESETS:
        return HRNet(name, joints)
    near = difflib.get_close_matches(name, list_networks(), 1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(list_networks())}"
    raise ModelError(f"no pose network {name!r}{hint}")
