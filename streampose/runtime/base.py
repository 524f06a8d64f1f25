"""The seam between us and a network: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt


class Runtime(Protocol):
    """A network, compiled for a device, together with its pre-processing.

    `name` is torch, openvino or onnx; `device` and `precision` say what was really got (for example "cpu", "bf16"), and
    `batch_sizes` the batch sizes that are compiled (empty: any).
    """

    name: str
    device: str
    precision: str
    batch_sizes: Sequence[int]

    def __call__(self, batch: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """Run on `batch`: (B, H, W, 3) uint8 BGR pictures at the network's input size.

        Channel order, scaling and normalisation are part of the compiled network and come from its manifest. A batch of a
        size between the compiled ones is padded and the padding is cut from the outputs. Returns float32 outputs, in the
        network's order; pose networks return heatmaps (B, K, H/4, W/4), detectors (B, 4 + classes, anchors) or (B, N, 6).
        """
        ...

    def close(self) -> None:
        """Free the device's memory."""
        ...
