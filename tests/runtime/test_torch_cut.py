"""Crops cut by torch are those that OpenCV cuts, and the estimator takes them so. On torch's CPU device; nothing here
differs on CUDA but the pinned memory and the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streampose.models import manifest as manifests
from streampose.models.networks import network_of
from streampose.models.open import open_runtime
from streampose.pose.crop import crop_affines, cut_crops, invert_affines, map_points
from streampose.pose.estimator import PoseEstimator, PoseNetwork
from streampose.pose.flip import mirror_columns
from streampose.runtime.base import CuttingRuntime
from streampose.runtime.select import Choice
from streampose.runtime.torch_cut import TorchCuttingRuntime, sample
from tests.made_models import write_pose_model

CPU = Choice("torch", "cpu", "fp32")
BOXES = st.tuples(st.floats(-300, 700), st.floats(-300, 600), st.floats(0.1, 3000), st.floats(0.1, 3000))


def smooth_picture(moved: int = 0) -> npt.NDArray[np.uint8]:
    yy, xx = np.mgrid[:400, moved : 500 + moved].astype(np.float32)
    waves = 128 + 100 * np.sin(xx / 40) * np.cos(yy / 50)
    picture = np.stack((40 + xx / 4, 60 + yy / 4, waves), 2).astype(np.uint8)
    picture.flags.writeable = False  # as the pictures of a source are
    return picture


def inside(affine: npt.NDArray[np.float64], width: int, height: int) -> npt.NDArray[np.bool_]:
    """Pixels of the crop that see nothing but the picture: a pixel away from its edge and from the crop's own."""
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), 2).reshape(1, -1, 2)
    x, y = np.moveaxis(map_points(invert_affines(affine), grid)[0].reshape(height, width, 2), 2, 0)
    covered = (x >= 0) & (x <= 499) & (y >= 0) & (y <= 399)
    edge = int(np.ceil(affine[0, 0, 0] / 2))
    rim = np.zeros((height, width), bool)
    rim[edge : height - edge, edge : width - edge] = True
    return np.asarray(covered & rim)


@settings(max_examples=80, deadline=None)
@example((200.0, 100.0, 60.0, 150.0), (192, 256))
@example((-50.0, -40.0, 120.0, 200.0), (192, 256))  # over the corner
@example((450.0, 350.0, 100.0, 100.0), (192, 256))  # over the other
@example((250.0, 200.0, 0.5, 0.5), (192, 256))  # under a pixel
@example((-300.0, -300.0, 3000.0, 3000.0), (96, 128))  # far larger than the picture
@example((100.0, 50.0, 300.0, 300.0), (96, 128))
@given(BOXES, st.sampled_from([(192, 256), (96, 128)]))
def test_a_crop_is_that_of_opencv(box: tuple[float, float, float, float], size: tuple[int, int]) -> None:
    """Within 2 grey levels, where a crop does not mix in what is beyond its edge or the picture's."""
    image, (x, y, w, h) = smooth_picture(), box
    affine = crop_affines(np.array([[x, y, x + w, y + h]]), *size)
    ours = sample(torch.tensor(image), invert_affines(affine), *size).numpy()
    wanted = cut_crops(image, affine, *size)
    assert ours.shape == wanted.shape
    assert ours.dtype == np.uint8
    different = np.abs(ours.astype(int) - wanted)[0].max(2)
    assert different[inside(affine, *size)].max(initial=0) <= 2


def test_outside_the_picture_is_black_and_its_edge_fades_as_in_opencv() -> None:
    image = np.full((400, 500, 3), 200, np.uint8)
    affines = crop_affines(np.array([[-30, 100, 30, 180], [470, 100, 530, 180], [-900, -900, -800, -800]]), 192, 256)
    ours = sample(torch.tensor(image), invert_affines(affines), 192, 256).numpy()
    wanted = cut_crops(image, affines, 192, 256)
    assert not ours[2].any()
    assert not ours[0, :, :80].any()
    assert not ours[1, :, -80:].any()
    assert np.abs(ours.astype(int) - wanted).max() <= 5  # OpenCV rounds positions to 1/32 pixel


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[PoseNetwork, PoseNetwork]:
    """The same network twice: fed with crops, and cutting by itself."""
    path: Path = write_pose_model(tmp_path_factory.mktemp("models"))
    manifest, weights = manifests.load(path)
    size = manifest.input.width, manifest.input.height
    fed = open_runtime(manifest, weights, CPU, batch_sizes=(1, 4))
    cutting = TorchCuttingRuntime(network_of(manifest, weights), manifest.input, size, CPU, (1, 4))
    assert not isinstance(fed, CuttingRuntime)
    assert isinstance(cutting, CuttingRuntime)
    return PoseNetwork(fed, manifest), PoseNetwork(cutting, manifest)


SEEN = [smooth_picture(), smooth_picture(90), smooth_picture(200)]
PEOPLE = [
    np.array([[100, 50, 180, 250], [300, 100, 360, 300], [-20, 40, 60, 220], [200, 20, 280, 200]], np.float32),
    np.zeros((0, 4), np.float32),
    np.array([[50, 150, 130, 350], [380, 200, 520, 420]], np.float32),
]


@pytest.mark.parametrize("flip", [False, True])
def test_the_network_says_the_same_of_either(networks: tuple[PoseNetwork, PoseNetwork], flip: bool) -> None:
    """Six people of three pictures, one of them empty, in pieces of 4 and a padded one; then mirrored."""
    fed, cutting = networks
    spec = fed.manifest.input
    affines = [crop_affines(each, spec.width, spec.height) for each in PEOPLE]
    crops = np.concatenate([cut_crops(i, a, spec.width, spec.height) for i, a in zip(SEEN, affines, strict=True)])
    columns = mirror_columns(spec.width, fed.manifest.output)
    (wanted,) = fed.runtime(np.concatenate((crops, crops[:, :, columns])) if flip else crops)
    assert isinstance(cutting.runtime, CuttingRuntime)
    (found,) = cutting.runtime.cut(SEEN, [invert_affines(each) for each in affines], columns if flip else None)
    assert found.shape == wanted.shape
    assert found.dtype == np.float32
    apart = np.abs(found - wanted).max(axis=(1, 2, 3))
    others = np.abs(np.roll(wanted, 1, axis=0) - wanted).max(axis=(1, 2, 3))
    assert (apart < 0.2 * others).all()  # a crop in another's place would be as far away as `others`


@pytest.mark.parametrize("flip", [False, True])
def test_the_estimator_leaves_cutting_to_a_network_that_cuts(
    networks: tuple[PoseNetwork, PoseNetwork], flip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed, cutting = (PoseEstimator(each, flip_test=flip) for each in networks)
    wanted = fed(SEEN, PEOPLE)
    monkeypatch.delattr("streampose.pose.estimator.cut_crops")
    found = cutting(SEEN, PEOPLE)
    assert [each.shape for each in found] == [each.shape for each in wanted]
    apart = np.concatenate([np.abs(a - b)[..., :2].max(2) for a, b in zip(found, wanted, strict=True)])
    assert np.median(apart) < 0.5  # peaks of random weights may jump between equals
