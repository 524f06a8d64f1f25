"""Offline annotation: what `streampose annotate` makes of a list of paths, and the origin's dictionary of people.

Each video is a job of its own; pictures are gathered by their folder, since one record of a folder is what people want.
"""

from __future__ import annotations

import json
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from streampose.build_sinks import outputs
from streampose.config import Config, validate
from streampose.config_file import apply_overrides, expand
from streampose.errors import PermanentSourceError, UsageError
from streampose.redact import redact_url
from streampose.sinks.paths import fill
from streampose.sources.base import check_there
from streampose.sources.images import pictures_in
from streampose.sources.open import address_of, source_kind
from streampose.sources.suffixes import UNREAD_SUFFIXES, VIDEO_SUFFIXES

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """One input and the configuration that annotates it. `jsonl` is where its record goes, None for nowhere; `folder` is
    that of its pictures, None for a recording, and `files` are the pictures."""

    config: Config
    jsonl: Path | None
    folder: Path | None
    files: tuple[Path, ...] = ()


def recorded(text: str | Path) -> Path:
    """The file or folder that `text` names. Raises PermanentSourceError where there is none, UsageError for a stream, a
    webcam or a test pattern: those go on, and what is annotated has an end."""
    path = Path(address_of(str(text)))
    if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK):
        raise PermanentSourceError(f"{path} may not be read; check its permissions", kind="auth")
    if not os.path.exists(path) and not source_kind(str(text)).on_disk:
        raise UsageError(
            f"{redact_url(str(text))}: no file or folder; annotate takes recordings and pictures, "
            "`streampose run` with a configuration watches streams, webcams and test patterns"
        )
    check_there(path)
    return path


def check_printable(paths: Sequence[Path]) -> None:
    """Say which of `paths` hold nobody who could be printed; raises UsageError where none does."""
    if videos := [path for path in paths if not source_kind(str(path)).stills]:
        said = f"--print: {_first_of(videos)}: no picture; the people of a recording are in its JSONL"
        if len(videos) == len(paths):
            raise UsageError(said)
        log.warning("%s", said)


def jobs_for(paths: Sequence[Path], out: Path, *, overlay: bool, settings: Sequence[str]) -> list[Job]:
    """A job for each video and for each folder of pictures, under a camera's name of its own; raises UsageError where two
    results collide. Says what of a folder is left out."""
    grouped: dict[Path, list[Path]] = {}
    jobs: list[Job] = []
    taken: dict[str, Path] = {}
    cameras: set[str] = set()

    def add(stem: str, path: Path, only: Sequence[str] | None = None) -> None:
        stem = _claim(stem, path, taken)
        name = camera_name(stem)
        camera = next(n for n in (name, *(f"{name}-{i + 2}" for i in range(len(cameras)))) if n not in cameras)
        cameras.add(camera)
        jobs.append(_job(stem, camera, path, out, only, overlay, settings))

    for path in paths:
        if path.is_dir():
            _say_left_out(path, out)
            add(path.resolve().name, path)
        elif source_kind(str(path)).stills:
            grouped.setdefault(path.parent, []).append(path)
        else:
            add(path.stem, path)
    for folder, files in grouped.items():
        add(folder.resolve().name or "pictures", folder, [file.name for file in files])
    _check_apart(jobs)
    return jobs


def _say_left_out(folder: Path, out: Path) -> None:
    """What a folder holds beside its pictures that may have been meant, hidden files and the folder of the results aside."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if videos := [entry for entry in entries if entry.suffix.lower() in VIDEO_SUFFIXES]:
        log.warning(
            "%s: of a folder pictures are taken; %s left out, name videos one by one", folder, _first_of(videos)
        )
    if unread := [entry for entry in entries if entry.suffix.lower() in UNREAD_SUFFIXES]:
        log.warning("%s: %s left out, of a format that is not read; convert to JPEG", folder, _first_of(unread))
    inner = [entry for entry in entries if os.path.isdir(entry) and os.path.realpath(entry) != os.path.realpath(out)]
    if inner := [entry for entry in inner if _holds_pictures(entry)]:
        log.warning("%s: pictures in folders inside it are left out (%s); name those, too", folder, _first_of(inner))


def _holds_pictures(folder: Path) -> bool:
    try:
        return bool(pictures_in(folder))
    except OSError:
        return False  # one that may not be read, or a disk that is gone: nobody asked for it


def _first_of(entries: Sequence[Path]) -> str:
    return entries[0].name + (f" and {len(entries) - 1} more" if len(entries) > 1 else "")


def _check_apart(jobs: Sequence[Job]) -> None:
    """See that no two jobs write one file or picture."""
    taken: dict[Path, Path] = {}
    for job in jobs:
        made = outputs(job.config)
        for target, source in made.items():
            if target in taken:
                way = "annotate them into different folders" if source in job.files else "put {camera} in it"
                raise UsageError(f"{source} and {taken[target]} would both become {target}; {way}")
        taken |= made


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


def _job(
    stem: str,
    camera: str,
    path: Path,
    out: Path,
    only: Sequence[str] | None,
    overlay: bool,
    settings: Sequence[str],
) -> Job:
    jsonl = out / f"{stem}.jsonl"
    pictures = path.is_dir()
    places = {"jsonl": jsonl, "pictures": out, "record": out / f"{stem}.mp4"}
    paths = {name: _literal(place) for name, place in places.items()}
    drawn = ["pictures" if pictures else "record"] if overlay else []
    own = {
        "cameras": {camera: {"url": _literal(path), "only": only and [*map(_literal, only)], "policy": "lossless"}},
        "smooth": {"offline": not pictures, "enabled": not pictures},
        "sinks": [{name: {"path": paths[name]}} for name in ("jsonl", *drawn)],
    }
    data: dict[str, Any] = dict(own)
    apply_overrides(data, settings)
    data = _own_for_null(data, own)
    if isinstance(data["sinks"], list):
        data["sinks"] = [_with_path(sink, paths) for sink in data["sinks"]]
    if pictures and isinstance(data["smooth"], dict):
        data["smooth"]["offline"] = False  # nothing is smoothed from one picture to the next
    files = tuple(sorted(pictures_in(path, only))) if pictures else ()
    config = validate(expand(data))
    records = [fill(path, camera) for name, options in config.sinks if name == "jsonl" for path in options.files()]
    return Job(config, records[0] if records else None, path if pictures else None, files)


def _own_for_null(data: Any, own: Any) -> Any:
    """`data` with what `own` has in its place wherever null was set."""
    if data is None:
        return own
    if isinstance(data, dict) and isinstance(own, dict):
        return {key: _own_for_null(value, own.get(key)) for key, value in data.items()}
    return data


def _with_path(sink: Any, paths: Mapping[str, str]) -> Any:
    """An item of `sinks:`, with its own of `paths` where it has none."""
    own = {name: {"path": path} for name, path in paths.items()}
    named = {sink: None} if isinstance(sink, str) else sink
    if not isinstance(named, dict):
        return sink
    pathless = {"path": None}
    named = {
        name: pathless | options if isinstance(options, dict) and name in own else options
        for name, options in named.items()
    }
    return _own_for_null(named, own)


def _literal(path: str | Path) -> str:
    """`path` as a setting in which nothing is expanded."""
    return str(path).replace("${", "$${")


def people_of_pictures(job: Job) -> dict[Path, dict[str, Any]]:
    """What the record of a job of pictures holds, by file: `{"bounding_box": N×4, "key_points": N×17×3}`, nothing where
    it was not written.

    Boxes are xyxy pixels, key points x, y, score, both as nested lists.
    """
    found: dict[Path, dict[str, Any]] = {}
    if job.folder is None or job.jsonl is None or not job.jsonl.is_file():
        return found
    with job.jsonl.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if record["type"] == "frame":
                people = record["people"]
                found[job.folder / record["file"]] = {
                    "bounding_box": [person["box"] for person in people],
                    "key_points": [person["keypoints"] for person in people],
                }
    return found


def by_name(found: Mapping[Path, T]) -> dict[str, T]:
    """The origin's dictionary: keyed by the name of the picture, and by its path where several have that name."""
    names = Counter(path.name for path in found)
    return {path.name if names[path.name] == 1 else str(path): people for path, people in found.items()}
