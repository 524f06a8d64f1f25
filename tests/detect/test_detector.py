"""The detector adapter: shapes grouped, boxes back in picture pixels, bad settings refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from streampose.detect.detector import KEPT_SHAPES, Detector
from streampose.errors import ConfigError, ModelError
from streampose.models.manifest import InputSpec, Manifest, OutputSpec


class BrightThings:
    """A runtime whose network finds the one white rectangle of each picture; remembers its batches."""

    name, device, precision = "test", "cpu", "f32"
    batch_sizes: Sequence[int] = ()

    def __init__(self, log: list[tuple[int, ...]], kind: str) -> None:
        self.log, self.kind, self.closed = log, kind, False

    def __call__(self, batch: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        self.log.append(batch.shape)
        rows = []
        for picture in batch:
            ys, xs = np.nonzero((picture > 200).all(axis=2))
            if not len(xs):
                rows.append((0.0, 0, 0, 0, 0))
                continue
            x1, y1, x2, y2 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
            if self.kind == "yolo":
                rows.append(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.9))
            else:
                rows.append((x1, y1, x2, y2, 0.9))
        raw = np.array(rows, np.float32)
        if self.kind == "yolo":
            return (np.repeat(raw[:, :, None], 8, axis=2),)  # as each thing has several anchors
        return (np.concatenate([raw, np.zeros((len(raw), 1), np.float32)], axis=1)[:, None],)

    def close(self) -> None:
        self.closed = True


def manifest(kind: str = "yolo") -> Manifest:
    return Manifest(
        name="test", task="detect", architecture={}, weights="w", sha256="0" * 64, input=InputSpec(width=320, height=320),
        output=OutputSpec(kind=kind), licence="none",  # type: ignore[arg-type]
    )  # fmt: skip


def picture(width: int, height: int, box: tuple[int, int, int, int] | None) -> npt.NDArray[np.uint8]:
    image = np.full((height, width, 3), 40, np.uint8)
    if box:
        image[box[1] : box[3] + 1, box[0] : box[2] + 1] = 255
    return image


@pytest.mark.parametrize("kind", ["yolo", "yolo_end2end"])
def test_boxes_come_back_in_pixels_of_each_picture(kind: str) -> None:
    log: list[tuple[int, ...]] = []
    detector = Detector(lambda width, height: BrightThings(log, kind), manifest(kind))
    boxes = [(40, 30, 99, 149), (600, 100, 759, 399), None, (10, 20, 29, 59)]
    images = [
        picture(640, 480, boxes[0]),
        picture(1280, 720, boxes[1]),
        picture(640, 480, None),
        picture(160, 120, boxes[3]),
    ]
    found = detector(images)
    assert len(found) == 4
    for (got, scores), box, image in zip(found, boxes, images, strict=True):
        assert got.dtype == scores.dtype == np.float32
        if box is None:
            assert got.shape == (0, 4)
            continue
        edges = np.array(box, np.float32) + [-0.5, -0.5, 0.5, 0.5]
        assert np.abs(got - edges).max() <= 1.01 * max(image.shape) / 320
        assert scores == pytest.approx([0.9])
    assert sorted(log) == [(1, 192, 320, 3), (3, 256, 320, 3)]  # one batch a shape, whatever the cameras' sizes


def test_a_class_of_people_that_the_network_has_not_is_said() -> None:
    spec = manifest().model_copy(update={"output": OutputSpec(kind="yolo", person=1)})
    detector = Detector(lambda width, height: BrightThings([], "yolo"), spec)
    with pytest.raises(ModelError, match=r"output\.person of its manifest is 1, it has 1 classes"):
        detector([picture(320, 320, None)])


def test_each_shape_is_compiled_once_and_freed() -> None:
    made: list[tuple[int, int]] = []
    runtimes: list[BrightThings] = []

    def runtime_for(width: int, height: int) -> BrightThings:
        made.append((width, height))
        runtimes.append(BrightThings([], "yolo"))
        return runtimes[-1]

    detector = Detector(runtime_for, manifest(), size=640)
    assert detector.warm_up(768, 576) is runtimes[0]
    for _ in range(3):
        detector([picture(768, 576, None), picture(1920, 1080, None)])
    assert made == [(640, 480), (640, 384)]
    assert detector([]) == []
    detector.close()
    assert all(runtime.closed for runtime in runtimes)


def test_of_many_shapes_those_used_last_stay_open() -> None:
    """A folder of mixed pictures met up to 79 at 1280 pixels, some 64 MB each, and kept all."""
    runtimes: dict[tuple[int, int], list[BrightThings]] = defaultdict(list)

    def runtime_for(width: int, height: int) -> BrightThings:
        runtimes[width, height].append(BrightThings([], "yolo"))
        return runtimes[width, height][-1]

    detector = Detector(runtime_for, manifest(), size=1280)
    heights = range(32, 1281, 32)
    box = (300, 8, 339, 23)
    for height in heights:
        found = detector([picture(1280, height, box), picture(1280, 32, box)])  # that of 32 rows comes again and again
        assert all(len(boxes) == 1 for boxes, _ in found)
    kept = [shape for shape, made in runtimes.items() if not made[-1].closed]
    assert kept == [(1280, 32), *((1280, height) for height in heights[-KEPT_SHAPES + 1 :])]
    assert {len(made) for made in runtimes.values()} == {1}
    assert (detector.is_warm(1280, 32), detector.is_warm(1280, 64)) == (True, False)
    detector([picture(1280, 64, None)])
    assert len(runtimes[1280, 64]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 20}, "detect.size: 20"),
        ({"threshold": 1.5}, "detect.threshold: 1.5"),
        ({"threshold": 0.0}, "detect.threshold"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Detector(lambda width, height: BrightThings([], "yolo"), manifest(), **change)


def test_a_pose_network_is_no_detector() -> None:
    with pytest.raises(ConfigError, match="gives heatmap, not boxes"):
        Detector(lambda width, height: BrightThings([], "yolo"), manifest("heatmap"))
