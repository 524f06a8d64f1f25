"""A web server for the sources that read from one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources.web_server import serve


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Host and port of a server that hands out `tmp_path`."""
    with serve(tmp_path) as address:
        yield address
