"""Generated COCO-format sets: pictures of stick figures whose six joints have colours of their own."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

COLOURS = [(60, 60, 255), (60, 255, 60), (255, 60, 60), (255, 255, 60), (255, 60, 255), (60, 255, 255)]


def stick_set(folder: Path, count: int = 12, seed: int = 0) -> dict[str, Any]:
    """Write `count` pictures with one figure each, and annotations.json; gives its content."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        picture = rng.integers(0, 60, (120, 100, 3)).astype(np.uint8)
        x, y, side = rng.uniform(35, 65), rng.uniform(50, 70), rng.uniform(0.8, 1.1)
        spread = rng.uniform(0.6, 1.0, 5) * side
        points = np.array([
            [x, y - 40 * side], [x + 25 * spread[0], y - 20 * spread[1]], [x - 25 * spread[2], y - 18 * spread[3]],
            [x, y], [x + 14 * spread[4], y + 40 * side], [x - 14 * spread[0], y + 40 * side],
        ])  # fmt: skip
        for joint in range(6):
            start, end = points[3].round().astype(int).tolist(), points[joint].round().astype(int).tolist()
            cv2.line(picture, start, end, (120, 120, 120), 2)
        for point, colour in zip(points, COLOURS, strict=True):
            cv2.circle(picture, point.round().astype(int).tolist(), 4, colour, -1)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        low, high = points.min(0) - 4, points.max(0) + 4
        images.append({"id": number, "file_name": f"{number}.png", "width": 100, "height": 120})
        keypoints = np.concatenate((points, np.full((6, 1), 2.0)), 1).round(2)
        annotations.append({
            "id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "num_keypoints": 6,
            "bbox": [*low.tolist(), *(high - low).tolist()], "area": float(np.prod(high - low)),
            "keypoints": keypoints.reshape(-1).tolist(),
        })  # fmt: skip
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    write_annotations(folder, content)
    return content


def write_annotations(folder: Path, content: dict[str, Any]) -> None:
    """(Re)write a set's annotations.json."""
    (folder / "annotations.json").write_text(json.dumps(content))
