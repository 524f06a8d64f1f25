"""The flip test: a crop is seen mirrored too and both heatmaps are averaged (Newell et al., "Stacked Hourglass", 2016).

The mean is sharp only where the turned heatmap lies on the straight one. A plain mirror image puts cell c on cell
w - 1 - c where the cells lie symmetrically in the crop; where they do not, as with the published HRNets whose cell c is
at pixel 4c, either the picture is moved before (exact, what our own networks use) or the heatmap by whole cells
afterwards (a quarter of a cell stays, as published). The manifest's `flip_shift` says which.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streampose.models.manifest import OutputSpec

Array = npt.NDArray[np.float32]


def mirror_columns(width: int, spec: OutputSpec) -> npt.NDArray[np.int64]:
    """For each column of the mirrored crop (`width`,) the column of the crop that stands there.

    Without `flip_shift` the mirror lies so that heatmap cell c falls on cell w - 1 - c, to half a pixel; the columns that
    come from beyond the crop repeat its last one.
    """
    columns = np.arange(width - 1, -1, -1)
    if spec.kind != "heatmap" or spec.flip_shift is not None:
        return columns
    last = np.floor((width - 1 - spec.offset) / spec.stride + 1e-6)  # the last cell that lies in the crop
    beyond = round(width - 1 - spec.stride * last - 2 * spec.offset)
    return np.asarray(np.clip(columns - beyond, 0, width - 1))


def merge_flipped(heatmaps: Array, mirrored: Array, flip_order: npt.NDArray[np.int64], spec: OutputSpec) -> Array:
    """Average `heatmaps` (B, K, h, w) with those of the crops mirrored by `mirror_columns`, turned back."""
    turned = mirrored[:, flip_order, :, ::-1]
    if spec.flip_shift:
        turned = np.concatenate((turned[..., : spec.flip_shift], turned[..., : -spec.flip_shift]), axis=-1)
    return np.asarray(0.5 * (heatmaps + turned), np.float32)
