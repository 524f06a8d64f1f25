"""These networks are small: one torch thread. And a small published model for tests of fetching."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from streampose.models import fetch as fetching
from streampose.models import manifest as manifests
from streampose.models.catalogue import KnownModel
from tests.file_server import Server
from tests.made_models import write_pose_model
from tests.one_thread import _one_torch_thread  # noqa: F401


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint as it would be published."""
    folder = tmp_path_factory.mktemp("published")
    manifest, weights = manifests.load(write_pose_model(folder, preset="hrnet_tiny"))
    assert manifest.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    return weights.read_bytes()


@pytest.fixture
def server(content: bytes) -> Iterator[Server]:
    running = Server(content)
    yield running
    running.close()


@pytest.fixture
def small_catalogue(server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue of one model, at the test's server, verified by the beginning of its hash as published ones are."""
    known = KnownModel(
        task="pose", network="hrnet_tiny", joints=17, url=server.url, sha256=hashlib.sha256(content).hexdigest()[:8],
        size=(64, 96), licence="none",
    )  # fmt: skip
    unsigned = known.model_copy(update={"sha256": ""})
    detector = unsigned.model_copy(update={"task": "detect"})
    monkeypatch.setattr(
        fetching, "catalogue", lambda: {"tiny": known, "unsigned": unsigned, "unsigned_detector": detector}
    )
