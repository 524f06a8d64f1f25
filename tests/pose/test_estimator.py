"""From pictures and boxes to key points: positions, order, flips and sizes, with a network whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampose.errors import ConfigError, ModelError
from streampose.models.manifest import InputSpec, Manifest, OutputSpec
from streampose.pose.estimator import PoseEstimator, PoseNetwork

JOINTS = 17
WIDTH, HEIGHT = 96, 128


class BlobFinder:
    """A network that needs no training: every heatmap is a Gaussian at the middle of what is bright in the crop.

    `left_channel` lets it see left from right: joint 1 (left eye) is found in the green channel, joint 2 in the red.
    """

    name, device, precision = "numpy", "cpu", "fp32"

    def __init__(self, spec: OutputSpec, width: int = WIDTH, height: int = HEIGHT) -> None:
        self.spec, self.width, self.height = spec, width, height
        self.batch_sizes: Sequence[int] = ()
        self.batches: list[int] = []

    def __call__(self, batch: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], ...]:
        assert batch.shape[1:] == (self.height, self.width, 3)
        self.batches.append(len(batch))
        light = batch.astype(np.float64).mean(3) ** 2 + 1e-9
        total = light.sum((1, 2))
        x = (light.sum(1) * np.arange(self.width)).sum(1) / total
        y = (light.sum(2) * np.arange(self.height)).sum(1) / total
        if self.spec.kind == "simcc":
            return tuple(self._vectors(c, size) for c, size in ((x, self.width), (y, self.height)))
        stride = self.spec.stride
        columns = (np.arange(self.width // 4) - ((x - self.spec.offset) / stride)[:, None]) ** 2
        rows = (np.arange(self.height // 4) - ((y - self.spec.offset) / stride)[:, None]) ** 2
        heatmaps = np.exp(-(rows[:, :, None] + columns[:, None, :]) / 8)
        return (np.repeat(heatmaps[:, None], JOINTS, 1).astype(np.float32),)

    def _vectors(self, centre: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float32]:
        bins = np.arange(round(size * self.spec.simcc_split)) / self.spec.simcc_split
        vectors = np.exp(-((bins - centre[:, None]) ** 2) / 8)
        return np.repeat(vectors[:, None], JOINTS, 1).astype(np.float32)

    def close(self) -> None:
        """Nothing is held."""


def network(output: OutputSpec, width: int = WIDTH, height: int = HEIGHT) -> tuple[BlobFinder, PoseNetwork]:
    manifest = Manifest(
        name="blobs",
        task="pose",
        architecture={},
        weights="none",
        sha256="0" * 64,
        input=InputSpec(width=width, height=height),
        output=output,
        licence="none",
    )
    finder = BlobFinder(output, width, height)
    return finder, PoseNetwork(finder, manifest)


def picture_with_dot(x: float, y: float, size: tuple[int, int] = (240, 320)) -> npt.NDArray[np.uint8]:
    """A black picture with a round soft dot whose centre is at (x, y)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    dot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))
    return np.repeat(dot[..., None], 3, 2).astype(np.uint8)


CONVENTIONS = [
    OutputSpec(kind="heatmap", decode="dark", blur=3),
    OutputSpec(kind="heatmap", decode="dark", blur=3, offset=1.5),
    OutputSpec(kind="heatmap", decode="dark", blur=3, stride=(WIDTH - 1) / (WIDTH / 4 - 1), flip_shift=0),
    OutputSpec(kind="heatmap", decode="dark", blur=3, flip_shift=1),
    OutputSpec(kind="simcc"),
]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("output", CONVENTIONS, ids=["4c", "4c + 1.5", "udp", "published", "simcc"])
@settings(max_examples=15, deadline=None)
@given(x=st.floats(100, 200), y=st.floats(90, 150), dx=st.floats(-15, 15), dy=st.floats(-20, 20))
def test_a_dot_comes_back_where_it_is(output: OutputSpec, flip: bool, x: float, y: float, dx: float, dy: float) -> None:
    _, made = network(output)
    box = np.array([[x + dx - 36, y + dy - 48, x + dx + 36, y + dy + 48]], np.float32)
    (points,) = PoseEstimator(made, flip_test=flip)([picture_with_dot(x, y)], [box])
    assert points.shape == (1, JOINTS, 3)
    assert points.dtype == np.float32
    # The published shift of a whole cell leaves a quarter of one, half of which stays in the mean.
    tolerance = 0.75 if flip and output.flip_shift == 1 else 0.4
    assert np.abs(points[0, :, :2] - [x, y]).max() < tolerance
    assert (points[..., 2] > 0.7).all()


@pytest.mark.parametrize("kind", ["heatmap", "simcc"])
@pytest.mark.parametrize("flip", [False, True])
def test_joints_are_moved_by_the_manifests_shift(kind: str, flip: bool) -> None:
    """In pixels of the crop; a mirrored look moves nothing twice."""
    moves = np.linspace(-8, 8, 2 * JOINTS).reshape(JOINTS, 2)
    box = np.array([[110, 72, 182, 168]], np.float32)
    found = []
    for shift in (None, moves.tolist()):
        _, made = network(OutputSpec.model_validate({"kind": kind, "blur": 3, "shift": shift}))
        found.append(PoseEstimator(made, flip_test=flip)([picture_with_dot(150, 120)], [box])[0][0])
    crop_px = WIDTH / (72 * made.manifest.input.box_scale)
    assert np.allclose(found[1][:, :2] - found[0][:, :2], moves / crop_px, atol=0.05)
    assert np.array_equal(found[1][:, 2], found[0][:, 2])


def test_people_of_all_pictures_go_as_one_batch_and_come_back_in_order() -> None:
    finder, made = network(CONVENTIONS[0])
    dots = [(100, 100), (150, 120), (200, 90)]
    pictures = [picture_with_dot(*dot) for dot in dots]
    boxes = [
        np.array([[64 + k, 52, 136 + k, 148] for k in range(2)], np.float32),
        np.zeros((0, 4), np.float32),
        np.array([[164, 42, 236, 138]], np.float32),
    ]
    points = PoseEstimator(made)(pictures, boxes)
    assert finder.batches == [3]
    assert [each.shape for each in points] == [(2, JOINTS, 3), (0, JOINTS, 3), (1, JOINTS, 3)]
    assert np.abs(points[0][:, :, :2] - dots[0]).max() < 0.5
    assert np.abs(points[2][:, :, :2] - dots[2]).max() < 0.5


def test_nobody_asks_nothing() -> None:
    finder, made = network(CONVENTIONS[0])
    (points,) = PoseEstimator(made)([picture_with_dot(10, 10)], [np.zeros((0, 4), np.float32)])
    assert points.shape == (0, JOINTS, 3)
    assert PoseEstimator(made)([], []) == []
    assert finder.batches == []


def test_low_boxes_go_to_the_small_network() -> None:
    finder, made = network(CONVENTIONS[0])
    small_finder, small = network(CONVENTIONS[0], 48, 64)
    estimator = PoseEstimator(made, small=small, small_below_px=50)
    boxes = np.array([[130, 95, 160, 144], [100, 70, 190, 190], [128, 100, 158, 148]], np.float32)
    (points,) = estimator([picture_with_dot(145, 120)], [boxes])
    assert (finder.batches, small_finder.batches) == ([1], [2])
    assert np.abs(points[..., :2] - [145, 120]).max() < 0.5
    assert len(estimator.networks) == 2


def test_the_flip_swaps_left_and_right() -> None:
    class Sided(BlobFinder):
        def __call__(self, batch: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], ...]:
            (heatmaps,) = super().__call__(batch)
            columns = np.arange(self.width // 4)
            # Left joints (odd) are drawn to the right half of the crop as seen, right joints to the left half.
            heatmaps[:, 1::2] *= columns >= self.width // 8
            heatmaps[:, 2::2] *= columns < self.width // 8
            return (heatmaps,)

    _, made = network(OutputSpec(kind="heatmap", decode="none", offset=1.5))
    sided = PoseNetwork(Sided(made.manifest.output), made.manifest)
    box = np.array([[109, 72, 181, 168]], np.float32)
    picture = picture_with_dot(145, 120)
    (once,) = PoseEstimator(sided)([picture], [box])
    (twice,) = PoseEstimator(sided, flip_test=True)([picture], [box])
    assert (once[0, 1::2, 0] > once[0, 2::2, 0]).all()
    np.testing.assert_allclose(twice[0, :, 0], once[0, :, 0], atol=4.1)


def test_a_network_that_breaks_its_promise_is_said() -> None:
    _, made = network(OutputSpec(kind="heatmap", skeleton="limbs6"))
    with pytest.raises(ModelError, match=r"gives \(1, 17, 32, 24\), its manifest promises heatmap \(B, 6"):
        PoseEstimator(made)([picture_with_dot(10, 10)], [np.array([[0, 0, 20, 20]], np.float32)])


def test_networks_that_do_not_belong_together_are_said() -> None:
    _, made = network(CONVENTIONS[0])
    _, other = network(OutputSpec(kind="heatmap", skeleton="limbs6"))
    _, boxes = network(OutputSpec(kind="yolo"))
    with pytest.raises(ConfigError, match="both must have the same key points"):
        PoseEstimator(made, small=other)
    with pytest.raises(ConfigError, match="not key points"):
        PoseEstimator(boxes)
    _, short = network(OutputSpec(kind="heatmap", shift=((0, 0), (1, 1))))
    with pytest.raises(ModelError, match=r"output\.shift is of 2 joints, the skeleton has 17"):
        PoseEstimator(short)
