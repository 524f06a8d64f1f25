"""What is installed from a wheel: the shipped models are in it, and are found from any working directory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel brings, made of an sdist as an index would hold it."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("streampose", "weights"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta as b; import sys; print(getattr(b, sys.argv[1])(sys.argv[2]))"
    python = [sys.executable, "-c", build]
    subprocess.run([*python, "build_sdist", str(folder)], cwd=source, check=True, capture_output=True)
    shutil.unpack_archive(next(folder.glob("*.tar.gz")), folder / "unpacked", filter="data")
    unpacked = next((folder / "unpacked").iterdir())
    subprocess.run([*python, "build_wheel", str(folder)], cwd=unpacked, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def test_every_dependency_is_pinned_in_the_set_that_is_tested() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = chain(project["dependencies"], *project["optional-dependencies"].values())
    names = {re.split(r"[\[>=]", requirement)[0].lower() for requirement in wanted} - {"streampose"}
    pinned = {
        line.partition("==")[0].lower()
        for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert names <= pinned, sorted(names - pinned)


def test_it_has_the_shipped_models_and_what_else_is_read(installed: Path) -> None:
    for part, place in (("weights", "streampose/weights"), ("streampose", "streampose")):
        for path in (REPOSITORY / part).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert (installed / place / path.relative_to(REPOSITORY / part)).is_file(), path
    assert list(installed.glob("*.dist-info/licenses/LICENSE"))


def test_its_models_are_found_from_anywhere(installed: Path, tmp_path: Path) -> None:
    program = """
import streampose
from streampose.models.resolve import resolve
print(streampose.__file__)
for name, task in (("litehrnet18_256x192", "pose"), ("litehrnet18_128x96", "pose"), ("yolov8n_person", "detect")):
    print(resolve(name, task)[1])
"""
    environment = {**os.environ, "PYTHONPATH": str(installed), "STREAMPOSE_CACHE": str(tmp_path / "cache")}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) == 4
    assert all(Path(line).is_relative_to(installed / "streampose") for line in lines), lines
