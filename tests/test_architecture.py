"""The shape of the house: imports point one way, threads have one owner, heavy libraries are imported late."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "streampose"
FILES = sorted(ROOT.rglob("*.py"))
LEAVES = ("sources", "detect", "pose", "track", "sinks")
PURE = ("messages.py", "errors.py", "track", "pose/crop.py", "pose/decode.py", "sinks/draw.py", "sources/clock.py")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Names of the modules that a file imports; type-checking blocks do not count."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def packages(path: Path) -> set[str]:
    """The parts of streampose that a file imports: first component below the package."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("streampose.")}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_can_be_read_at_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_leaves_never_import_each_other(path: Path) -> None:
    part = relative(path).split("/")[0]
    if part in LEAVES:
        others = packages(path) & (set(LEAVES) - {part} | {"pipeline", "cli", "build", "config", "config_file"})
        allowed = {"detect"} if relative(path) == "pose/estimator.py" else set()
        assert not others - allowed, f"{relative(path)} imports {sorted(others)}"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_only_the_command_line_knows_the_verbs(path: Path) -> None:
    part = relative(path).split("/")[0]
    verbs = {"train", "evaluate", "bench"}
    if part not in {"cli", "__main__.py", *verbs}:
        assert not packages(path) & (verbs | {"cli"}), relative(path)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_threads_queues_and_prints_have_their_places(path: Path) -> None:
    calls = {
        name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        for name in [node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")]
    }
    if relative(path) != "pipeline/workers.py":
        assert "Thread" not in calls
    assert not calls & {"Queue", "SimpleQueue"}
    if not relative(path).startswith("cli/"):
        assert "print" not in calls


@pytest.mark.parametrize("path", [p for p in FILES if relative(p).startswith(PURE)], ids=relative)
def test_the_pure_parts_have_no_clock_thread_or_file(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & {"time", "threading", "socket", "av", "torch"}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    if path.read_text().strip():
        assert ast.get_docstring(ast.parse(path.read_text())), f"{relative(path)} has no docstring"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_torchvision_is_never_imported(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] == "torchvision"}


HEAVY = "{'torch', 'ultralytics', 'openvino', 'av', 'matplotlib', 'scipy'}"
START_HELP = """
import sys
sys.argv = ["streampose", "--help"]
from streampose.cli.main import main
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize("start", ["import sys, streampose", START_HELP], ids=["import", "help"])
def test_starting_is_light(start: str) -> None:
    """Neither the package nor its help imports a heavy library."""
    code = f"{start}\nheavy = {HEAVY} & set(sys.modules)\nassert not heavy, heavy\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
