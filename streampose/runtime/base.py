"""The seam between us and a network: arrays in, arrays out; and what is known of a runtime before it is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy.typing as npt

    from streampose.models.manifest import Manifest
    from streampose.runtime.select import Choice


@dataclass(frozen=True, slots=True)
class RuntimeKind:
    """A runtime, listed in `registry.RUNTIMES`: what is known of it before its package, which may be heavy, is imported.

    `opens` is the "module:name" of an `OpenRuntime`. It cannot do without `packages`, which pip installs as `install`. Of
    the devices that every runtime calls the same, cpu, cuda and mps, it runs on `devices`, and is the first choice on
    `best_on`; `built_for_cuda`, "module:name", tells whether the package that is installed was. `precisions` are those of a
    device ("": of any other), the one for "auto" first; bf16 is that only on a CPU with one of `bf16_flags`, as Linux names
    the instructions by which the runtime multiplies it. `reads` are the suffixes of the models of other programs that it
    runs.
    """

    opens: str
    packages: tuple[str, ...]
    install: str
    devices: tuple[str, ...]
    precisions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    best_on: tuple[str, ...] = ()
    built_for_cuda: str = ""
    reads: tuple[str, ...] = ()
    bf16_flags: frozenset[str] = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


class Runtime(Protocol):
    """A network, compiled for a device, together with its pre-processing.

    `name` is that in the registry; `device` and `precision` say what was really got (for example "cpu", "bf16"), and
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


class OpenRuntime(Protocol):
    """Makes a network ready: converted, compiled or taken from the cache. Raises ModelError where the file or the device
    does not serve."""

    def __call__(
        self, manifest: Manifest, weights: Path, choice: Choice, size: tuple[int, int], batch_sizes: Sequence[int]
    ) -> tuple[Runtime, bool]:
        """The runtime for pictures of `size` (width, height) in `batch_sizes`, and whether all of it was in the cache."""
        ...


@runtime_checkable
class CuttingRuntime(Runtime, Protocol):
    """A `Runtime` that cuts the crops itself, where the network runs."""

    def cut(
        self,
        images: Sequence[npt.NDArray[Any]],
        to_image: Sequence[npt.NDArray[Any]],
        columns: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[Any], ...]:
        """Run on the crops of all `images` (H, W, 3) uint8 BGR, in order; outputs as of a call.

        `to_image` holds the maps (N, 2, 3) from crop to image pixels of each image, one crop in all at least. With
        `columns` (w,) all crops follow once more, their columns in that order (mirrored).
        """
        ...
