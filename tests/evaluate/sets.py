"""Small labelled sets made for the tests: pictures of bright blocks, people of known boxes and joints."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

LAYOUT = np.linspace(0.1, 0.9, 17)
"""Where the 17 joints of a made person lie between the corners of the box, as a fraction."""


def person(number: int, image: int, box: tuple[float, float, float, float], labelled: int = 17) -> dict[str, Any]:
    """An annotation with box xywh; the first `labelled` joints are seen."""
    x, y, width, height = box
    joints = [[x + f * width - 0.5, y + f * height - 0.5, 2.0 if k < labelled else 0.0] for k, f in enumerate(LAYOUT)]
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [x, y, width, height],
        "area": 0.5 * width * height,
        "num_keypoints": labelled,
        "keypoints": [float(v) for joint in joints for v in joint],
    }


def picture(boxes: list[list[float]], width: int = 320, height: int = 240) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Black, with a white block in each box xywh."""
    image = np.zeros((height, width, 3), np.uint8)
    for x, y, w, h in boxes:
        image[round(y) : round(y + h), round(x) : round(x + w)] = 255
    return image


def labels(pictures: int = 6, people: int = 2, seed: int = 0) -> dict[str, Any]:
    """A set of `pictures` with `people` each, side by side; every third person has few labels."""
    rng = np.random.default_rng(seed)
    images = [
        {"id": 10 + i, "file_name": f"{i}.png", "width": 320, "height": 240, "split": "val" if i % 2 else "train"}
        for i in range(pictures)
    ]
    annotations = []
    for image in images:
        for place in range(people):
            size = rng.uniform(20, 120)
            box = (20.0 + 150 * place, 20.0 + float(rng.integers(0, 60)), float(round(size * 0.6)), float(round(size)))
            number = len(annotations) + 1
            annotations.append(
                person(number, int(image["id"]), box, 0 if number % 7 == 0 else 5 if number % 3 == 0 else 17)
            )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def write_folder(folder: Path, truth: dict[str, Any]) -> Path:
    """`annotations.json` and the pictures; the path of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "annotations.json").write_text(json.dumps(truth))
    for image in truth["images"]:
        boxes = [entry["bbox"] for entry in truth["annotations"] if entry["image_id"] == image["id"]]
        cv2.imwrite(str(folder / image["file_name"]), picture(boxes, image["width"], image["height"]))
    return folder


def zip_folder(folder: Path, path: Path) -> Path:
    """The folder's files in a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return path
