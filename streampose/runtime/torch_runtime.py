"""Networks in torch: the reference on a CPU, the fast way on CUDA, and Apple's GPU.

On CUDA: fp16 and channels-last, one CUDA graph for each batch size (captured once, before the first picture; none of an
RT-DETR, which copies from the CPU in every pass), and the pre-processing on the device, so that what crosses the bus is
uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from streampose.errors import ModelError
from streampose.models.manifest import InputSpec, Manifest
from streampose.models.networks import network_of, running
from streampose.runtime.batches import WASTE, Outputs, run_in_batches
from streampose.runtime.preprocess import WithPreprocessing
from streampose.runtime.select import Choice

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchRuntime:
    """A torch network with its pre-processing on one device; for one thread at a time.

    `size` is (width, height) of the pictures. Raises ModelError where the device is not there or cannot run it.
    """

    name = "torch"

    def __init__(
        self, network: nn.Module, spec: InputSpec, size: tuple[int, int], choice: Choice, batch_sizes: Sequence[int]
    ) -> None:
        self._device = _device(choice.device)
        self.device = str(self._device)
        self.precision = choice.precision
        self.batch_sizes: Sequence[int] = tuple(sorted(set(batch_sizes)))
        self._network = WithPreprocessing(network, spec).eval()
        if self._device.type == "cuda":
            # A new shape otherwise costs a search of seconds (FIND); the heuristic's choice is close to it at once.
            torch.backends.cudnn.benchmark = False
        layout = torch.channels_last if self._device.type == "cuda" else torch.contiguous_format
        self._network.to(self._device, DTYPES[choice.precision]).to(memory_format=layout)
        if choice.threads and self._device.type == "cpu":
            torch.set_num_threads(choice.threads)
        self._waste = WASTE if self._device.type == "cpu" else 1.0
        self._size = width, height = size
        self._graphs: dict[int, _Graph] = {}
        with running(width, height), torch.inference_mode():
            for batch in self.batch_sizes if self._device.type != "cpu" else self.batch_sizes[:1]:
                pictures = torch.zeros((batch, height, width, 3), dtype=torch.uint8, device=self._device)
                if self._device.type == "cuda" and not getattr(network, "transformer", False):
                    self._graphs[batch] = _Graph(self._network, pictures)
                else:
                    self._network(pictures)

    def __call__(self, batch: npt.NDArray[Any]) -> Outputs:
        """See `Runtime`: (B, H, W, 3) uint8 BGR to float32 outputs; any B."""
        return run_in_batches(batch, self.batch_sizes, self._run, self._waste)

    def _run(self, batch: npt.NDArray[Any]) -> Outputs:
        return self._run_tensor(torch.from_numpy(batch))

    def _run_tensor(self, pictures: Tensor) -> Outputs:
        with torch.inference_mode():
            graph = self._graphs.get(len(pictures))
            found = graph(pictures) if graph else _as_tuple(self._network(pictures.to(self._device)))
            return tuple(np.array(tensor.float().cpu().numpy(), np.float32) for tensor in found)

    def close(self) -> None:
        """Free the device's memory."""
        self._graphs.clear()
        self._network.to("meta")
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class _Graph:
    """One forward pass on fixed memory, captured once and replayed: no launch overhead, no allocation.

    Pictures that are not on the device cross the bus from pinned memory. Whoever calls must have
    read the outputs before the next call.
    """

    def __init__(self, network: nn.Module, pictures: Tensor) -> None:
        self._device = pictures.device
        self._pictures = pictures
        self._staged = torch.empty(pictures.shape, dtype=pictures.dtype, pin_memory=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    network(pictures)
            torch.cuda.current_stream().wait_stream(side)
            self._kept = held_tensors(network)
            # Other threads may use the device meanwhile (decoding does), which must not spoil the capture.
            with torch.cuda.graph(self._graph, stream=side, capture_error_mode="thread_local"):
                self._outputs = _as_tuple(network(pictures))

    def __call__(self, pictures: Tensor) -> tuple[Tensor, ...]:
        with torch.cuda.device(self._device):
            if pictures.device.type == "cpu":
                pictures = self._staged.copy_(pictures)
            self._pictures.copy_(pictures, non_blocking=True)
            self._graph.replay()
        return self._outputs


def held_tensors(network: nn.Module) -> list[Tensor]:
    """Tensors that modules keep as plain attributes, beside parameters and buffers.

    A YOLO head makes its anchors anew when the batch size changes; a graph captured before goes on reading the old ones,
    so somebody must hold them.
    """
    return [value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)]


def _as_tuple(found: Any) -> tuple[Tensor, ...]:
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ModelError(f"device: {name!r}: torch runs networks on cpu, cuda, cuda:1 or mps here")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ModelError(f"device: {name}: torch sees no CUDA device here; use device: cpu or auto")
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise ModelError(f"device: {name}: there are {torch.cuda.device_count()} CUDA devices, the first is cuda:0")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device: mps: torch sees no Apple GPU here; use device: cpu or auto")
    return device


def open_torch(
    manifest: Manifest, weights: Path, choice: Choice, size: tuple[int, int], batch_sizes: Sequence[int]
) -> tuple[TorchRuntime, bool]:
    """See `OpenRuntime`; nothing is converted or kept. On CUDA a pose network cuts its crops itself."""
    from streampose.runtime.torch_cut import TorchCuttingRuntime

    cuts = manifest.task == "pose" and choice.device.startswith("cuda")
    kind = TorchCuttingRuntime if cuts else TorchRuntime
    return kind(network_of(manifest, weights), manifest.input, size, choice, batch_sizes), False
