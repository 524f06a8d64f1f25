"""On what, and in which arithmetic, to train: a few steps of each are timed, because no CPU's flags tell it.

bf16 doubles the speed where the CPU multiplies it in hardware and is emulated, many times slower, where it does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streampose.errors import ConfigError

FEW = 2
"""So many pictures are timed first; a batch norm wants more than one."""
FAR = 3.0
"""What takes more than so many times as long as the fastest is not timed again. Emulated bf16 takes five and more."""


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" takes CUDA where there is one. Raises ConfigError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device: {name!r} is none of auto, cpu, cuda, cuda:1, mps") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 0):
        raise ConfigError(f"device: {name} was asked for and this machine has none; say cpu or auto")
    return device


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Precision of the matrix products and layout of the pictures; weights and their averages stay float32."""

    precision: str
    channels_last: bool

    def __str__(self) -> str:
        return f"{self.precision}, {'channels last' if self.channels_last else 'channels first'}"

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """The context to run a network in."""
        context: AbstractContextManager[None] = torch.autocast(
            device.type, torch.bfloat16, enabled=self.precision == "bf16"
        )
        return context

    def arrange(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in this layout."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return pictures.contiguous(memory_format=layout)

    def arrange_network(self, network: nn.Module) -> None:
        """Put a network's weights into this layout."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        network.to(memory_format=layout)


def arithmetics(precision: str, layout: str) -> list[Arithmetic]:
    """All that a recipe's words allow, "auto" for any."""
    precisions = ["fp32", "bf16"] if precision == "auto" else [precision]
    layouts = ["channels_last", "channels_first"] if layout == "auto" else [layout]
    return [Arithmetic(name, word == "channels_last") for name in precisions for word in layouts]


def choose_arithmetic(
    network: nn.Module,
    shape: tuple[int, int, int, int],
    device: torch.device,
    candidates: Sequence[Arithmetic],
    say: Callable[[str], None],
) -> Arithmetic:
    """Time forward and backward of `network` for pictures of `shape`; the fastest wins and is said. Nothing is learnt."""
    pictures = torch.rand(shape, device=device)

    def seconds(candidate: Arithmetic, count: int) -> float:
        return _time(network, pictures[:count], candidate, device)

    before = [buffer.clone() for buffer in network.buffers()]
    choice = fastest(candidates, seconds, shape[0], device, say)
    restore_buffers(network, before)
    choice.arrange_network(network)
    return choice


def fastest(
    candidates: Sequence[Arithmetic],
    seconds: Callable[[Arithmetic, int], float],
    batch: int,
    device: torch.device,
    say: Callable[[str], None],
) -> Arithmetic:
    """That of `candidates` with which a batch takes least; `seconds` times one, for so many pictures. All is said.

    On a CPU a few pictures are timed first, where time goes by pictures, and what is far slower there is left out: emulated
    bf16 takes minutes for a batch.
    """
    say(f"timing {len(candidates)} arithmetics on {device}: {'; '.join(map(str, candidates))}")
    few = min(FEW, batch) if device.type == "cpu" else batch
    seconds(candidates[0], few)  # wakes the device up
    sifted = _in_turns(candidates, seconds, few, 2)
    near = _near(candidates, sifted)
    timed = _in_turns(near, seconds, batch, 3) if few < batch and len(near) > 1 else {}
    choices = sorted(candidates, key=lambda choice: (choice not in timed, timed.get(choice, sifted[choice])))
    table = "; ".join(
        f"{choice}: {1000 * timed.get(choice, sifted[choice]):.1f} ms"
        + (f" ({few} at once)" if choice not in timed and few < batch else "")
        for choice in choices
    )
    say(f"arithmetic, forward and backward a picture: {table}")
    return choices[0]


def _in_turns(
    candidates: Sequence[Arithmetic], seconds: Callable[[Arithmetic, int], float], count: int, rounds: int
) -> dict[Arithmetic, float]:
    """Least seconds a picture of each, of `count` at once; who is far behind after a round is out of the next.

    They take turns, so that what else the machine does for a while hits all of them; the first round warms up, too.
    """
    best = dict.fromkeys(candidates, float("inf"))
    for _ in range(rounds):
        for candidate in _near(candidates, best):
            best[candidate] = min(best[candidate], seconds(candidate, count) / count)
    return best


def _near(candidates: Sequence[Arithmetic], best: Mapping[Arithmetic, float]) -> list[Arithmetic]:
    limit = FAR * min(best.values())
    return [candidate for candidate in candidates if best[candidate] <= limit]


def restore_buffers(network: nn.Module, before: Sequence[torch.Tensor]) -> None:
    """Give batch norms the statistics that they had: passes that were only timed have changed them."""
    with torch.no_grad():
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.copy_(value)


def _time(network: nn.Module, pictures: Tensor, choice: Arithmetic, device: torch.device) -> float:
    choice.arrange_network(network)
    arranged = choice.arrange(pictures)
    start = clock(device)
    with choice.autocast(device):
        heatmaps = network(arranged)
    heatmaps.float().square().mean().backward()
    spent = clock(device) - start
    network.zero_grad(set_to_none=True)
    return spent


def clock(device: torch.device) -> float:
    """Seconds that count: of this process on a CPU, whatever else runs there; else of the wall, with the device idle."""
    if device.type == "cpu":
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
