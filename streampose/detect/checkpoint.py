"""Ultralytics' own `.pt` files, opened with care: a pickle can run anything, so somebody must vouch for it.

A file is opened where the catalogue has its whole sha256, verified against the publisher's release, or where the user says
`trust: true`. YOLO v5u, v8, v9, v10, 11, 12, 26 and RT-DETR detectors are taken, with or without end-to-end heads.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from streampose.detect.names import is_person
from streampose.detect.network import HEADS, PeopleNetwork, cut_to_person, head_of
from streampose.detect.quiet import silence_ultralytics
from streampose.errors import ModelError, words_of
from streampose.models.catalogue import catalogue
from streampose.models.file_kind import require_pytorch
from streampose.models.manifest import InputSpec, Manifest, OutputSpec, sha256_of


def load_checkpoint(path: str | Path, *, trust: bool = False) -> PeopleNetwork:
    """The network of an ultralytics `.pt`, cut to people, in eval mode and float32.

    Raises ModelError, in one line, where the file is unknown and not trusted, is none of ultralytics', is no detector,
    or knows no people.
    """
    path = Path(path)
    model = _unpickle(path, trust)
    head = type(head_of(model)).__name__
    if head not in HEADS:
        raise ModelError(f"{path}: is an ultralytics {head} model; a detector is needed (yolov8n.pt, yolo26n.pt …)")
    names = {int(index): str(name) for index, name in dict(getattr(model, "names", None) or {}).items()}
    people = [index for index, name in names.items() if is_person(name)]
    if not people and len(names) > 1:
        raise ModelError(
            f"{path}: knows {len(names)} classes ({', '.join(list(names.values())[:3])} …), none is person"
        )
    cut_to_person(model, people[0] if people else 0)
    return PeopleNetwork(model.float()).eval()  # type: ignore[no-any-return, unused-ignore]


def describe_checkpoint(path: str | Path, *, trust: bool = False, size: int = 640) -> Manifest:
    """A manifest for an ultralytics `.pt` (it has none of its own), which `network.build` understands.

    `size` is the long side, in pixels, at which it is to run. Raises as `load_checkpoint` does.
    """
    path = Path(path)
    network = load_checkpoint(path, trust=trust)
    digest = sha256_of(path)
    return Manifest(
        name=path.stem,
        task="detect",
        architecture={"builder": "ultralytics-pt", "trust": trust},
        weights=path.name,
        sha256=digest,
        input=InputSpec(width=size, height=size),
        output=OutputSpec(kind=network.output_kind),
        licence="AGPL-3.0",
        origin=_published(digest) or "an ultralytics checkpoint that the user trusts",
    )


def _published(digest: str) -> str | None:
    """The address of the published detector whose whole sha256 is `digest`; None where we know none."""
    return next(
        (known.url for known in catalogue().values() if known.task == "detect" and known.sha256 == digest), None
    )


def _unpickle(path: Path, trust: bool) -> Any:
    """The model inside, of whatever kind; nothing is unpickled before the file is vouched for."""
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    require_pytorch(path)
    digest = sha256_of(path)
    if not trust and _published(digest) is None:
        raise ModelError(
            f"{path}: is a pickle, which can run any code when it is opened, and its sha256 {digest[:12]}… is not one "
            "we know; if you trust where it comes from, say so: detect.trust=true, or --trust"
        )
    silence_ultralytics()
    import ultralytics.nn.tasks

    try:
        with ultralytics.nn.tasks.temporary_modules(
            attributes={  # YOLOv10's names from before it joined the others
                "ultralytics.nn.tasks.YOLOv10DetectionModel": "ultralytics.nn.tasks.DetectionModel",
                "ultralytics.utils.loss.v10DetectLoss": "ultralytics.utils.loss.E2EDetectLoss",
            }
        ):
            content = torch.load(path, map_location="cpu", weights_only=False)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ModelError(f"{path}: not a PyTorch checkpoint ({words_of(error, 100)})") from error
    except (ImportError, AttributeError) as error:
        raise ModelError(f"{path}: was saved with code that is not here ({error})") from error
    model = (content.get("ema") or content.get("model")) if isinstance(content, dict) else content
    if not type(model).__module__.startswith("ultralytics."):
        raise ModelError(f"{path}: holds no ultralytics model (a {type(model).__name__}); give an ultralytics .pt")
    return model
