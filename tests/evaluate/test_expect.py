"""The self-check of published figures, by the shipped network on the bundled clip.

The labels are what the network itself says in torch, on boxes drawn by hand; measured by another runtime, all the way
through a set on disk, crops, decoding and COCO's protocol, it must find itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import pytest

from streampose.errors import StreamposeError
from streampose.evaluate.expect import check_expected
from streampose.evaluate.mot import read_truth
from streampose.models.load import DEFAULT_POSE, load_pose
from tests.evaluate.conftest import Command

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("measured", "expected", "tolerance", "holds"),
    [(0.744, 74.4, 0.0, True), (0.7469, 74.4, 0.3, True), (0.7472, 74.4, 0.3, False), (float("nan"), 0.0, 99.0, False)],
)
def test_a_figure_holds_within_its_tolerance(measured: float, expected: float, tolerance: float, holds: bool) -> None:
    if holds:
        assert check_expected("AP", measured, expected, tolerance).endswith(": holds")
    else:
        with pytest.raises(StreamposeError, match="off by") as caught:
            check_expected("AP", measured, expected, tolerance)
        assert caught.value.exit_code == 1


@pytest.fixture(scope="module")
def own_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of two frames of the bundled clip, every hand-drawn box with the shipped network's own key points."""
    folder = tmp_path_factory.mktemp("own")
    truth = read_truth(ROOT / "tests/data/cctv_gt.txt")
    estimator = load_pose(ROOT / "weights" / f"{DEFAULT_POSE}.yaml", runtime="torch", precision="fp32", threads=1)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with av.open(str(ROOT / "samples/cctv.mp4")) as clip:
        for index, frame in enumerate(clip.decode(video=0)):
            if index not in (0, 40):
                continue
            picture = frame.to_ndarray(format="bgr24")
            cv2.imwrite(str(folder / f"{index}.png"), picture)
            images.append({"id": index, "file_name": f"{index}.png", "width": frame.width, "height": frame.height})
            boxes = truth[index + 1].boxes
            for box, points in zip(boxes, estimator([picture], [boxes])[0], strict=True):
                points[:, 2] = 2
                x1, y1, x2, y2 = (float(value) for value in box)
                annotations.append({
                    "id": len(annotations) + 1, "image_id": index, "category_id": 1, "iscrowd": 0,
                    "bbox": [x1 + 0.5, y1 + 0.5, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1) / 2,
                    "num_keypoints": len(points), "keypoints": points.reshape(-1).tolist(),
                })  # fmt: skip
            if len(images) == 2:
                break
    estimator.close()
    categories = [{"id": 1, "name": "person"}]
    (folder / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return folder


def label_every_other_person_elsewhere(folder: Path) -> None:
    """Label every other person a whole box away from where they are."""
    content = json.loads((folder / "annotations.json").read_text())
    for annotation in content["annotations"][::2]:
        width = annotation["bbox"][2]
        annotation["keypoints"][::3] = [x + width for x in annotation["keypoints"][::3]]
    (folder / "annotations.json").write_text(json.dumps(content))


def test_the_shipped_network_is_held_to_a_figure(command: Command, own_labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    asked: list[object] = ["eval", "--data", own_labels, "--runtime", "openvino", "--precision", "fp32"]
    code, told, said = command(*asked, "--expect", "100", "--tolerance", "0.1", "--json", out)
    assert code == 0, said
    assert told.splitlines()[-1] == "key-point AP 100.00, expected 100 ± 0.1: holds"
    people = json.loads(out.read_text())["people"]
    assert people == 9

    label_every_other_person_elsewhere(own_labels)
    code, _, said = command(*asked, "--expect", "100", "--tolerance", "10", "--json", out)
    assert code == 1
    figures = json.loads(out.read_text())
    assert 0.2 < figures["keypoints"]["AP"] < 0.7
    assert figures["people"] == people
    wanted = f"streampose: key-point AP {100 * figures['keypoints']['AP']:.2f}, expected 100 ± 10: off by -"
    assert said.splitlines()[-1].startswith(wanted)
