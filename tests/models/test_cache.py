"""Cache entries are whole or absent, and a damaged one is made again."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from streampose.errors import UsageError
from streampose.models import cache
from streampose.models.fetch import fetch
from streampose.models.resolve import local_models


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "cache"))


def test_an_entry_is_built_once() -> None:
    path = cache.entry_path("kind", {"a": 1}, ".x")
    built: list[int] = []

    def build() -> bytes:
        built.append(1)
        return b"payload"

    assert cache.cached(path, build) == (b"payload", False)
    assert cache.cached(path, build) == (b"payload", True)
    assert len(built) == 1


def test_keys_make_names() -> None:
    first = cache.entry_path("kind", {"a": 1, "b": [2, "x"]}, ".x")
    assert cache.entry_path("kind", {"b": [2, "x"], "a": 1}, ".x") == first
    assert cache.entry_path("kind", {"a": 1, "b": [2, "y"]}, ".x") != first
    assert first.parent == cache.cache_folder() / "kind"


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_entry_is_made_again(damage: str) -> None:
    path = cache.entry_path("kind", {"a": damage}, ".x")
    assert cache.write(path, b"x" * 1000)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[500] ^= 1
    path.write_bytes(content[: {"flip": 1032, "cut": 700, "empty": 0}[damage]])
    assert cache.read(path) is None
    assert cache.cached(path, lambda: b"new") == (b"new", False)
    assert cache.read(path) == b"new"


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "file"))
    path = cache.entry_path("kind", {}, ".x")
    assert cache.cached(path, lambda: b"payload") == (b"payload", False)
    assert cache.cached(cache.entry_path("other", {}, ".x"), lambda: b"payload") == (b"payload", False)
    assert caplog.text.count("no cache") == 1
    assert cache.cached(path, lambda: b"made again") == (b"payload", True), "the process keeps it"


@pytest.mark.skipif(sys.platform == "win32", reason="has no umask")
def test_who_shares_a_cache_can_read_it() -> None:
    before = os.umask(0o027)
    try:
        path = cache.entry_path("kind", {"shared": 1}, ".x")
        assert cache.write(path, b"payload")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(sys.platform == "win32", reason="has no modes")
def test_an_entry_that_may_not_be_read_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    path = cache.entry_path("kind", {"theirs": 1}, ".x")
    assert cache.write(path, b"payload")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything
    try:
        assert [cache.read(path) for _ in range(3)] == [None] * 3
    finally:
        if user == 0:
            os.seteuid(user)
    assert caplog.text.count("Permission denied: made again") == 1


def test_many_writers_leave_one_whole_entry() -> None:
    path = cache.entry_path("kind", {"many": 1}, ".x")
    code = (
        "from pathlib import Path; from streampose.models import cache\n"
        f"p = Path({str(path)!r})\n"
        "for _ in range(50):\n"
        "    assert cache.write(p, b'z' * 200_000)\n"
        "    assert cache.read(p) == b'z' * 200_000\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(sys.platform != "linux", reason="has its caches elsewhere")
@pytest.mark.parametrize("home", ["", None])
def test_without_a_home_there_is_a_cache_that_goes_with_the_process(home: str | None) -> None:
    program = """
from pathlib import Path
from streampose.models import cache, resolve

def nobody():
    raise RuntimeError("Could not determine home directory.")

if HOME is None:
    Path.home = nobody
folder = cache.cache_folder()
assert cache.cache_folder() == folder and folder.name == "streampose"
assert cache.write(cache.entry_path("kind", {}, ".x"), b"payload")
assert "yolov8n_person" in resolve.local_models()
print(folder)
""".replace("HOME", repr(home))
    environment = {k: v for k, v in os.environ.items() if k not in ("STREAMPOSE_CACHE", "XDG_CACHE_HOME", "HOME")}
    environment |= {} if home is None else {"HOME": home}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("no home directory is known") == 1
    assert not Path(ended.stdout.strip()).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="has its caches elsewhere")
def test_without_home_and_temporary_files_networks_are_kept_in_memory_and_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STREAMPOSE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    cache._no_home.cache_clear()
    try:
        path = cache.entry_path("kind", {"home": "none"}, ".x")
        assert cache.cached(path, lambda: b"payload") == (b"payload", False)
        assert cache.cached(path, lambda: b"made again") == (b"payload", True)
        assert "yolov8n_person" in local_models()
        with pytest.raises(UsageError, match="no home directory is known to keep it in; set STREAMPOSE_CACHE"):
            fetch("hrnet_w32_256x192")
    finally:
        cache._no_home.cache_clear()
