"""What runs where: what was asked, filled in by what the machine has; every impossible wish is one clear line."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streampose.bench.models import BenchModelsOptions, bench_models
from streampose.errors import ConfigError, ModelError
from streampose.models import manifest as manifests
from streampose.models.export import export
from streampose.runtime import select
from streampose.runtime.select import Choice, choose
from tests.made_models import write_pose_model


def on(machine: str, **asked: Any) -> Choice:
    """The choice on a machine: "cuda", "mps", "bf16" (a CPU that multiplies it) or "plain"."""
    there = {"has_cuda": lambda: machine == "cuda", "has_mps": lambda: machine == "mps"}
    return choose(**asked, **there, cpu_has_bf16=lambda: machine == "bf16")


@pytest.mark.parametrize(
    ("machine", "asked", "got"),
    [
        ("plain", {}, ("openvino", "cpu", "fp32")),
        ("bf16", {}, ("openvino", "cpu", "bf16")),
        ("cuda", {}, ("torch", "cuda", "fp16")),
        ("mps", {}, ("torch", "mps", "fp32")),
        ("mps", {"runtime": "onnx"}, ("onnx", "cpu", "fp32")),
        ("mps", {"precision": "fp16"}, ("torch", "mps", "fp16")),
        ("cuda", {"device": "cpu"}, ("openvino", "cpu", "fp32")),
        ("cuda", {"runtime": "openvino"}, ("openvino", "cpu", "fp32")),
        ("cuda", {"offers": ("openvino", "onnx"), "device": "cuda"}, ("onnx", "cuda", "fp32")),
        ("bf16", {"runtime": "torch"}, ("torch", "cpu", "fp32")),
        ("bf16", {"runtime": "onnx"}, ("onnx", "cpu", "fp32")),
        ("plain", {"device": "openvino:GPU"}, ("openvino", "GPU", "fp16")),
        ("plain", {"device": "onnx:tensorrt"}, ("onnx", "tensorrt", "fp32")),
        ("plain", {"precision": "int8"}, ("openvino", "cpu", "int8")),
        ("plain", {"device": "cuda:1", "precision": "fp32"}, ("torch", "cuda:1", "fp32")),
    ],
)
def test_choices(machine: str, asked: dict[str, Any], got: tuple[str, str, str]) -> None:
    choice = on(machine, **asked)
    assert (choice.runtime, choice.device, choice.precision) == got


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"device": "gpu"}, "none of auto, cpu, cuda"),
        ({"runtime": "tensorflow"}, "none of auto, torch, openvino, onnx"),
        ({"precision": "fp8"}, "none of auto, fp32"),
        ({"runtime": "torch", "device": "openvino:GPU"}, "name one"),
        ({"runtime": "openvino", "device": "cuda"}, "none of openvino's; use runtime torch or onnx"),
        ({"runtime": "torch", "precision": "int8"}, "torch on cpu runs"),
        ({"runtime": "torch", "offers": ("openvino", "onnx")}, "cannot run this model file"),
        ({"device": "cuda", "offers": ("openvino",)}, "runs by openvino only"),
    ],
)
def test_what_cannot_be_is_said(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        on("plain", **asked)
    assert "\n" not in str(caught.value)


def test_onnx_takes_cuda_only_where_it_was_built_for_it() -> None:
    """On a machine with an NVIDIA card, which is seen by torch and not by ONNX Runtime for CPUs."""
    import onnxruntime

    built = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    assert on("cuda", runtime="onnx").device == ("cuda" if built else "cpu")
    assert on("cuda", runtime="onnx", device="cuda").device == "cuda", "asked for, it is an error later, no silent CPU"


@pytest.mark.parametrize(
    ("files", "there"),
    [
        (("nvidia0",), True),
        (("nvidia3", "nvidiactl"), True),
        (("nvidia12",), True),
        (("dxg",), True),
        (("null", "nvme0", "nvidia-caps"), False),
    ],
)
def test_a_container_may_have_another_card_than_the_first(files: tuple[str, ...], there: bool, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert select.has_driver_files(tmp_path) is there


@pytest.mark.parametrize(
    ("flags", "by"),
    [
        ("fp asimd asimddp bf16", ("torch",)),
        ("avx2 avx512_bf16", ("torch", "openvino")),
        ("avx2 amx_bf16", ("torch", "openvino")),
        ("avx2", ()),
    ],
)
def test_whose_bf16_instructions_are_used(flags: str, by: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for bf16 on ARM, OpenVINO runs something else and a warning is said at every start."""
    monkeypatch.setattr(select, "cpu_flags", lambda: frozenset(flags.split()))
    assert tuple(name for name in ("torch", "openvino") if select.cpu_multiplies_bf16(name)) == by
    assert choose("cpu", "openvino").precision == ("bf16" if "openvino" in by else "fp32")


@pytest.mark.parametrize("package", ["onnxruntime", "onnx"])
def test_a_runtime_that_is_not_installed_names_its_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `onnx` no model can be converted, or get its pre-processing."""
    monkeypatch.setitem(sys.modules, package, None)
    wanted = rf"runtime onnx is not installed \(it lacks {package}\): pip install 'streampose\[onnx\]'"
    with pytest.raises(ModelError, match=wanted):
        on("plain", runtime="onnx")
    found = manifests.load(write_pose_model(tmp_path))
    with pytest.raises(ModelError, match=wanted):
        export(*found, "onnx", tmp_path / "out")
    alone = BenchModelsOptions(poses=(str(found[1]),), setups=("onnx:fp32",), seconds=0)
    with pytest.raises(ModelError, match=f"nothing can be timed here: onnx:fp32: lacks {package}"):
        bench_models(alone)
    beside = replace(alone, setups=("torch:fp32", "onnx:fp32"))
    assert bench_models(beside)["left_out"] == {"onnx:fp32": f"lacks {package}"}


def test_without_openvino_auto_takes_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(select, "find_spec", lambda name: None if name == "openvino" else found(name))
    assert on("plain").runtime == "torch"
