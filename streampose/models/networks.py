"""From a manifest and its weights to the torch network; imported only where something must be traced or run in torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from streampose.errors import ModelError, words_of
from streampose.models.manifest import Manifest


@contextlib.contextmanager
def running(width: int, height: int) -> Iterator[None]:
    """Around running a torch network on pictures of that size: what torch cannot do is a ModelError in one line."""
    try:
        yield
    except RuntimeError as error:
        raise ModelError(f"the network cannot run on pictures of {width}x{height} ({words_of(error)})") from error


def network_of(manifest: Manifest, weights: Path) -> nn.Module:
    """The network in eval mode and float32, without its pre-processing.

    Raises ModelError, in one line, where the file does not fit the architecture.
    """
    if manifest.task == "detect":
        from streampose.detect.network import build

        detector: nn.Module = build(manifest, weights)
        return detector
    if "network" not in manifest.architecture:
        raise ModelError(f"{manifest.name}: its manifest names no `architecture.network`; it cannot be built in torch")
    from streampose.pose.checkpoint import load_weights
    from streampose.pose.network import build_pose_network

    network = build_pose_network(manifest.architecture)
    load_weights(network, weights)
    return network.float().eval()
