"""Geometry from image to heatmap and back, for every kind of box, both pixel conventions and all sub-pixel steps."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streampose.models.manifest import OutputSpec
from streampose.models.resolve import published_output
from streampose.pose.crop import crop_affines, cut_crops, invert_affines, map_points
from streampose.pose.decode import decode_heatmaps
from streampose.train.pose_loss import cells_of

SIZES = st.sampled_from([(192, 256), (288, 384), (96, 128)])
BOXES = st.tuples(
    st.floats(-150, 500), st.floats(-150, 400), st.floats(4, 600), st.floats(4, 600)
).map(lambda b: np.array([[b[0], b[1], b[0] + b[2], b[1] + b[3]]], np.float32))  # fmt: skip


def heatmap_at(points: npt.NDArray[np.float32], width: int, height: int, spec: OutputSpec) -> npt.NDArray[np.float32]:
    """Gaussians of two cells at `points` (K, 2) in crop pixels, as (1, K, height / 4, width / 4)."""
    yy, xx = np.mgrid[: height // 4, : width // 4]
    cells = (points - spec.offset) / spec.stride
    away = (xx - cells[:, 0, None, None]) ** 2 + (yy - cells[:, 1, None, None]) ** 2
    return np.exp(-away / 8).astype(np.float32)[None]


@given(BOXES, SIZES)
def test_the_inverse_is_exact_and_the_aspect_is_kept(box: npt.NDArray[np.float32], size: tuple[int, int]) -> None:
    affine = crop_affines(box, *size)
    corners = box.reshape(1, 2, 2)
    there = map_points(affine, corners)
    assert np.allclose(map_points(invert_affines(affine), there), corners, atol=1e-2)
    px = affine[0, (0, 1), (0, 1)]  # of the crop, for one of the image
    assert (np.abs(there.mean(1) - np.array(size) / 2) <= px + 1e-3).all()
    span = (there[0, 1] - there[0, 0]) / px * px.mean() / size
    assert np.isclose(span.max(), 1 / 1.25, rtol=1.3 / (np.array(size) / px).min())


@settings(max_examples=60, deadline=None)
@example(np.array([[500, 0, 504, 4]], np.float32), (192, 256))
@given(BOXES, SIZES)
def test_a_window_is_cut_as_its_map_says(box: npt.NDArray[np.float32], size: tuple[int, int]) -> None:
    """Against OpenCV's free affine map of the same picture, a smooth one, inside the part that the picture covers."""
    yy, xx = np.mgrid[:400, :500].astype(np.float32)
    image = np.stack((xx / 2, yy / 2, 128 + 100 * np.sin(xx / 40) * np.cos(yy / 50)), 2).astype(np.uint8)
    affine = crop_affines(box, *size)
    crop = cut_crops(image, affine, *size)[0].astype(int)
    free = cv2.warpAffine(image, affine[0], size, borderMode=cv2.BORDER_REPLICATE).astype(int)
    inner = map_points(affine, np.array([[[0, 0], [499, 399]]]))[0]
    x1, y1 = np.maximum(np.ceil(inner[0]), 0).astype(int)
    x2, y2 = np.clip(np.floor(inner[1]), 0, np.array(size) - 1).astype(int)  # nothing where the box is outside
    assert np.abs(crop - free)[y1:y2, x1:x2].max(initial=0) <= 3


@settings(max_examples=60, deadline=None)
@given(
    centre=st.tuples(st.floats(-20, 340), st.floats(-20, 260)),
    where=st.tuples(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4)),
    offset=st.sampled_from([0.0, 1.5]),
)
def test_a_dot_on_the_image_comes_back(centre: tuple[float, float], where: tuple[float, float], offset: float) -> None:
    """Image with a dot, crop at scale 1, the dot found in the crop, a peak there, decoded, back on the image."""
    width, height = 192, 256
    half = np.array([width, height]) / 2.5
    box = np.array([[*(np.array(centre) - half), *(np.array(centre) + half)]], np.float32)
    dot = np.array(centre) + np.array(where) * half * 2
    yy, xx = np.mgrid[:240, :320]
    image = np.repeat(
        np.round(255 * np.exp(-((xx - dot[0]) ** 2 + (yy - dot[1]) ** 2) / 18)).astype(np.uint8)[..., None], 3, 2
    )
    if not (6 < dot[0] < 313 and 6 < dot[1] < 233):
        return  # the dot itself must be whole; boxes may leave the image
    affine = crop_affines(box, width, height)
    assert np.isclose(affine[0, 0, 0], 1.0, atol=1e-4)
    crop = cut_crops(image, affine, width, height)[0, :, :, 0].astype(float)
    cy, cx = np.mgrid[:height, :width]
    seen = np.array([(crop * cx).sum(), (crop * cy).sum()]) / crop.sum()
    spec = OutputSpec(kind="heatmap", offset=offset, blur=5)
    decoded = decode_heatmaps(heatmap_at(seen[None].astype(np.float32), width, height, spec), spec)
    back = map_points(invert_affines(affine), decoded[..., :2])[0, 0]
    assert np.abs(back - dot).max() < 0.25


@pytest.mark.parametrize(("step", "bound"), [("none", 2.01), ("quarter", 1.01), ("dark", 0.02)])
@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_sub_pixel_steps(step: str, bound: float, offset: float) -> None:
    spec = OutputSpec(kind="heatmap", decode=step, offset=offset, blur=5)  # type: ignore[arg-type]
    points = np.random.default_rng(1).uniform((20, 20), (170, 230), (300, 2)).astype(np.float32)
    decoded = decode_heatmaps(heatmap_at(points, 192, 256, spec), spec)[0]
    assert np.abs(decoded[:, :2] - points).max() < bound
    assert ((decoded[:, 2] > 0.8) & (decoded[:, 2] <= 1)).all()


def test_rows_and_columns_of_udp_have_their_own_strides() -> None:
    """As MMPose's UDP codec puts cells back: key point / (cells - 1) * (pixels - 1), each axis by itself."""
    spec = published_output("hrnet_w32_udp-256x192.pth", 192, 256, 17).model_copy(update={"decode": "none"})
    heatmaps = np.zeros((1, 1, 64, 48), np.float32)
    heatmaps[0, 0, 63, 47] = 1
    np.testing.assert_allclose(decode_heatmaps(heatmaps, spec)[0, 0, :2], (191, 255), atol=1e-3)
    cells = cells_of(torch.tensor([[191.0, 255.0], [0.0, 0.0]]), spec)
    torch.testing.assert_close(cells, torch.tensor([[47.0, 63.0], [0.0, 0.0]]))


def test_scores_are_clipped_and_scaled_by_the_peak() -> None:
    heatmaps = np.zeros((1, 3, 8, 8), np.float32)
    heatmaps[0, :, 4, 4] = -0.5, 0.5, 3.0
    scores = decode_heatmaps(heatmaps, OutputSpec(kind="heatmap", peak=2.0))[0, :, 2]
    assert scores.tolist() == [0.0, 0.25, 1.0]


def test_peaks_at_the_border_and_flat_heatmaps_decode() -> None:
    heatmaps = np.zeros((1, 5, 8, 6), np.float32)
    for joint, (row, column) in enumerate([(0, 0), (7, 5), (0, 3), (3, 0)]):
        heatmaps[0, joint, row, column] = 1.0
    decoded = decode_heatmaps(heatmaps, OutputSpec(kind="heatmap"))[0]
    assert np.isfinite(decoded).all()
    assert decoded[:4, :2].tolist() == [[0, 0], [20, 28], [12, 0], [0, 12]]


def test_a_box_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        crop_affines(np.array([[0, 0, np.nan, 5]]), 192, 256)


def test_a_box_outside_the_image_is_black() -> None:
    image = np.full((50, 60, 3), 200, np.uint8)
    crops = cut_crops(image, crop_affines(np.array([[500, 500, 520, 560], [10, 10, 10, 10]]), 48, 64), 48, 64)
    assert crops[0].max() == 0
    assert crops[1].min() == 200
