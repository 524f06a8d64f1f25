"""Crops cut where torch runs the network: a picture crosses the bus once, whatever number of people is on it.

Cut as `pose.crop.cut_crops` cuts on the CPU: bilinear, without a filter when a crop is smaller than its window, black
outside the picture. Two differences: positions are not rounded to parts of a pixel, and the outermost half pixel of a
crop is mixed with what lies beyond its window, where `cut_crops` repeats the window's edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from streampose.runtime.batches import Outputs, run_in_batches
from streampose.runtime.torch_runtime import TorchRuntime


class TorchCuttingRuntime(TorchRuntime):
    """A `CuttingRuntime`: a torch pose network that takes whole pictures too."""

    def cut(
        self,
        images: Sequence[npt.NDArray[Any]],
        to_image: Sequence[npt.NDArray[Any]],
        columns: npt.NDArray[Any] | None = None,
    ) -> Outputs:
        """See `CuttingRuntime`."""
        with torch.inference_mode():
            pairs = zip(images, to_image, strict=True)
            crops = torch.cat([sample(self._send(image), maps, *self._size) for image, maps in pairs if len(maps)])
            if columns is not None:
                crops = torch.cat((crops, crops[:, :, torch.from_numpy(columns.copy()).to(self._device)]))
            return run_in_batches(crops, self.batch_sizes, self._run_tensor, self._waste, pad_tensor)

    def _send(self, image: npt.NDArray[Any]) -> Tensor:
        """`image` on the device, by way of pinned memory that torch keeps until it has arrived."""
        staged = torch.empty(image.shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        np.copyto(staged.numpy(), image)
        return staged.to(self._device, non_blocking=True)


def sample(image: Tensor, to_image: npt.NDArray[Any], width: int, height: int) -> Tensor:
    """The N crops (N, height, width, 3) uint8 of `image` (H, W, 3) uint8, `to_image` (N, 2, 3) mapping crop pixels to its.

    The centre of the top-left pixel is (0, 0) in both; `grid_sample` has the picture's edges, half a pixel outside, at
    -1 and 1. All crops lie below each other in one grid, so the picture is converted once.
    """
    rows, columns, _ = image.shape
    x, y = np.arange(width), np.arange(height)[:, None]
    maps = np.asarray(to_image, np.float64)[..., None, None]
    at = [maps[:, axis, 0] * x + maps[:, axis, 1] * y + maps[:, axis, 2] for axis in (0, 1)]
    grid = np.stack(((2 * at[0] + 1) / columns - 1, (2 * at[1] + 1) / rows - 1), axis=-1).astype(np.float32)
    place = torch.from_numpy(grid.reshape(1, -1, width, 2)).to(image.device)
    planes = image.permute(2, 0, 1)[None].float()
    found = functional.grid_sample(planes, place, mode="bilinear", padding_mode="zeros", align_corners=False)
    return found[0].round().clamp(0, 255).to(torch.uint8).reshape(3, -1, height, width).permute(1, 2, 3, 0).contiguous()


def pad_tensor(piece: Tensor, size: int) -> Tensor:
    """`piece` (b, h, w, 3) with black pictures behind it up to `size`."""
    return functional.pad(piece, (0, 0, 0, 0, 0, 0, 0, size - len(piece)))
