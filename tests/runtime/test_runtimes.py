"""The three runtimes agree: same weights, same pictures, same numbers, and each holds the contract of `Runtime`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from streampose.detect.network import PeopleNetwork, bare_model, head_of
from streampose.errors import ModelError
from streampose.models import manifest as manifests
from streampose.models.export import parity_pictures
from streampose.models.manifest import InputSpec
from streampose.models.open import open_runtime
from streampose.runtime.onnx_runtime import OnnxRuntime, _faults, provider_list, with_preprocessing
from streampose.runtime.openvino_runtime import read_foreign, shared_core
from streampose.runtime.preprocess import Pictures, WithPreprocessing, for_pictures
from streampose.runtime.select import Choice, choose, cpu_multiplies_bf16
from streampose.runtime.torch_runtime import held_tensors
from tests.made_models import INPUT, seeded_pose_network, write_detector, write_pose_model

PICTURES = parity_pictures(INPUT.width, INPUT.height, 5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pose_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMPOSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def expected() -> np.ndarray:
    """The network by hand: normalised with NumPy, run in plain torch."""
    planes = PICTURES[..., ::-1].astype(np.float64)
    planes = (planes - np.array(INPUT.mean)) / np.array(INPUT.std)
    with torch.inference_mode():
        return seeded_pose_network()(torch.from_numpy(planes.astype(np.float32)).permute(0, 3, 1, 2)).numpy()


@pytest.mark.parametrize("runtime", ["torch", "openvino", "onnx"])
def test_every_runtime_gives_the_networks_numbers(runtime: str, model: Path) -> None:
    opened = open_runtime(*manifests.load(model), choose("cpu", runtime, "fp32"), batch_sizes=(1, 4))
    (heatmaps,) = opened(PICTURES)
    wanted = expected()
    assert (opened.name, opened.device, opened.precision) == (runtime, "cpu", "fp32")
    assert tuple(opened.batch_sizes) == (1, 4)
    assert heatmaps.dtype == np.float32
    assert np.abs(heatmaps - wanted).max() <= 1e-4 * np.abs(wanted).max()
    (again,) = opened(PICTURES[:2])
    np.testing.assert_allclose(again, heatmaps[:2], atol=1e-5)
    opened.close()


def test_outputs_are_not_overwritten_by_the_next_call(model: Path) -> None:
    opened = open_runtime(*manifests.load(model), choose("cpu", "openvino", "fp32"), batch_sizes=(1,))
    (first,) = opened(PICTURES[:1])
    kept = first.copy()
    opened(PICTURES[1:2])
    np.testing.assert_array_equal(first, kept)


def test_bf16_says_what_it_got(model: Path) -> None:
    opened = open_runtime(*manifests.load(model), choose("cpu", "openvino", "bf16"), batch_sizes=(1,))
    if cpu_multiplies_bf16("openvino"):
        assert opened.precision == "bf16"
    (heatmaps,) = opened(PICTURES[:1])
    wanted = expected()[:1]
    assert np.abs(heatmaps - wanted).max() < 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_preprocessing_is_exact(channels: str) -> None:
    spec = InputSpec(width=4, height=2, channels=channels, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    picture = np.random.default_rng(0).integers(0, 256, (1, 2, 4, 3), dtype=np.uint8)
    planes = picture if channels == "bgr" else picture[..., ::-1]
    wanted = (planes.astype(np.float64) - [1, 2, 3]) / [4, 5, 6]
    got = WithPreprocessing(torch.nn.Identity(), spec)(torch.from_numpy(picture)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-5)


class TwoReaders(torch.nn.Module):
    """A network of which two layers read the picture, with `spoiler` one that is no convolution."""

    def __init__(self, spoiler: bool) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 2, 3, padding=1)
        self.second = torch.nn.Conv2d(3, 2, 3, padding=1)
        self.third = torch.nn.Sequential(torch.nn.Sigmoid() if spoiler else torch.nn.Conv2d(3, 3, 1))

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = self.first(planes) + self.second(planes) + self.third(planes)[:, :2]
        return total


def plain_network() -> torch.nn.Module:
    stem = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
    return torch.nn.Sequential(stem, torch.nn.ReLU(), torch.nn.Conv2d(4, 3, 3))


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("mean", [(0.0, 0.0, 0.0), (7.0, 99.5, 123.25)])
@pytest.mark.parametrize(
    ("make", "folds"),
    [(plain_network, True), (lambda: TwoReaders(False), True), (lambda: TwoReaders(True), False)],
    ids=["one", "several", "not all convolutions"],
)
def test_preprocessing_goes_into_the_convolutions_that_read_the_picture(
    channels: str, mean: tuple[float, float, float], make: Callable[[], torch.nn.Module], folds: bool
) -> None:
    torch.manual_seed(3)
    network = make().eval()
    spec = InputSpec(width=20, height=16, channels=channels, mean=mean, std=(9.0, 99.0, 255.0))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ready = for_pictures(network, spec)
    assert isinstance(ready, Pictures) == folds
    pictures = torch.randint(0, 256, (2, 16, 20, 3), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(ready(pictures), WithPreprocessing(network, spec)(pictures))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items()), "the network is kept"


def passing_model(path: Path, shape: tuple[object, ...] = ("batch", 3, 2, 4), numbers: int = TensorProto.FLOAT) -> Path:
    """An ONNX model that gives back the normalised planes it gets, of this type of `numbers`."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["output"])],
        "passing",
        [value("input", numbers, shape)],
        [value("output", numbers, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(path))
    return path


@pytest.mark.parametrize(("numbers", "atol"), [(TensorProto.FLOAT, 1e-4), (TensorProto.FLOAT16, 0.03)])
def test_a_foreign_model_gets_its_preprocessing(numbers: int, atol: float, tmp_path: Path) -> None:
    spec = InputSpec(width=4, height=2, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    path = passing_model(tmp_path / "passing.onnx", numbers=numbers)
    pictures = np.random.default_rng(1).integers(0, 256, (3, 2, 4, 3), dtype=np.uint8)
    wanted = ((pictures[..., ::-1].astype(np.float64) - [1, 2, 3]) / [4, 5, 6]).transpose(0, 3, 1, 2)
    by_onnx = OnnxRuntime(with_preprocessing(path, spec), Choice("onnx", "cpu", "fp32"), (1, 2))(pictures)[0]
    np.testing.assert_allclose(by_onnx, wanted, atol=atol)
    model = read_foreign(path, spec)
    model.reshape({0: [3, 2, 4, 3]})
    by_openvino = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([pictures])[0]
    np.testing.assert_allclose(by_openvino, wanted, atol=atol)


def test_a_foreign_model_of_another_size_is_said(tmp_path: Path) -> None:
    spec = InputSpec(width=8, height=8)
    path = passing_model(tmp_path / "passing.onnx", (1, 3, 2, 4))
    with pytest.raises(ModelError, match="takes"):
        with_preprocessing(path, spec)
    (tmp_path / "text.onnx").write_text("this is no model")
    with pytest.raises(ModelError, match="not an ONNX file"):
        with_preprocessing(tmp_path / "text.onnx", spec)
    with pytest.raises(ModelError, match="cannot read it"):
        read_foreign(tmp_path / "text.onnx", spec)


def test_a_provider_that_is_not_there_is_no_silent_cpu() -> None:
    with pytest.raises(ModelError, match="has no coreml"):
        OnnxRuntime(b"", Choice("onnx", "coreml", "fp32"), (1,))
    with pytest.raises(ModelError, match="device: cpu:x: after cpu: the number of the device is wanted"):
        OnnxRuntime(b"", Choice("onnx", "cpu:x", "fp32"), (1,))


def test_what_tensorrt_cannot_run_goes_to_cuda_and_its_engines_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "not" / "yet"))
    first, second = provider_list("tensorrt", "1", "ab" * 32)
    assert first[0] == "TensorrtExecutionProvider"
    engines = tmp_path / "not" / "yet" / "tensorrt" / ("ab" * 8)  # engines of other weights are others
    assert first[1] == {"device_id": "1", "trt_engine_cache_enable": "True", "trt_engine_cache_path": str(engines)}
    assert engines.is_dir(), "the provider makes no folders above the last one, and does not start"
    assert second == ("CUDAExecutionProvider", {"device_id": "1"})
    assert provider_list("cpu", "", "") == [("CPUExecutionProvider", {})]
    (tmp_path / "file").touch()
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "file"))
    assert provider_list("tensorrt", "", "ab" * 32)[0] == ("TensorrtExecutionProvider", {})
    assert "TensorRT builds its engines, for minutes, at every start" in caplog.text


def test_onnx_runtime_that_does_not_start_says_why_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its Python side would print a box on stdout and go on with other providers. Here an option makes it fail."""
    spec = InputSpec(width=4, height=2)
    model = with_preprocessing(passing_model(tmp_path / "passing.onnx"), spec)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op_thread_affinities", "abc")
    monkeypatch.setattr(onnxruntime, "SessionOptions", lambda: options)
    with pytest.raises(ModelError, match="Processor id must consist of only digits"):
        OnnxRuntime(model, Choice("onnx", "cpu", "fp32", threads=2), (1,))
    assert capfd.readouterr().out == ""


def test_what_a_provider_fails_with_is_one_of_the_known_faults() -> None:
    """A TensorRT engine that cannot be built is an EPFail, which has nothing in common with the others."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    assert {state.EPFail, state.Fail, state.InvalidArgument, state.NoSuchFile, RuntimeError} <= set(_faults())


def test_a_yolo_head_makes_its_anchors_anew_and_the_old_ones_can_be_held() -> None:
    """Why a captured graph must hold what modules keep as attributes: the next batch size replaces it."""
    network = PeopleNetwork(bare_model({"builder": "ultralytics", "config": "yolov8n.yaml", "tower_classes": 1})).eval()
    with torch.inference_mode():
        network(torch.zeros(1, 3, 64, 64))
        anchors = head_of(network.model).anchors
        held = held_tensors(network)
        assert any(tensor is anchors for tensor in held)
        network(torch.zeros(2, 3, 64, 64))
    assert head_of(network.model).anchors is not anchors
    parameters = {id(tensor) for tensor in [*network.parameters(), *network.buffers()]}
    assert not any(id(tensor) in parameters for tensor in held)


def test_a_device_that_is_not_there_is_said(model: Path) -> None:
    with pytest.raises(ModelError, match="OpenVINO has no NPU here"):
        open_runtime(*manifests.load(model), choose("openvino:NPU"))
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="no CUDA device"):
            open_runtime(*manifests.load(model), choose("cuda"))
    for device in ("foo", "cuda:x", "xpu", ""):
        with pytest.raises(ModelError, match=f"device: '{device}': torch runs networks on cpu"):
            open_runtime(*manifests.load(model), choose(f"torch:{device}"))


@pytest.mark.parametrize("device", ["AUTO", "HETERO:CPU", "MULTI:CPU"])
def test_devices_behind_devices_say_what_they_run(device: str, model: Path) -> None:
    for _ in ("compiled", "from the cache where it can be kept"):
        opened = open_runtime(*manifests.load(model), choose(f"openvino:{device}"), batch_sizes=(1,))
        assert opened.device == device.lower()
        assert opened.precision in ("fp32", "bf16", "fp16")
        wanted = expected()[:1]
        assert np.abs(opened(PICTURES[:1])[0] - wanted).max() < 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_a_size_that_a_network_does_not_take_is_one_line(runtime: str, tmp_path: Path) -> None:
    found = manifests.load(write_detector(tmp_path))
    with pytest.raises(ModelError, match="cannot run on pictures of 100x100") as caught:
        open_runtime(*found, choose("cpu", runtime, "fp32"), size=(100, 100), batch_sizes=(1,))
    assert "\n" not in str(caught.value)


def test_openvino_writes_nothing_home_and_reports_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from streampose.runtime.quiet_openvino import ov; assert sys.modules['openvino_telemetry'] is None"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


SIGNALLED = """
import os, signal, sys, time
from streampose.models.open import open_runtime
from streampose.models import manifest as manifests
from streampose.runtime.select import choose
opened = [
    open_runtime(*manifests.load(sys.argv[1]), choose("cpu", "openvino", "fp32"), batch_sizes=(size,)) for size in (1, 2)
]
while opened:  # in the order in which they were opened
    opened.pop(0).close()
heard = []
signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.01)
print("heard", heard)
"""


def test_a_signal_after_networks_were_freed_is_heard(tmp_path: Path) -> None:
    """In a process of its own: where the signal stack that OpenVINO set is gone, the signal is a crash."""
    command = [sys.executable, "-c", SIGNALLED, str(write_pose_model(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "heard [15]\n"), done.stderr


TOGETHER = """
import sys, threading
import numpy as np
from streampose.models.open import open_runtime
from streampose.models import manifest as manifests
from streampose.runtime.select import choose
model = manifests.load(sys.argv[1])
networks = [open_runtime(*model, choose("cpu", "openvino", "fp32"), batch_sizes=(size,)) for size in (1, 1, 1, 1)]
picture = np.zeros((1, model[0].input.height, model[0].input.width, 3), np.uint8)
begin = threading.Barrier(len(networks))
def look(network):
    begin.wait()
    network(picture)
threads = [threading.Thread(target=look, args=(network,)) for network in networks]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("all looked")
"""


def test_networks_may_see_their_first_pictures_at_the_same_time(tmp_path: Path) -> None:
    """In processes of their own: OpenVINO's binding stopped most of them for ever as two threads gave it a first array."""
    command = [sys.executable, "-c", TOGETHER, str(write_pose_model(tmp_path))]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stdout) == (0, "all looked\n"), done.stderr
