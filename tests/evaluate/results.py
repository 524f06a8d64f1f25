"""Small results made for the tests: whole records of one camera with one joint, as the jsonl sink writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEADER = {"type": "header", "schema": 1, "camera": "gate", "keypoints": ["nose"]}


def found(who: int, state: str, box: Sequence[float]) -> dict[str, Any]:
    """One person of a frame; `box` is xyxy px."""
    points = {"keypoints": [[1, 2, 0.9]], "raw": None, "std": [1.0], "joint_state": ["measured"]}
    return {"id": who, "state": state, "score": 0.9, "box": list(box), **points}


def seen(index: int, people: list[dict[str, Any]]) -> dict[str, Any]:
    size = {"width": 640, "height": 480}
    return {"type": "frame", "camera": "gate", "index": index, "time": index / 10, **size, "people": people}


def write_lines(path: Path, lines: Sequence[Any]) -> Path:
    """A result of `lines` between header and footer."""
    path.write_text("".join(json.dumps(line) + "\n" for line in (HEADER, *lines, {"type": "footer"})))
    return path
