"""From heatmaps to key points in crop pixels, with a sub-pixel step, over a whole batch at once.

Steps: "quarter", a quarter of a cell towards the higher neighbour (Newell et al., "Stacked Hourglass", ECCV 2016, as
published with HRNet); "dark", a Newton step on the logarithm of the blurred heatmap (Zhang et al., "Distribution-Aware
Coordinate Representation", CVPR 2020); "none". Which one, and where a cell lies in the crop, is the network's manifest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streampose.models.manifest import OutputSpec

Array = npt.NDArray[np.float32]


def decode_heatmaps(heatmaps: Array, spec: OutputSpec) -> Array:
    """Key points (B, K, 3) as x, y in crop pixels and a score in 0..1, from `heatmaps` (B, K, h, w)."""
    batch, joints, _, width = heatmaps.shape
    flat = heatmaps.reshape(batch, joints, -1)
    best = flat.argmax(axis=2)
    peak = np.take_along_axis(flat, best[..., None], axis=2)[..., 0]
    rows, columns = np.divmod(best, width)
    if spec.decode == "quarter":
        step = _quarter_step(heatmaps, rows, columns)
    elif spec.decode == "dark":
        step = _dark_step(heatmaps, rows, columns, spec.blur or 11)
    else:
        step = np.zeros((batch, joints, 2))
    result = np.empty((batch, joints, 3), np.float32)
    across, down = spec.strides
    result[..., 0] = across * (columns + step[..., 0]) + spec.offset
    result[..., 1] = down * (rows + step[..., 1]) + spec.offset
    result[..., 2] = np.clip(peak / spec.peak, 0.0, 1.0)
    if spec.shift is not None:
        result[..., :2] += np.asarray(spec.shift, np.float32)
    return result


def _windows(
    heatmaps: Array, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], reach: int
) -> npt.NDArray[np.float64]:
    """The (B, K, 2 reach + 1, 2 reach + 1) surroundings of each peak; zero outside the heatmap."""
    side = 2 * reach + 1
    result = np.zeros((*rows.shape, side, side))
    whole = _interior(heatmaps, rows, columns, reach)
    if whole.any():  # implies that a window fits in
        view = np.lib.stride_tricks.sliding_window_view(heatmaps, (side, side), (2, 3))
        batch, joint = np.nonzero(whole)
        result[whole] = view[batch, joint, rows[whole] - reach, columns[whole] - reach]
    for b, k in np.argwhere(~whole).tolist():
        row, column = int(rows[b, k]) - reach, int(columns[b, k]) - reach
        part = heatmaps[b, k, max(row, 0) : row + side, max(column, 0) : column + side]
        result[b, k, max(-row, 0) :, max(-column, 0) :][: part.shape[0], : part.shape[1]] = part
    return result


def _interior(
    heatmaps: Array, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], margin: int
) -> npt.NDArray[np.bool_]:
    height, width = heatmaps.shape[2:]
    across = (columns >= margin) & (columns < width - margin)
    return np.asarray(across & (rows >= margin) & (rows < height - margin))


def _quarter_step(
    heatmaps: Array, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    near = _windows(heatmaps, rows, columns, 1)
    step = 0.25 * np.sign(np.stack((near[..., 1, 2] - near[..., 1, 0], near[..., 2, 1] - near[..., 0, 1]), axis=-1))
    return np.asarray(step * _interior(heatmaps, rows, columns, 1)[..., None])


def _gaussian(size: int) -> npt.NDArray[np.float64]:
    """The 1-D blur kernel of `size` cells, with the standard deviation that OpenCV gives that size."""
    sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8
    kernel = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / sigma) ** 2)
    return np.asarray(kernel / kernel.sum())


def _dark_step(
    heatmaps: Array, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], blur: int
) -> npt.NDArray[np.float64]:
    """Newton step to the maximum of the log of the blurred heatmap; none at the border or where there is no maximum."""
    kernel = _gaussian(blur)
    band = np.zeros((5, 4 + blur))
    for row in range(5):
        band[row, row : row + blur] = kernel
    near = _windows(heatmaps, rows, columns, 2 + blur // 2)
    for _ in range(2):  # blurred along one axis, then along the other: two large products, not many small ones
        near = (near.reshape(-1, band.shape[1]) @ band.T).reshape(*near.shape[:3], 5).swapaxes(2, 3)
    log = np.log(np.maximum(near, 1e-10))
    dx = 0.5 * (log[..., 2, 3] - log[..., 2, 1])
    dy = 0.5 * (log[..., 3, 2] - log[..., 1, 2])
    dxx = 0.25 * (log[..., 2, 4] - 2 * log[..., 2, 2] + log[..., 2, 0])
    dyy = 0.25 * (log[..., 4, 2] - 2 * log[..., 2, 2] + log[..., 0, 2])
    dxy = 0.25 * (log[..., 3, 3] - log[..., 1, 3] - log[..., 3, 1] + log[..., 1, 1])
    determinant = dxx * dyy - dxy * dxy
    good = (determinant > 1e-12) & (dxx < 0) & _interior(heatmaps, rows, columns, 2)
    safe = np.where(good, determinant, 1.0)
    step = np.stack((dxy * dy - dyy * dx, dxy * dx - dxx * dy), axis=-1) / safe[..., None]
    return np.where(good[..., None], np.clip(step, -1.0, 1.0), 0.0)
