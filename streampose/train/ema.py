"""An exponential moving average of a network's weights: what is measured and shipped (Polyak and Juditsky, 1992)."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightAverage:
    """Keeps `network`, a copy whose weights follow the trained ones: w = d * w + (1 - d) * trained.

    d grows from 0 to `decay` over the first steps, so that a short run is not held at its start.
    """

    def __init__(self, network: nn.Module, decay: float = 0.998, ramp: float = 100.0) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.ramp = ramp
        self.updates = 0

    def update(self, network: nn.Module) -> None:
        """Take one step towards the weights of `network`; buffers (batch-norm statistics) are copied."""
        self.updates += 1
        decay = self.decay * (1.0 - 2.0 ** (-self.updates / self.ramp))
        trained = [parameter.detach() for parameter in network.parameters()]
        torch._foreach_lerp_(list(self.network.parameters()), trained, 1.0 - decay)
        for kept, new in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(new)

    def state(self) -> dict[str, object]:
        """For a checkpoint."""
        return {"network": self.network.state_dict(), "updates": self.updates}

    def restore(self, state: dict[str, object]) -> None:
        """From a checkpoint."""
        self.network.load_state_dict(state["network"])
        self.updates = int(state["updates"])  # type: ignore[call-overload]
