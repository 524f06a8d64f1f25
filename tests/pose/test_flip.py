"""The flip test: what the mirrored crop says, turned back, lies on what the crop itself says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from streampose.models.manifest import OutputSpec
from streampose.pose.decode import decode_heatmaps
from streampose.pose.flip import merge_flipped, mirror_columns

WIDTH, HEIGHT = 96, 128
SPECS = {
    "4c": OutputSpec(kind="heatmap", blur=5),
    "4c + 1.5": OutputSpec(kind="heatmap", blur=5, offset=1.5),
    "4c + 3": OutputSpec(kind="heatmap", blur=5, offset=3.0),
    "udp": OutputSpec(kind="heatmap", blur=5, stride=(WIDTH - 1) / (WIDTH // 4 - 1)),
}
ORDER = np.array([0])


def dot_network(crops: npt.NDArray[np.float64], spec: OutputSpec) -> npt.NDArray[np.float32]:
    """Heatmaps (B, 1, h, w) with a Gaussian of two cells where the brightest column and row of `crops` (B, H, W) are."""
    found = []
    for crop in crops:
        row, column = np.unravel_index(crop.argmax(), crop.shape)
        y = (row - spec.offset) / spec.stride - np.arange(HEIGHT // 4)
        x = (column - spec.offset) / spec.stride - np.arange(WIDTH // 4)
        found.append(np.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * 2.0**2)))
    return np.asarray(found, np.float32)[:, None]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("column", [16, 41, 44, 46, 79])
def test_a_dot_has_its_peak_on_the_same_place_when_mirrored_and_turned_back(spec: OutputSpec, column: int) -> None:
    crop = np.zeros((1, HEIGHT, WIDTH))
    crop[0, 60, column] = 1
    straight = dot_network(crop, spec)
    turned = dot_network(crop[:, :, mirror_columns(WIDTH, spec)], spec)[..., ::-1]
    assert np.abs(turned - straight).max() < 0.01
    merged = merge_flipped(straight, turned[..., ::-1], ORDER, spec)
    assert decode_heatmaps(merged, spec)[0, 0, :2] == pytest.approx([column, 60], abs=0.1)


@pytest.mark.parametrize(("shift", "error_px"), [(1, 0.5), (0, 1.5)])
def test_whole_cells_as_published_leave_a_part(shift: int, error_px: float) -> None:
    """With cell c at pixel 4c the turned heatmap lies 3/4 of a cell too far left: a shift by one leaves 1/4, half of
    which stays in the mean."""
    spec = OutputSpec(kind="heatmap", blur=5, flip_shift=shift)
    crop = np.zeros((1, HEIGHT, WIDTH))
    crop[0, 60, 44] = 1
    columns = mirror_columns(WIDTH, spec)
    assert columns.tolist() == list(range(WIDTH - 1, -1, -1))
    merged = merge_flipped(dot_network(crop, spec), dot_network(crop[:, :, columns], spec), ORDER, spec)
    assert abs(decode_heatmaps(merged, spec)[0, 0, 0] - 44) == pytest.approx(error_px, abs=0.1)


def test_beyond_the_crop_its_edge_goes_on() -> None:
    columns = mirror_columns(WIDTH, SPECS["4c"])
    assert columns.tolist() == [*range(WIDTH - 4, -1, -1), 0, 0, 0]
    assert mirror_columns(WIDTH, SPECS["4c + 3"]).tolist() == [WIDTH - 1] * 3 + list(range(WIDTH - 1, 2, -1))
    assert mirror_columns(WIDTH, OutputSpec(kind="simcc")).tolist() == list(range(WIDTH - 1, -1, -1))
