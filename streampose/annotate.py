"""Offline annotation: what `streampose annotate` makes of a list of paths, and the origin's dictionary of people.

Each video is a job of its own; pictures are gathered by their folder, since one record of a folder is what people want.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streampose.config import Config, validate
from streampose.config_file import apply_overrides
from streampose.errors import PermanentSourceError, UsageError
from streampose.sinks.paths import check_apart, fill
from streampose.sinks.pictures import picture_name
from streampose.sources.open import PICTURE_SUFFIXES, kind_of


@dataclass(frozen=True, slots=True)
class Job:
    """One input and the configuration that annotates it. `jsonl` is where its record goes, `files` are its pictures."""

    config: Config
    jsonl: Path
    pictures: bool
    files: tuple[Path, ...] = ()


def jobs_for(paths: Sequence[Path], out: Path, *, overlay: bool, settings: Sequence[str]) -> list[Job]:
    """A job for each video and for each folder of pictures; raises where a path is missing or two results collide."""
    grouped: dict[Path, list[Path]] = {}
    jobs: list[Job] = []
    taken: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise PermanentSourceError(f"{path}: no such file or folder")
        if path.is_dir():
            jobs.append(_job(_claim(path.resolve().name, path, taken), path, out, None, overlay, settings))
        elif kind_of(str(path)) == "images":
            grouped.setdefault(path.parent, []).append(path)
        else:
            jobs.append(_job(_claim(path.stem, path, taken), path, out, None, overlay, settings))
    for folder, files in grouped.items():
        stem = _claim(folder.resolve().name or "pictures", folder, taken)
        jobs.append(_job(stem, folder, out, [file.name for file in files], overlay, settings))
    if overlay:
        _check_pictures(jobs, out)
    return jobs


def _check_pictures(jobs: Sequence[Job], out: Path) -> None:
    """See that no annotated picture takes the place of another one, or of the picture that it is made of."""
    taken: dict[Path, Path] = {}
    for job in jobs:
        for file in job.files:
            target = out / picture_name(file.name)
            check_apart(target, [file])
            if target in taken:
                raise UsageError(
                    f"{file} and {taken[target]} would both become {target}; annotate them into different folders"
                )
            taken[target] = file


def camera_name(stem: str) -> str:
    """A name for the recording `stem`, of the characters that names of cameras have: accents go, letters of other
    scripts become their numbers in Unicode, so that two recordings do not get one name."""
    plain = [c for c in unicodedata.normalize("NFKD", stem) if not unicodedata.combining(c)]
    kept = (c if c.isascii() and (c.isalnum() or c in "_-.") else f"{ord(c):x}" if c.isalnum() else "_" for c in plain)
    return "".join(kept).lstrip("_-.") or "recording"


def _claim(stem: str, path: Path, taken: dict[str, Path]) -> str:
    """The name of the results of `path`: its `stem`, without braces, with which a path would be a template."""
    stem = re.sub(r"[{}]", "_", stem)
    if stem in taken:
        raise UsageError(
            f"{path} and {taken[stem]} would both become {stem}.jsonl; annotate them into different folders"
        )
    taken[stem] = path
    return stem


def _job(stem: str, path: Path, out: Path, only: Sequence[str] | None, overlay: bool, settings: Sequence[str]) -> Job:
    jsonl = out / f"{stem}.jsonl"
    pictures = path.is_dir()
    sinks: list[dict[str, Any]] = [{"jsonl": {"path": str(jsonl)}}]
    if overlay and pictures:
        sinks.append({"pictures": {"path": str(out)}})
    elif overlay:
        sinks.append({"record": {"path": str(out / f"{stem}.mp4")}})
    camera = camera_name(stem)
    data: dict[str, Any] = {
        "cameras": {camera: {"url": str(path), "only": only, "policy": "lossless"}},
        "smooth": {"offline": not pictures, "enabled": not pictures},
        "sinks": sinks,
    }
    apply_overrides(data, settings)
    names = only if only is not None else sorted(p.name for p in path.iterdir()) if pictures else ()
    files = tuple(path / name for name in dict.fromkeys(names) if Path(name).suffix.lower() in PICTURE_SUFFIXES)
    return Job(validate(data), fill(str(jsonl), camera), pictures, files)


def people_of_pictures(jsonl: Path) -> dict[str, dict[str, Any]]:
    """The origin's dictionary from a record of pictures: `{name: {"bounding_box": N×4, "key_points": N×17×3}}`.

    Boxes are xyxy pixels, key points x, y, score, both as nested lists.
    """
    found: dict[str, dict[str, Any]] = {}
    with jsonl.open() as lines:
        for line in lines:
            record = json.loads(line)
            if record["type"] == "frame":
                people = record["people"]
                found[record.get("file") or str(record["index"])] = {
                    "bounding_box": [person["box"] for person in people],
                    "key_points": [person["keypoints"] for person in people],
                }
    return found
