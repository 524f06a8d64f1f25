"""Augmentation held against OpenCV, and its geometry against itself."""

import cv2
import numpy as np
import pytest
import torch

from streampose.models.manifest import OutputSpec
from streampose.pose.skeleton import load_skeleton
from streampose.train.augment import (
    Augmenter,
    AugmentSpec,
    PersonBatch,
    jpeg,
    recolour,
    resample_matrices,
    shrink,
    smear,
)
from streampose.train.pose_config import LossSpec
from streampose.train.pose_loss import gaussian_heatmaps, peak_cells, pose_losses

COCO = load_skeleton("coco17")
STILL = AugmentSpec(flip=0, rotate=0, scale=(1, 1), shift=0, half_body=0, colour=0, grey=0, occlude=0, camera=0)


def smooth_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def batch_of(count: int = 6, seed: int = 0) -> PersonBatch:
    """Crops with a bright dot at every joint, on black."""
    points = np.random.default_rng(seed).uniform((60, 70), (180, 250), (count, 17, 2)).astype(np.float32)
    yy, xx = np.mgrid[:320, :240]
    crops = np.zeros((count, 320, 240, 3), np.uint8)
    for crop, joints in zip(crops, points, strict=True):
        crop[:] = (255 * np.exp(-((xx - joints[5, 0]) ** 2 + (yy - joints[5, 1]) ** 2) / 32))[..., None]
    return PersonBatch(
        torch.from_numpy(crops), torch.from_numpy(points), torch.ones(count, 17), torch.full((count,), 200.0)
    )


def augmenter(spec: AugmentSpec, size: tuple[int, int] = (192, 256), zoom: int = 1) -> Augmenter:
    order = torch.from_numpy(COCO.flip_order)
    return Augmenter(spec, size=size, flip_order=order, upper_body=COCO.upper_body, zoom=zoom)


@pytest.mark.parametrize("size", [(40, 30), (100, 75), (175, 131)])
def test_shrinking_is_opencv_area_and_growing_is_bilinear(size: tuple[int, int]) -> None:
    picture = smooth_picture(256, 192)
    rows, columns = (torch.tensor([float(value)]) for value in size)
    (down_y, up_y), (down_x, up_x) = resample_matrices(rows, 256), resample_matrices(columns, 192)
    x = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)
    small = (down_y @ x @ down_x.transpose(1, 2))[:, : size[0], : size[1]].permute(1, 2, 0).numpy()
    expected = cv2.resize(picture.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small - expected).max() < 0.1
    again = up_y[0] @ (down_y @ x @ down_x.transpose(1, 2)) @ up_x[0].T
    grown = cv2.resize(expected, (192, 256), interpolation=cv2.INTER_LINEAR)
    assert np.abs(again.permute(1, 2, 0).numpy() - grown).max() < 0.5


@pytest.mark.parametrize("quality", [25, 45, 75, 92])
def test_jpeg_leaves_what_opencv_jpeg_leaves(quality: int) -> None:
    picture = smooth_picture(128, 96, seed=quality)
    coded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    expected = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(float)
    x = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]
    found = jpeg(x, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy()
    loss = np.abs(expected - picture).mean()
    assert np.abs(found - expected).mean() < 0.35 * loss + 0.3


def test_nothing_drawn_is_the_middle_of_the_stored_crop() -> None:
    batch = batch_of()
    views = augmenter(STILL)(batch, torch.Generator().manual_seed(0))
    middle = batch.crops[:, 32:288, 24:216].permute(0, 3, 1, 2).float()
    assert torch.allclose(views.clean, middle, atol=0.01)
    assert torch.equal(views.seen, views.clean)
    assert torch.allclose(views.points, batch.points - torch.tensor([24.0, 32.0]), atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_points_move_with_the_picture(seed: int) -> None:
    """The bright dot at the left shoulder is where the points say, under its name or its mirror's."""
    spec = STILL.model_copy(update={"flip": 0.5, "rotate": 1.0, "scale": (0.8, 1.2), "shift": 0.02, "half_body": 0.3})
    views = augmenter(spec)(batch_of(8, seed), torch.Generator().manual_seed(seed))
    yy, xx = torch.meshgrid(torch.arange(256.0), torch.arange(192.0), indexing="ij")
    for picture, points, order in zip(views.clean[:, 0], views.points, views.order, strict=True):
        joint = int((order == 5).nonzero())
        inside = (points[joint] > 12).all() and points[joint, 0] < 180 and points[joint, 1] < 244
        if inside:
            total = picture.sum()
            seen = torch.stack(((picture * xx).sum(), (picture * yy).sum())) / total
            assert (seen - points[joint]).abs().max() < 0.1


def test_mirrored_twice_is_the_same_and_swaps_names() -> None:
    batch = batch_of(2)
    views = augmenter(STILL.model_copy(update={"flip": 1.0}))(batch, torch.Generator().manual_seed(0))
    middle = batch.crops[:, 32:288, 24:216].permute(0, 3, 1, 2).float()
    assert torch.allclose(views.clean.flip(3), middle, atol=0.01)
    assert views.order[0].tolist() == COCO.flip_order.tolist()
    left, right = views.points[0, 5], batch.points[0, 6] - torch.tensor([24.0, 32.0])
    assert torch.allclose(left, torch.stack((191 - right[0], right[1])), atol=1e-3)


def test_the_same_generator_draws_the_same_and_values_stay_in_range() -> None:
    spec = AugmentSpec(camera=1.0, colour=1.0, occlude=1.0, blur=0.5, motion=0.5, grey=0.3)
    first, again, other = (augmenter(spec)(batch_of(), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first.seen, again.seen)
    assert not torch.equal(first.seen, other.seen)
    assert first.seen.min() >= 0
    assert first.seen.max() <= 255


def test_a_grey_camera_sees_other_light_too() -> None:
    pictures = torch.full((64, 3, 8, 8), 100.0)
    everywhere = torch.ones(64, dtype=torch.bool)
    seen = recolour(pictures, everywhere, everywhere, torch.Generator().manual_seed(0))
    assert (seen - seen[:, :1]).abs().max() < 1e-3  # grey
    assert seen.std() > 10
    assert torch.equal(recolour(pictures, ~everywhere, everywhere, torch.Generator().manual_seed(0)).round(), pictures)


def test_smearing_keeps_a_flat_picture_and_the_mass_of_a_dot() -> None:
    pictures = torch.full((2, 3, 32, 32), 90.0)
    pictures[1, :, 16, 16] = 255.0
    yes = torch.tensor([True, True])
    for blur, motion in ((yes, ~yes), (~yes, yes)):
        out = smear(pictures, blur, motion, torch.Generator().manual_seed(0))
        assert torch.allclose(out[0], pictures[0], atol=1e-3)
        assert torch.isclose(out[1].sum(), pictures[1].sum(), rtol=1e-4)
        assert out[1, 0, 16, 16] < 200


def test_losses_vanish_where_all_agree_and_doubt_silences_the_teacher() -> None:
    output, spec = OutputSpec(kind="heatmap"), LossSpec(human=0.0, doubt=1.0)
    points = torch.tensor([[[40.0, 60.0], [80.0, 100.0]]])
    right = gaussian_heatmaps(points, (64, 48), output, spec.sigma)
    assert peak_cells(right).tolist() == [[[10.0, 15.0], [20.0, 25.0]]]
    wrong = gaussian_heatmaps(points + 60, (64, 48), output, spec.sigma)
    weights = torch.ones(1, 2)
    people, nobody = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.bool)
    label, distil = pose_losses(right, points, weights, people, spec, output, right)
    assert (float(label), float(distil)) == (0.0, 0.0)
    believed = pose_losses(right, points, weights, nobody, spec, output, wrong)[1]
    silenced = pose_losses(right, points, weights, people, spec, output, wrong)[1]
    assert believed > 1.0
    assert silenced < 1e-3 * believed


@pytest.mark.parametrize("zoom", [2, 3])
def test_shrinking_for_the_student_moves_nothing(zoom: int) -> None:
    y, x = torch.meshgrid(torch.arange(32.0 * zoom), torch.arange(24.0 * zoom), indexing="ij")
    picture = torch.exp(-((x - 10.3 * zoom) ** 2 + (y - 17.6 * zoom) ** 2) / (2 * (2 * zoom) ** 2)).expand(1, 3, -1, -1)
    small = shrink(picture, zoom)[0, 1]
    assert small.shape == (32, 24)
    row, column = torch.arange(32.0), torch.arange(24.0)
    assert float((small.sum(1) * row).sum() / small.sum()) == pytest.approx(17.6, abs=0.01)
    assert float((small.sum(0) * column).sum() / small.sum()) == pytest.approx(10.3, abs=0.01)
    assert torch.allclose(shrink(torch.full((1, 3, 8 * zoom, 8 * zoom), 7.0), zoom), torch.tensor(7.0), atol=1e-4)
    assert shrink(picture, 1) is picture


def test_a_student_of_half_the_size_sees_the_same_crop() -> None:
    """The very same draws: points at half the place, and the picture its teacher sees is the large network's own."""
    spec = STILL.model_copy(update={"flip": 0.5, "rotate": 1.0, "scale": (0.8, 1.2), "shift": 0.02, "half_body": 0.5})
    batch = batch_of(8)
    large = augmenter(spec)(batch, torch.Generator().manual_seed(5))
    small = augmenter(spec, (96, 128), zoom=2)(batch, torch.Generator().manual_seed(5))
    assert small.clean.shape == (8, 3, 128, 96)
    assert small.detail.shape == large.clean.shape
    assert torch.equal(small.order, large.order)
    flipped = (large.order[:, 5] == 6).float()
    # The mirror image turns about the middle of the pixels, which is half a pixel of each one's own size from the centre.
    assert torch.allclose(small.points[..., 1], large.points[..., 1] / 2, atol=1e-3)
    assert torch.allclose(small.points[..., 0], (large.points[..., 0] - flipped[:, None]) / 2, atol=1e-3)
    straight = flipped == 0
    assert 0 < straight.sum() < 8
    assert torch.allclose(small.detail[straight], large.clean[straight], atol=0.01)
    assert torch.allclose(small.clean, shrink(small.detail, 2))
