"""The shipped pose networks in bf16 place real people's joints where they do in fp32, to half a pixel of their input."""

from pathlib import Path

import av
import numpy as np
import pytest

from streampose.evaluate.mot import read_truth
from streampose.models.load import load_pose

ROOT = Path(__file__).parents[2]
FRAMES = (10, 60, 120, 180)


@pytest.mark.parametrize("name", ["litehrnet18_256x192", "litehrnet18_128x96"])
@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_bf16_moves_key_points_by_less_than_half_a_pixel(runtime: str, name: str) -> None:
    with av.open(str(ROOT / "samples/cctv.mp4")) as clip:
        pictures = [f.to_ndarray(format="bgr24") for i, f in enumerate(clip.decode(video=0)) if i in FRAMES]
    truth = read_truth(ROOT / "tests/data/cctv_gt.txt")
    boxes = [truth[frame + 1].boxes for frame in FRAMES]
    said = {}
    for precision in ("fp32", "bf16"):
        pose = load_pose(
            ROOT / "weights" / f"{name}.yaml", runtime=runtime, precision=precision, device="cpu", threads=1
        )
        said[precision] = np.concatenate(pose(pictures, boxes))
        got = pose.networks[0].runtime.precision
        pose.close()
    spec = pose.manifest.input
    sides = np.concatenate(boxes)[:, 2:] - np.concatenate(boxes)[:, :2]
    seen_px = spec.box_scale * np.maximum(sides[:, 1], sides[:, 0] * spec.height / spec.width)
    moved = np.linalg.norm(said["bf16"][..., :2] - said["fp32"][..., :2], axis=-1) * (spec.height / seen_px)[:, None]
    assert len(moved) > 20
    assert np.median(moved) < 0.5
    assert moved.max() > 0 or got == "fp32"  # a CPU without such instructions may run it so, and it says that
