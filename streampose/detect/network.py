"""The detector's network: any ultralytics detection architecture that says (B, 5, anchors) or (B, N, 6) of people alone.

The hidden width of a YOLO class tower depends on the number of classes it was built for, so a published network keeps
its tower (`tower_classes`, 80 for COCO) and only the last convolution is cut to the person row.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import nn

from streampose.detect.quiet import silence_ultralytics
from streampose.errors import ModelError
from streampose.models.manifest import Manifest

HEADS = ("Detect", "v10Detect", "RTDETRDecoder")


class PeopleNetwork(nn.Module):  # type: ignore[misc, unused-ignore]
    """An ultralytics detection model, cut to people by `cut_to_person`, with one tensor as its output.

    `forward` takes (B, 3, H, W) float pictures, RGB in 0..1, sides multiples of 32, and returns what the head says:
    (B, 5, anchors), rows cx, cy, w, h, score in input pixels, many for each person; or, from networks
    that say one, (B, N, 6), columns x1, y1, x2, y2, score, class.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        head = head_of(model)
        self.transformer = type(head).__name__ == "RTDETRDecoder"
        if not self.transformer:
            head.__class__ = _decoding_in_float32(type(head))  # type: ignore[arg-type, unused-ignore]
        head.export = True
        if getattr(head, "one2one_cv2", None) is not None:
            head.end2end = True  # a head of YOLOv10 or 26 gives (B, N, 6) only when told so

    @property
    def end2end(self) -> bool:
        """Whether the output is (B, N, 6)."""
        return self.transformer or bool(getattr(head_of(self.model), "end2end", False))

    @property
    def output_kind(self) -> str:
        """The kind of its output, by its name in `registry.DETECTORS`."""
        return "yolo_end2end" if self.end2end else "yolo"

    def make_anchors_anew(self) -> None:
        """Make the anchors in every pass, from the size of the picture: a trace then serves pictures of any size.

        Only for networks that are not `end2end`: what those choose from has the number of anchors built in.
        """
        head_of(self.model).dynamic = True

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        raw = self.model(pictures)
        raw = raw[0] if isinstance(raw, tuple) else raw
        return _corners_of_queries(raw, pictures) if self.transformer else raw


@functools.cache
def _decoding_in_float32(kind: type) -> type:
    """The YOLO head `kind`, which makes boxes of what its layers say in float32, whatever these compute in.

    In bf16 ultralytics' anchors stand in steps of half a cell from the 64th on: boxes were up to 11 pixels off at 1280. A
    class, not a function put into the head, since heads are copied.
    """

    class Decoding(kind):  # type: ignore[misc, valid-type, unused-ignore]
        def _inference(self, x: dict[str, Any]) -> Any:
            if x["boxes"].dtype == torch.float32:
                return super()._inference(x)
            self.dfl.float()
            whole = {**x, "feats": [level[:, :1].float() for level in x["feats"]]}  # of these only the sizes count
            whole |= {name: x[name].float() for name in ("boxes", "scores")}
            with torch.autocast(x["boxes"].device.type, enabled=False):
                return super()._inference(whole)

    Decoding.__name__ = kind.__name__
    return Decoding


def _corners_of_queries(raw: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """RT-DETR's (B, queries, 5 or 6), boxes cx, cy, w, h as fractions of the input, then the score, as (B, queries, 6).

    In float32, whatever the network computes in: bf16 has steps of four pixels from the 512th on.
    """
    height, width = pictures.shape[2:]
    raw = raw.float()
    x, y, half_width, half_height = (
        raw[..., at] * side for at, side in enumerate((width, height, width / 2, height / 2))
    )
    score = raw[..., 4]
    corners = [x - half_width, y - half_height, x + half_width, y + half_height]
    return torch.stack([*corners, score, torch.zeros_like(score)], dim=-1)


def head_of(model: Any) -> Any:
    """The detection head, the last layer of an ultralytics model."""
    return model.model[-1]


def cut_to_person(model: Any, person: int = 0) -> None:
    """Cut the last class layers of the head to the row of class `person`, in place; what it says of people stays the same.

    An RT-DETR's encoder keeps all its classes, because they choose the queries.
    """
    head = head_of(model)
    if head.nc == 1:
        return
    if type(head).__name__ == "RTDETRDecoder":
        for level in range(len(head.dec_score_head)):
            head.dec_score_head[level] = _one_row(head.dec_score_head[level], person)
    else:
        for tower in (head.cv3, getattr(head, "one2one_cv3", None)):
            for level in tower if tower is not None else ():
                level[-1] = _one_row(level[-1], person)
        head.no = 1 + 4 * head.reg_max
    head.nc = model.nc = 1
    model.names = {0: "person"}


def _one_row(wide: Any, row: int) -> nn.Module:
    """A linear or 1x1 convolution layer that gives one of the outputs of `wide`."""
    if isinstance(wide, nn.Linear):
        cut: Any = nn.Linear(wide.in_features, 1)
    else:
        cut = nn.Conv2d(wide.in_channels, 1, wide.kernel_size)
    with torch.no_grad():
        cut.weight.copy_(wide.weight[row : row + 1])
        cut.bias.copy_(wide.bias[row : row + 1])
    return cut.to(wide.weight)


def bare_model(architecture: dict[str, Any]) -> Any:
    """The untrained one-class ultralytics model that `architecture` names: `config` (yolov8n.yaml), `tower_classes`.

    Raises ModelError where ultralytics has no such architecture.
    """
    silence_ultralytics()
    from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel

    config, classes = str(architecture.get("config", "")), int(architecture.get("tower_classes", 1))
    if architecture.get("builder") != "ultralytics" or not config.endswith(".yaml") or "/" in config:
        raise ModelError(f"detector architecture {architecture}: needs builder: ultralytics and config: NAME.yaml")
    kind = RTDETRDetectionModel if "rtdetr" in config else DetectionModel
    try:
        model = kind(config, nc=classes, verbose=False)
    except (OSError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"detector architecture {config}: ultralytics cannot build it ({error})") from error
    if type(head_of(model)).__name__ not in HEADS:
        raise ModelError(
            f"detector architecture {config}: is not a detector (its head is {type(head_of(model)).__name__})"
        )
    cut_to_person(model)
    return model


def load_weights(model: Any, path: Path) -> None:
    """Fill `model` from a safetensors file; raises ModelError, in one line, where names or shapes do not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(str(path))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such weights file") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from error
    load_tensors(model, state, path)


def load_tensors(model: Any, state: dict[str, torch.Tensor], path: Path) -> None:
    """The same with tensors that were read from `path`."""
    own = model.state_dict()
    missing, foreign = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or foreign:
        odd = (
            f"{len(missing)} tensors missing ({missing[0]} …)"
            if missing
            else f"{len(foreign)} unknown ({foreign[0]} …)"
        )
        raise ModelError(f"{path}: not the weights of this architecture: {odd}")
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise ModelError(f"{path}: {name} is {tuple(tensor.shape)}, the architecture has {tuple(own[name].shape)}")
    model.load_state_dict(state)


def build(manifest: Manifest, weights: Path) -> PeopleNetwork:
    """The network a manifest describes, with its weights, in eval mode and float32.

    Run it once on the shape it is to serve before it is traced or exported: its anchors are made on first use. Raises
    ModelError where the weights do not fit, or are a pickle that nobody vouches for.
    """
    if manifest.architecture.get("builder") == "ultralytics-pt":
        from streampose.detect.checkpoint import load_checkpoint

        return load_checkpoint(weights, trust=bool(manifest.architecture.get("trust", False)))
    model = bare_model(manifest.architecture)
    load_weights(model, weights)
    return PeopleNetwork(model.float()).eval()  # type: ignore[no-any-return, unused-ignore]
