"""The detector's teacher: its answers are of the same anchors and places, and the lesson pulls towards them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from streampose.detect.network import PeopleNetwork, bare_model
from streampose.errors import ModelError
from streampose.train.detector_loss import DetectorLoss, floats
from streampose.train.detector_teacher import Teacher

STRIDES = (8, 16, 32)
WIDTH, HEIGHT = 160, 96


class SeesLight(nn.Module):
    """Answers at each anchor with the box of all that is lit, and is as sure as the anchor's cell is bright."""

    end2end = False

    def forward(self, view: Tensor) -> Tensor:
        answers = []
        for one in view.mean(1):
            ys, xs = torch.nonzero(one > 0.5, as_tuple=True)
            x1, x2, y1, y2 = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
            box = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]).float()
            cells = torch.cat([nn.functional.avg_pool2d(one[None], stride).flatten() for stride in STRIDES])
            answers.append(torch.cat([box[:, None].expand(-1, len(cells)), cells[None]]))
        return torch.stack(answers)


@pytest.mark.parametrize("box", [(16, 24, 40, 80), (100, 8, 152, 20), (2, 2, 158, 94)])
def test_all_three_answers_are_of_the_same_places(box: tuple[int, int, int, int]) -> None:
    """So their mean is what each of them says, in pixels of the pupil's view."""
    x1, y1, x2, y2 = box
    view = torch.full((1, 3, HEIGHT, WIDTH), 0.1)
    view[:, :, y1:y2, x1:x2] = 0.9
    boxes, sure = Teacher(SeesLight(), STRIDES)(nn.functional.interpolate(view, scale_factor=2), False)  # type: ignore[arg-type]
    alone = SeesLight()(view)
    assert boxes.shape == (1, alone.shape[2], 4)
    torch.testing.assert_close(boxes, torch.tensor(box).float().expand_as(boxes))
    torch.testing.assert_close(sure, alone[:, 4], atol=1e-5, rtol=0)


def test_other_networks_cannot_teach() -> None:
    network = SeesLight()
    network.end2end = True
    for taught, strides in ((network, STRIDES), (SeesLight(), (8, 16, 64))):
        with pytest.raises(ModelError, match="teacher_share: a YOLO with one box an anchor"):
            Teacher(taught, strides)  # type: ignore[arg-type]


def outputs_of(network: PeopleNetwork, pictures: Tensor) -> Any:
    return floats(network.train().model(pictures))


def test_the_lesson_pulls_towards_the_teacher() -> None:
    torch.manual_seed(1)
    network = PeopleNetwork(bare_model({"builder": "ultralytics", "config": "yolov8n.yaml"}).float())
    loss = DetectorLoss(network.model)
    pictures = torch.rand(2, 3, HEIGHT, WIDTH)
    teacher = Teacher(network, loss.strides)
    boxes, _ = teacher(nn.functional.interpolate(pictures, scale_factor=2), False)
    sure = torch.from_numpy(np.random.default_rng(0).uniform(0, 0.8, boxes.shape[:2]).astype(np.float32))
    network.requires_grad_(True)
    optimiser = torch.optim.Adam((p for n, p in network.named_parameters() if ".dfl." not in n), lr=1e-3)
    lessons = []
    for _ in range(8):
        lesson = loss.lesson(outputs_of(network, pictures), boxes, sure)
        optimiser.zero_grad()
        lesson.backward()
        optimiser.step()
        lessons.append(lesson.item())
    assert lessons[-1] < 0.9 * lessons[0]
    outputs = outputs_of(network, pictures)
    assert loss.lesson(outputs, boxes + 8, sure) > loss.lesson(outputs, boxes, sure)
