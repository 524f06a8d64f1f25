"""Published layouts into our names, and what is no such checkpoint."""

import pickle
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from streampose.errors import ModelError
from streampose.models.resolve import resolve, resolve_any
from streampose.pose.checkpoint import layout_of, load_weights, read_state
from streampose.pose.hrnet import HRNet
from streampose.pose.lite_hrnet import LiteHRNet


def as_mmpose(state: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    return {(f"{head}.{n}" if n.startswith("final_layer") else f"backbone.{n}"): v for n, v in state.items()}


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "kind", ["bare", "state_dict", "module", "mmpose", "mmpose with arrays", "old mmpose", "safetensors"]
)
def test_every_layout_of_hrnet(tmp_path: Path, kind: str) -> None:
    source, target = HRNet("hrnet_tiny"), HRNet("hrnet_tiny")
    state = source.state_dict()
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file(state, path)
    else:
        made = {
            "bare": state,
            "state_dict": {"state_dict": state, "meta": {"epoch": 3}},
            "module": {f"module.{name}": value for name, value in state.items()},
            "mmpose": {"state_dict": as_mmpose(state, "head")},
            "mmpose with arrays": {
                "state_dict": as_mmpose(state, "head"),
                "meta": {
                    "dataset_meta": {
                        "sigmas": np.linspace(0.1, 0.9, 17),
                        "flip": np.arange(17),
                        "share": np.float32(0.5),
                    }
                },
            },
            "old mmpose": {"state_dict": as_mmpose(state, "keypoint_head")},
        }[kind]
        torch.save(made, path)
    assert not same(source, target)
    assert load_weights(target, path) is None
    assert same(source, target)
    assert layout_of(read_state(path)) == ("mmpose" if "mmpose" in kind else "official")


def test_lite_of_old_mmpose_and_without_counters(tmp_path: Path) -> None:
    source, target = LiteHRNet("litehrnet_tiny"), LiteHRNet("litehrnet_tiny")
    state = {
        name.replace("head.final", "keypoint_head.final"): value.half() if value.is_floating_point() else value
        for name, value in source.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    save_file(state, tmp_path / "lite.safetensors")
    load_weights(target, tmp_path / "lite.safetensors")
    assert layout_of(read_state(tmp_path / "lite.safetensors")) == "lite"
    for name, value in source.state_dict().items():
        assert torch.allclose(value.float(), target.state_dict()[name].float(), atol=2e-3)


def test_another_number_of_joints_remakes_the_head_and_says_so(tmp_path: Path) -> None:
    source = HRNet("hrnet_tiny", joints=17)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    target = HRNet("hrnet_tiny", joints=6)
    with pytest.raises(ModelError, match=r"w\.pth: has 17 joints, 6 are wanted$"):
        load_weights(target, tmp_path / "w.pth")
    note = load_weights(target, tmp_path / "w.pth", remake_head=True)
    assert note is not None
    assert "17 joints, 6 are wanted" in note
    assert torch.equal(source.conv1.weight, target.conv1.weight)


def test_what_is_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    class Sneaky:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("executed",)

    files = {
        "text.pth": b"hello",
        "empty.pth": b"",
        "code.pth": pickle.dumps(Sneaky()),
        "cut.safetensors": b"\x10\x00\x00\x00\x00\x00\x00\x00{",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError) as caught:
            read_state(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="no state dict"):
        read_state(tmp_path / "list.pth")
    with pytest.raises(ModelError, match="no such checkpoint"):
        read_state(tmp_path / "none.pth")


def test_what_is_no_file_of_pytorch_is_said_for_what_it_is(tmp_path: Path) -> None:
    """Told by its bytes: a file of tensors alone was called a pickle that can run code, a text "not a checkpoint (101)"."""
    state = HRNet("hrnet_tiny").state_dict()
    save_file(state, tmp_path / "tensors.pth")
    torch.save(state, tmp_path / "whole.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[:-1000])
    entry = content.index(b"PK\1\2")  # the first of the archive's directory: its version, flags and name
    version, name = bytearray(content), bytearray(content)
    version[entry + 6] = 99
    name[entry + 9] |= 8  # it is said to be UTF-8
    name[entry + 46] = 0xFF
    (tmp_path / "version.pth").write_bytes(version)
    (tmp_path / "name.pth").write_bytes(name)
    torch.jit.script(torch.nn.ReLU()).save(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "photos.pth", "w") as archive:
        archive.writestr("photos/a.jpg", b"")
    (tmp_path / "text.pth").write_text("epoch 3")
    (tmp_path / "model.engine").write_bytes(bytes(100))
    for name, said in {
        "tensors.pth": r"is a safetensors file; call it tensors\.safetensors, with its manifest, tensors\.yaml",
        "cut.pth": "is damaged, its end is missing or wrong; get it again",
        "version.pth": "is damaged, its end is missing or wrong",
        "name.pth": "is damaged, its end is missing or wrong",
        "script.pt": "is TorchScript, an export for another program; give the weights that it was made of",
        "photos.pth": "is no PyTorch file",
        "text.pth": "is no PyTorch file",
        "model.engine": r"is no PyTorch file; taken are \.pth and \.pt of PyTorch, and \.safetensors, \.onnx and \.xml with",
    }.items():
        for opened in (resolve_any, partial(resolve, task="detect", trust=True)):
            with pytest.raises(ModelError, match=rf"{name}: {said}") as caught:
                opened(tmp_path / name)
            assert "\n" not in str(caught.value)
    assert read_state(tmp_path / "old.pth").keys() == read_state(tmp_path / "whole.pth").keys() == state.keys()


def test_a_checkpoint_of_another_preset_or_network_is_named(tmp_path: Path) -> None:
    torch.save(LiteHRNet("litehrnet_tiny").state_dict(), tmp_path / "lite.pth")
    with pytest.raises(ModelError, match="of another network"):
        load_weights(HRNet("hrnet_tiny"), tmp_path / "lite.pth")
