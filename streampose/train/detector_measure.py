"""A detector under training looked at: what it finds in pictures, and how good that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from streampose.detect import letterbox
from streampose.detect.base import BoxOutput
from streampose.detect.network import PeopleNetwork
from streampose.evaluate.boxes import BoxScore, BoxTruth, box_ap
from streampose.registry import DETECTORS, load
from streampose.train.detector_data import BoxPicture

FloatArray = npt.NDArray[np.float32]


def find_people(
    network: PeopleNetwork, pictures: Iterable[BoxPicture], size: int, threshold: float, bf16: bool, device: str = "cpu"
) -> Iterable[tuple[FloatArray, FloatArray]]:
    """Boxes (N, 4) xyxy in picture pixels and scores (N,), a picture at a time, at a long side of `size`."""
    network = network.eval()
    output: BoxOutput = load(DETECTORS, network.output_kind)
    kind = torch.device(device).type
    for picture in pictures:
        lay = letterbox.plan(picture.image.width, picture.image.height, size)
        image = np.ascontiguousarray(letterbox.apply(picture.decode(), lay)[..., ::-1])
        batch = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float().div(255)
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=bf16):
            raw = network(batch.contiguous(memory_format=torch.channels_last))[0].float().cpu().numpy()
        boxes, scores = output.decode(raw, threshold)
        yield lay.to_picture(boxes), scores


def measure(
    network: PeopleNetwork, pictures: Sequence[BoxPicture], size: int, bf16: bool, device: str = "cpu"
) -> dict[str, BoxScore]:
    """Average precision on labelled pictures, by height of the people; regions to ignore count neither way."""
    truths = [
        BoxTruth(
            np.concatenate([p.boxes, p.ignored]), np.arange(len(p.boxes) + len(p.ignored)) >= len(p.boxes)
        )
        for p in pictures
    ]  # fmt: skip
    return box_ap(truths, list(find_people(network, pictures, size, 0.001, bf16, device)))
