"""What is kept of a fetched file under a model's name: one that is the model, whole, and by one fetch at a time."""

from __future__ import annotations

import hashlib
import http.server
import sys
import threading
from pathlib import Path

import pytest
import torch

from streampose.errors import ModelError, UsageError
from streampose.models import fetch as fetching
from streampose.models import manifest as manifests
from streampose.models.catalogue import catalogue
from streampose.models.fetch import fetch
from tests.file_server import Server, begin, contents
from tests.made_models import seeded_pose_network, write_pose_model

pytestmark = pytest.mark.usefixtures("small_catalogue")


def test_a_second_fetch_asks_nobody(server: Server, tmp_path: Path) -> None:
    fetch("tiny", folder=tmp_path)
    before = len(server.ranges)
    fetch("tiny", folder=tmp_path)
    assert len(server.ranges) == before


def test_what_nobody_vouched_for_and_is_no_model_is_not_kept(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_text("no checkpoint")
    with pytest.raises(ModelError, match="not a checkpoint"):
        fetch("unsigned", source=junk, unverified=True, folder=tmp_path / "models")
    assert contents(tmp_path / "models") == []
    with pytest.raises(ModelError, match="no PyTorch checkpoint"):
        fetch("unsigned_detector", source=junk, unverified=True, folder=tmp_path / "models")
    assert contents(tmp_path / "models") == []


def test_right_weights_stay_where_only_their_manifest_cannot_be_written(
    content: bytes, tmp_path: Path, server: Server
) -> None:
    (tmp_path / "tiny.yaml").mkdir()
    for _ in range(2):
        with pytest.raises(ModelError, match=r"tiny\.yaml: cannot be written"):
            fetch("tiny", folder=tmp_path)
        assert contents(tmp_path) == ["tiny.yaml", "tiny_96x64.safetensors"]
    (tmp_path / "tiny.yaml").rmdir()
    assert manifests.load(fetch("tiny", folder=tmp_path))[0].name == "tiny"
    assert len(server.ranges) == 1


def test_files_that_are_called_the_same_do_not_take_each_others_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of these no publisher's address is known, and what they are called is up to whoever brought them."""
    names = ("pose_hrnet_w32_256x192", "pose_hrnet_w32_384x288")
    tiny = {name: catalogue()[name].model_copy(update={"network": "hrnet_tiny"}) for name in names}
    monkeypatch.setattr(fetching, "catalogue", lambda: tiny)
    for seed, name in enumerate(names):
        brought = tmp_path / name / "model.pth"
        brought.parent.mkdir()
        torch.save(seeded_pose_network("hrnet_tiny", seed=seed).state_dict(), brought)
        fetch(name, source=brought, unverified=True, folder=tmp_path / "models")
    for name in names:
        manifest, weights = manifests.load(tmp_path / "models" / f"{name}.yaml")
        assert (manifest.name, weights.name) == (name, f"{name}.pth")


def test_a_file_of_another_model_does_not_take_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor its published precision, cost and licence: neither another network, nor the same for another input."""
    name = "pose_hrnet_w48_384x288"
    tiny = catalogue()[name].model_copy(update={"network": "hrnet_tiny"})
    monkeypatch.setattr(fetching, "catalogue", lambda: {name: tiny})

    def bring(file: str, joints: int = 17, preset: str = "hrnet_tiny") -> Path:
        torch.save(seeded_pose_network(preset, joints).state_dict(), tmp_path / file)
        return fetch(name, source=tmp_path / file, unverified=True, folder=tmp_path / "models")

    kept = bring("mine.pth").read_text()
    for asked, said in (
        (("other.pth", 17, "litehrnet_tiny"), f"{name}: is hrnet_tiny of 17 joints, this file is litehrnet_tiny of 17"),
        (("more.pth", 21), "this file is hrnet_tiny of 21 joints"),
        (
            ("pose_hrnet_w48_256x192.pth",),
            r"is for an input of 256x192 .* by its name, pose_hrnet_w48_384x288 has 384x288",
        ),
    ):
        with pytest.raises(ModelError, match=said):
            bring(*asked)
        assert contents(tmp_path / "models") == [f"{name}.pth", f"{name}.yaml"]
        assert manifests.load(tmp_path / "models" / f"{name}.yaml")[1].is_file()
    assert (tmp_path / "models" / f"{name}.yaml").read_text() == kept


def test_from_a_file(content: bytes, tmp_path: Path, server: Server) -> None:
    brought = tmp_path / "brought.safetensors"
    brought.write_bytes(content)
    fetch("tiny", source=brought, folder=tmp_path / "models")
    assert contents(tmp_path / "models") == ["tiny.yaml", "tiny_96x64.safetensors"]
    assert server.ranges == []
    brought.write_bytes(content[:-1])
    with pytest.raises(ModelError, match="is not the published file"):
        fetch("tiny", source=brought, folder=tmp_path / "others")
    assert contents(tmp_path / "others") == []


def test_without_a_published_hash_somebody_must_answer_for_it(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="states no sha256"):
        fetch("unsigned", folder=tmp_path)
    with pytest.raises(ModelError, match="is not the published file"):
        fetch("unsigned", folder=tmp_path, sha256="0" * 64)
    for short in ("", "3", hashlib.sha256(content).hexdigest()[:63], "g" * 64):
        with pytest.raises(UsageError, match="a whole sha256 is wanted"):
            fetch("unsigned", folder=tmp_path, sha256=short)
    with pytest.raises(UsageError, match="the published tiny has"):
        fetch("tiny", folder=tmp_path, sha256="0" * 64)
    fetch("unsigned", folder=tmp_path, sha256=hashlib.sha256(content).hexdigest())
    fetch("unsigned", folder=tmp_path / "again", unverified=True)


def test_a_file_that_nobody_states_the_hash_of_takes_the_place_of_the_one_before(
    content: bytes, tmp_path: Path, server: Server
) -> None:
    fetch("unsigned", folder=tmp_path / "models", unverified=True)
    asked = len(server.ranges)
    manifest, weights = manifests.load(write_pose_model(tmp_path / "new", preset="hrnet_tiny", seed=1))
    assert weights.read_bytes() != content
    path = fetch("unsigned", source=weights, folder=tmp_path / "models", unverified=True)
    assert manifests.load(path)[0].sha256 == manifest.sha256
    assert manifests.load(fetch("unsigned", folder=tmp_path / "models", unverified=True))[0].sha256 == manifest.sha256
    junk = tmp_path / "junk.safetensors"
    junk.write_text("no checkpoint")
    with pytest.raises(ModelError, match="not a checkpoint"):
        fetch("unsigned", source=junk, folder=tmp_path / "models", unverified=True)
    assert contents(tmp_path / "models") == ["tiny_96x64.safetensors", "unsigned.yaml"]
    assert manifests.load(path)[0].sha256 == manifest.sha256
    assert len(server.ranges) == asked, "without a file the one that is here serves"


def test_a_damaged_checkpoint_is_told_by_its_own_checksums_where_there_is_no_hash(tmp_path: Path) -> None:
    brought = tmp_path / "brought.pth"
    torch.save(seeded_pose_network("hrnet_tiny").state_dict(), brought)
    damaged = bytearray(brought.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    brought.write_bytes(damaged)
    with pytest.raises(ModelError, match=r"brought\.pth: is damaged, a checksum in it is wrong; get it again"):
        fetch("unsigned", source=brought, folder=tmp_path / "models", unverified=True)
    assert contents(tmp_path / "models") == []
    assert brought.is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="locks of Linux")
def test_a_second_fetch_at_the_same_time_leaves_the_first_alone(server: Server, content: bytes, tmp_path: Path) -> None:
    """Both wrote one `.part`: what came out was neither of them, or the first lost it while it was being verified."""
    half_sent, go_on = threading.Event(), threading.Event()

    def pausing(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
        rest = begin(handler, content)
        handler.wfile.write(rest[:1000])
        handler.wfile.flush()
        if half_sent.is_set():
            return
        half_sent.set()
        assert go_on.wait(30)
        handler.wfile.write(rest[1000:])

    server.answer = pausing
    (tmp_path / "tiny_96x64.safetensors.lock").touch()  # of one that was killed
    done: list[Path] = []
    first = threading.Thread(target=lambda: done.append(fetch("tiny", folder=tmp_path)))
    first.start()
    try:
        assert half_sent.wait(30)
        (tmp_path / "brought.pth").write_bytes(content)
        for source in (None, tmp_path / "brought.pth"):
            with pytest.raises(
                ModelError, match=r"tiny_96x64\.safetensors: another fetch is getting it; wait for that"
            ):
                fetch("tiny", source=source, folder=tmp_path)
    finally:
        go_on.set()
        first.join()
    assert done == [tmp_path / "tiny.yaml"]
    assert len(server.ranges) == 1
    assert contents(tmp_path) == ["brought.pth", "tiny.yaml", "tiny_96x64.safetensors"]
    assert fetch("tiny", folder=tmp_path) == tmp_path / "tiny.yaml"
