"""COCO key-point results: one JSON list, an entry for each person and picture.

Format: https://cocodataset.org/#format-results ("Keypoint Detection"). Image ids are integers and scores lie in 0..1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from streampose.errors import DataError, words_of
from streampose.export.fields import Record
from streampose.export.output import write_text
from streampose.export.reader import ResultReader

PERSON_CATEGORY = 1


def export_coco(reader: ResultReader, out: Path, image_ids: Mapping[str, int] | None = None) -> Path:
    """Write the people of every frame to `out`; gives the file written.

    The image id is that of the picture's name in `image_ids` where given, without folders where only one is called so; else,
    for pictures whose names are all distinct numbers (`000000000139.jpg`), that number; else the frame's index. Raises
    DataError where a picture has no id, or may have several.
    """
    naming = image_ids if image_ids is not None else numeric_names(reader)
    folded: dict[str, list[str]] = {}  # those of the annotation file by their names without folders
    for name in image_ids or {}:
        folded.setdefault(_base(name), []).append(name)

    def entries() -> Iterator[str]:
        separator = "[\n"
        for frame in reader.frames():
            image_id = _image_id(reader, frame, naming, folded)
            for person in frame["people"]:
                yield separator + json.dumps(coco_entry(person, image_id), separators=(",", ":"))
                separator = ",\n"
        yield "\n]\n" if separator != "[\n" else "[]\n"

    return write_text(out, entries())


def coco_entry(person: Record, image_id: int) -> dict[str, Any]:
    """One entry of the list; the box as x, y, width, height, and from the edge of the first pixel, as COCO's are."""
    x1, y1, x2, y2 = person["box"]
    return {
        "image_id": image_id,
        "category_id": PERSON_CATEGORY,
        "keypoints": [round(value, 3) for point in person["keypoints"] for value in point],
        "score": person["score"],
        "bbox": [round(x1 + 0.5, 2), round(y1 + 0.5, 2), round(x2 - x1, 2), round(y2 - y1, 2)],
    }


def read_image_ids(path: Path) -> dict[str, int]:
    """File name -> id from a COCO annotation file (its `images` list)."""
    try:
        images = json.loads(path.read_text(encoding="utf-8-sig"))["images"]
        return {str(image["file_name"]): int(image["id"]) for image in images}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({words_of(error)}); name a COCO annotation file") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a COCO annotation file (no images with file_name and id)") from error


def numeric_names(reader: ResultReader) -> dict[str, int] | None:
    """File name -> number where all pictures are named by distinct numbers, else None."""
    found: dict[str, int] = {}
    for frame in reader.frames():
        file = frame.get("file")
        stem = Path(file).stem if file else ""
        if not (stem.isascii() and stem.isdigit()):
            return None
        found[str(file)] = int(stem)
    return found if found and len(set(found.values())) == len(found) else None


def _base(name: str) -> str:
    """A picture's name without its folders, also those of Windows."""
    return name.replace("\\", "/").rpartition("/")[2]


def _image_id(
    reader: ResultReader, frame: Record, naming: Mapping[str, int] | None, folded: Mapping[str, list[str]]
) -> int:
    if naming is None:
        return int(frame["index"])
    if frame.get("file") is None:
        raise DataError(
            f"{reader.path}: frame {frame['index']} has no file name, as those of a recording; leave --images away"
        )
    file = str(frame["file"])
    for name in (file, Path(file).name):
        if name in naming:
            return naming[name]
    alike = folded.get(_base(file), [])
    if len(alike) == 1:
        return naming[alike[0]]
    if alike:
        raise DataError(
            f"{reader.path}: {file} may be {', '.join(alike[:3])} of the annotation file; pictures that share a name need "
            "their folders in the result, too: annotate the folder that these paths begin in"
        )
    raise DataError(f"{reader.path}: {file} has no id among the {len(naming)} pictures of the annotation file")
