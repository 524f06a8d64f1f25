"""The shipped pair of pose networks on a real frame made small: who is low goes to the small one, and it sees the same."""

from pathlib import Path

import av
import cv2
import numpy as np

from streampose.evaluate.mot import read_truth
from streampose.models.load import load_pose

ROOT = Path(__file__).parents[2]
SHRUNK = 0.4


def test_the_small_network_says_of_far_people_what_the_large_one_says_of_near_ones() -> None:
    with av.open(str(ROOT / "samples/cctv.mp4")) as clip:
        picture = next(f for i, f in enumerate(clip.decode(video=0)) if i == 60).to_ndarray(format="bgr24")
    boxes = read_truth(ROOT / "tests/data/cctv_gt.txt")[61].boxes
    far = cv2.resize(picture, None, fx=SHRUNK, fy=SHRUNK, interpolation=cv2.INTER_AREA)
    far_boxes = ((boxes + 0.5) * SHRUNK - 0.5).astype(np.float32)
    heights = far_boxes[:, 3] - far_boxes[:, 1]
    assert (heights < 34).sum() >= 3
    assert (heights > 34).sum() >= 2

    large, small = (
        load_pose(ROOT / "weights" / f"litehrnet18_{size}.yaml", runtime="torch", precision="fp32", threads=1)
        for size in ("256x192", "128x96")
    )
    (near,) = large([picture], [boxes])
    (seen,) = small([far], [far_boxes])
    away = (
        np.linalg.norm((seen[..., :2] + 0.5) / SHRUNK - 0.5 - near[..., :2], axis=-1)
        / (boxes[:, 3] - boxes[:, 1])[:, None]
    )
    assert np.median(away[near[..., 2] > 0.5]) < 0.03, "of a person's height"

    both = load_pose(
        ROOT / "weights" / "litehrnet18_256x192.yaml",
        runtime="torch",
        precision="fp32",
        threads=1,
        small=ROOT / "weights" / "litehrnet18_128x96.yaml",
    )
    (shared,) = both([far], [far_boxes])
    (by_large,) = large([far], [far_boxes])
    low = heights < 34
    np.testing.assert_allclose(shared[low], seen[low], atol=0.01)
    np.testing.assert_allclose(shared[~low], by_large[~low], atol=0.01)
