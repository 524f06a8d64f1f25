"""`--data` and `--images` of `streampose train`: a folder in which a recipe's sets lie, or sets in their place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from streampose.errors import UsageError
from streampose.evaluate.set_files import archive_of, takes_images

DataOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Sets to train on instead of the recipe's (COCO-format JSON, folder with annotations.json, or zip; "
        "repeatable), or the folder in which the recipe's sets and start weights lie."
    ),
]
ImagesOption = Annotated[Path | None, typer.Option(help="Folder of the pictures, where --data is a JSON.")]


def root_and_sets(data: list[Path] | None, images: Path | None) -> tuple[Path | None, list[Path]]:
    """What `--data` names: the folder of the recipe's sets, or sets, absolute. Raises UsageError, in one line."""
    paths = data or []
    if missing := [path for path in paths if not os.path.exists(archive_of(path)[0])]:
        raise UsageError(f"--data {missing[0]}: no such file or folder")
    sets = [
        path.absolute()
        for path in paths
        if os.path.isfile(archive_of(path)[0]) or os.path.isfile(path / "annotations.json")
    ]
    if images is not None and not any(map(takes_images, sets)):
        raise UsageError(f"--images {images}: goes with --data FILE.json")
    if sets and len(sets) < len(paths):
        raise UsageError(f"--data: {', '.join(map(str, paths))}: sets, or the one folder in which they lie, not both")
    if not sets and len(paths) > 1:
        raise UsageError(f"--data: {', '.join(map(str, paths))}: the recipe's sets lie in one folder")
    return (paths[0] if paths and not sets else None), sets
