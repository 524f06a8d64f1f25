"""The contracts of what the registry lists: every source, runtime, kind of detector output and sink holds its own.

A new one is found here by its line in the registry. Where its sample configuration is not enough to try it, it needs a
sample in the tables at the top.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from streampose import registry
from streampose.build import describe
from streampose.build_sinks import check_outputs, make_sinks
from streampose.config import Config, validate
from streampose.config_file import load as load_config
from streampose.detect.base import BoxOutput
from streampose.detect.detector import Detector, check_boxes
from streampose.errors import ConfigError, ModelError, SinkError, SourceError, TransientSourceError
from streampose.messages import Break, Counts, End, SourceInfo
from streampose.models import manifest as manifests
from streampose.models.export import TOLERANCE, differences, parity_pictures
from streampose.models.open import offers, open_runtime
from streampose.pose.skeleton import load_skeleton
from streampose.registry import DETECTORS, RUNTIMES, SINKS, SOURCES
from streampose.runtime.base import Runtime, RuntimeKind
from streampose.runtime.select import Choice, choose, lacking
from streampose.sinks.base import Given, Sink, SinkConfig
from streampose.sinks.display import Display
from streampose.sinks.draw import DrawSkeleton
from streampose.sinks.memory import MemorySink
from streampose.sinks.paths import Names
from streampose.sources import decoder, libav
from streampose.sources.base import Picture, Source, SourceItem, SourceKind
from streampose.sources.libav import VideoOptions
from streampose.sources.open import kind_of, open_source, source_kind
from streampose.sources.synthetic import SyntheticSource
from tests.file_server import Server
from tests.made_models import INPUT, write_detector, write_pose_model
from tests.sinks.made_results import make_info, make_person, make_result

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
QUICK = VideoOptions(open_timeout_s=5.0, read_timeout_s=5.0)
WRONG = {
    "synthetic": "test:peple",
    "webcam": "/dev/video97",
    "stream": "http://127.0.0.1:9/clip.mp4",
    "images": "none.jpg",
    "video": "none.mp4",
}
"""An address of each kind of source that leads nowhere."""

NETWORKS = {"yolo": "yolov8n.yaml", "yolo_end2end": "yolo26n.yaml"}
"""A network of ultralytics that gives each kind of detector output."""

SMALL = (96, 96)
"""Width and height at which an end-to-end network has fewer candidates than it gives, so that it chooses none of them."""

FRAMES = 6


def shipped(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    for name in ("GATE_PASSWORD", "YARD_PASSWORD"):
        monkeypatch.setenv(name, "a word")
    return [load_config(path) for path in CONFIGS]


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    said = str(caught.value)
    assert said
    assert "\n" not in said
    return said


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_has_a_sample_configuration(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name in {kind_of(camera.url) for config in shipped(monkeypatch) for camera in config.cameras.values()}


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_runtime_has_a_sample_configuration(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name in {config.runtime for config in shipped(monkeypatch)}


@pytest.mark.parametrize("name", SINKS)
def test_every_sink_has_a_sample_configuration(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name in {sink for config in shipped(monkeypatch) for sink, _ in config.sinks}


def test_what_stands_in_the_registry_is_told_apart_without_a_framework() -> None:
    code = (
        "import sys\n"
        "from streampose.registry import DETECTORS, SINKS, SOURCES, load\n"
        "[load(table, name) for table in (DETECTORS, SINKS, SOURCES) for name in table]\n"
        "heavy = {'torch', 'ultralytics', 'openvino', 'onnx', 'onnxruntime'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


# Sources


@pytest.fixture
def sample(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, short_clip: Path, pictures: Path
) -> Iterator[str]:
    """An address of the kind that can be opened here: the one at hand, else that of its sample configuration."""
    name = request.node.callspec.params["name"]
    server = Server(short_clip.read_bytes())
    here = {
        "synthetic": "test:people?seconds=1&size=320x240",
        "webcam": "testsrc=size=320x240:rate=25:duration=2,realtime",
        "stream": f"http://127.0.0.1:{server.http.server_port}/clip.mp4",
        "images": str(pictures),
        "video": str(short_clip),
    }
    if name == "webcam":  # none is at hand: another of libav's input devices, which paints, goes the same way as V4L2
        monkeypatch.setattr(libav, "WEBCAM_DEVICE", "lavfi")
        monkeypatch.setattr(decoder, "KEY_WAIT_S", 0.1)
    urls = (camera.url for config in shipped(monkeypatch) for camera in config.cameras.values())
    yield here.get(name) or next(url for url in urls if kind_of(url) == name)
    server.close()


def make(name: str, address: str) -> Source:
    kind: SourceKind = registry.load(SOURCES, name)
    return kind.make(address, QUICK, None, None)


def read(items: Iterator[SourceItem], most: int) -> list[Picture]:
    pictures: list[Picture] = []
    for item in items:
        pictures += [item] if isinstance(item, Picture) else []
        if len(pictures) == most:
            break
    return pictures


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_says_what_it_is_and_gives_pictures_in_order(name: str, sample: str) -> None:
    kind: SourceKind = registry.load(SOURCES, name)
    source = make(name, sample)
    info = source.open()
    assert (info.kind, info.live) == (name, kind.live(sample))
    pictures = read(source.frames(lambda: False), 8)
    source.close()
    source.close()
    assert len(pictures) > 1
    assert all(before.time_s < after.time_s for before, after in pairwise(pictures))
    assert pictures[0].image.shape == (info.height, info.width, 3)
    assert pictures[0].image.dtype == np.uint8
    frames = [each.to_frame("gate", index, 0, each.time_s) for index, each in enumerate(pictures)]
    assert [(frame.index, frame.time_s) for frame in frames] == [(i, p.time_s) for i, p in enumerate(pictures)]


@pytest.mark.parametrize("name", SOURCES)
def test_a_recording_is_refused_where_only_a_live_source_is_wanted(name: str, sample: str) -> None:
    source = make(name, sample)
    if registry.load(SOURCES, name).live(sample):
        assert source.open(live_only=True).live
    else:
        with pytest.raises(TransientSourceError, match="sends a recording now"):
            source.open(live_only=True)
    source.close()


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_ends(name: str, sample: str) -> None:
    """By itself, with an error where it is live, and when it is stopped."""
    source = make(name, sample)
    live = source.open().live
    if live:
        with pytest.raises(SourceError) as caught:
            read(source.frames(lambda: False), 10_000)
        one_line(caught)
    else:
        assert len(read(source.frames(lambda: False), 10_000)) < 10_000
    source.close()
    stopped = make(name, sample)
    stopped.open()
    assert len(read(stopped.frames(lambda: True), 10_000)) <= 1
    stopped.close()


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_that_is_not_there_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert kind_of(WRONG[name]) == name
    with pytest.raises(SourceError) as caught:
        open_source(WRONG[name], open_timeout_s=5.0).open()
    assert WRONG[name].removeprefix("http://") in one_line(caught)


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_that_was_not_opened_can_be_closed(name: str, sample: str) -> None:
    make(name, sample).close()


# Runtimes


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small pose network and small detectors, and a cache of its own."""
    folder = tmp_path_factory.mktemp("models")
    write_pose_model(folder)
    for kind, config in NETWORKS.items():
        write_detector(folder, kind, config, kind)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMPOSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def opened(model: Path, runtime: str, **options: Any) -> Runtime:
    if missing := lacking(runtime):
        pytest.skip(f"{runtime} lacks {' and '.join(missing)}")
    return open_runtime(*manifests.load(model), choose("cpu", runtime, "fp32"), **options)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_gives_what_torch_gives_and_says_what_it_got(name: str, models: Path) -> None:
    pictures = parity_pictures(INPUT.width, INPUT.height, 5)
    runtime = opened(models / "tiny.yaml", name, batch_sizes=(1, 4))
    assert (runtime.name, runtime.device, runtime.precision) == (name, "cpu", "fp32")
    assert tuple(runtime.batch_sizes) == (1, 4)
    (wanted,) = opened(models / "tiny.yaml", "torch", batch_sizes=(1, 4))(pictures)
    (got,) = runtime(pictures)
    (fewer,) = runtime(pictures[:2])
    runtime.close()
    assert got.dtype == np.float32
    assert np.abs(got - wanted).max() <= TOLERANCE * np.abs(wanted).max()
    np.testing.assert_allclose(fewer, got[:2], atol=1e-5)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_size_that_a_network_does_not_take_is_one_line(name: str, models: Path) -> None:
    with pytest.raises(ModelError) as caught:
        opened(models / "yolo.yaml", name, size=(100, 100), batch_sizes=(1,))
    one_line(caught)


# Kinds of detector output


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_detector_of_the_kind_gives_boxes_by_every_runtime(runtime: str, name: str, models: Path) -> None:
    output: BoxOutput = registry.load(DETECTORS, name)
    manifest, weights = manifests.load(models / f"{name}.yaml")
    pictures = parity_pictures(*SMALL, 2)
    raw = opened(models / f"{name}.yaml", runtime, size=SMALL, batch_sizes=(2,))(pictures)[0]
    wanted = opened(models / f"{name}.yaml", "torch", size=SMALL, batch_sizes=(2,))(pictures)[0]
    assert all(part["relative"] <= 1e-3 for part in differences(wanted, raw, name).values())
    check_boxes(raw, manifest)
    best = output.rows(raw)[:, :, 4].max(axis=1)
    threshold = float(best.min()) * 0.99
    choice = choose("cpu", runtime, "fp32")
    detector = Detector(
        lambda width, height: open_runtime(manifest, weights, choice, size=(width, height), batch_sizes=(2,)),
        manifest,
        threshold=threshold,
        size=max(SMALL),
    )
    for (boxes, scores), most in zip(detector(list(pictures)), best, strict=True):
        assert boxes.dtype == scores.dtype == np.float32
        assert boxes.shape == (len(scores), 4)
        assert scores[0] == pytest.approx(most, rel=1e-5)
        assert (np.diff(scores) <= 0).all()
        assert scores[-1] >= threshold
    detector.close()


@pytest.mark.parametrize("name", DETECTORS)
def test_what_is_not_of_the_kind_is_refused_in_one_line(name: str, models: Path) -> None:
    output: BoxOutput = registry.load(DETECTORS, name)
    manifest, _ = manifests.load(models / f"{name}.yaml")
    raw = opened(models / f"{name}.yaml", "torch", batch_sizes=(1,))(parity_pictures(128, 128, 1))[0]
    for wrong in (raw.swapaxes(1, 2), raw[0]):
        with pytest.raises(ModelError) as caught:
            check_boxes(wrong, manifest)
        said = one_line(caught)
        assert str(wrong.shape) in said
        assert f"{name} {output.shape}" in said
    assert len(output.decode(np.full_like(raw[0], np.nan), 0.1)[1]) == 0


# Sinks


@pytest.fixture(scope="module")
def skeleton() -> DrawSkeleton:
    coco = load_skeleton("coco17")
    return DrawSkeleton(coco.sides, coco.edges)


def section(name: str, folder: Path) -> SinkConfig:
    """The sink as its sample configuration has it, writing into `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        options = next(each for config in shipped(patch) for sink, each in config.sinks if sink == name)
    template = options.template()
    return options if template is None else options.model_copy(update={"path": str(folder / Path(template).name)})


def given(skeleton: DrawSkeleton, **changes: Any) -> Given:
    known: dict[str, Any] = {
        "camera": "gate", "skeleton": lambda: skeleton, "names": Names(), "sources": (), "segment_s": None,
        "retention": lambda _: None, "header": lambda: {"version": "test"}, "extra": dict, "display": Display(skeleton),
    }  # fmt: skip
    return Given(**{**known, **changes})


def feed(sink: Sink) -> None:
    sink.write(Break("gate", 0, make_info()))
    for index in range(FRAMES):
        sink.write(make_result(index, people=[make_person()]))
    sink.write(End("gate", Counts(FRAMES, FRAMES, {})))


@pytest.mark.parametrize("name", SINKS)
def test_a_sink_writes_what_it_is_given_and_leaves_nothing_else(
    name: str, tmp_path: Path, skeleton: DrawSkeleton
) -> None:
    options = section(name, tmp_path)
    options.check(name, rolls=False)
    sink = options.sink(given(skeleton))
    assert sink is not None
    assert sink.name == name
    feed(sink)
    sink.close()
    sink.close()
    outputs = [Path(path) for path in sink.outputs()]
    assert bool(outputs) == (options.template() is not None)
    assert sorted(tmp_path.iterdir()) == sorted(outputs)
    for path in outputs:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        assert len(files) == (FRAMES if path.is_dir() else 1)
        assert all(file.stat().st_size and not file.name.startswith(".") for file in files)
    assert len(outputs) == len(options.files()) + (options.folder() is not None)


@pytest.mark.parametrize("name", SINKS)
def test_a_sink_that_got_nothing_can_be_closed(name: str, tmp_path: Path, skeleton: DrawSkeleton) -> None:
    sink = section(name, tmp_path).sink(given(skeleton))
    assert sink is not None
    sink.close()
    sink.close()
    assert sorted(tmp_path.iterdir()) == sorted(map(Path, sink.outputs()))


@pytest.mark.parametrize("name", SINKS)
def test_a_place_that_cannot_be_written_is_one_line(name: str, tmp_path: Path, skeleton: DrawSkeleton) -> None:
    (tmp_path / "file").write_text("no folder")
    options = section(name, tmp_path / "file")
    if options.template() is None:
        assert (options.files(), options.folder()) == ([], None), "what writes a file has a path"
        return
    config = validate({"cameras": {"gate": {"url": "test:people"}}, "sinks": []})
    for attempt in (
        lambda: check_outputs(config.model_copy(update={"sinks": ((name, options),)})),
        lambda: feed(options.sink(given(skeleton))),
    ):
        with pytest.raises(SinkError) as caught:
            attempt()
        assert str(tmp_path / "file") in one_line(caught)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# A new one


class Sky(SyntheticSource):
    """A source of a scheme of its own."""

    def open(self, live_only: bool = False) -> SourceInfo:
        return make_info(kind="sky", url="sky://blue")


SKY = SourceKind(
    takes=lambda address: address.startswith("sky://"),
    make=lambda *_: Sky(),
    live=lambda _: False,
    schemes=frozenset({"sky"}),
    no_packets="the sky has no stream to record",
)


class CountConfig(SinkConfig):
    """A sink with an option of its own."""

    upto: int = 3

    def sink(self, given: Given) -> MemorySink:
        return MemorySink(name=f"count of {self.upto}")


def test_a_new_source_and_a_new_sink_are_a_file_and_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "sky", f"{__name__}:SKY")
    monkeypatch.setitem(SINKS, "count", f"{__name__}:CountConfig")
    assert source_kind("sky://blue") is SKY
    assert open_source("sky://blue").open().kind == "sky"
    with pytest.raises(SourceError, match=r"known are .* rtsps, sky, srt"):
        kind_of("earth://brown")
    config = validate({"cameras": {"a": {"url": "sky://blue"}}, "sinks": [{"count": {"upto": 5}}]})
    assert describe(config) == ["a: policy lossless, to count"]
    (sink,) = make_sinks(config, None, "a", None, Names(), None, dict)  # type: ignore[arg-type]
    assert sink.name == "count of 5"


class Halver:
    """A runtime that gives half of every number of the pictures, as a detector of three classes would of 3 x 3 anchors."""

    name, device, precision = "halver", "cpu", "fp32"
    batch_sizes: Sequence[int] = ()

    def __call__(self, batch: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        return (batch.astype(np.float32) / 2,)

    def close(self) -> None:
        """It holds nothing."""


def open_halver(*_: object) -> tuple[Halver, bool]:
    return Halver(), False


HALVER = RuntimeKind(f"{__name__}:open_halver", (), "halver", ("cpu",), {"": ("fp32",)})
LEFT_HALF = BoxOutput(
    shape="(B, H, W, 3)",
    fits=lambda shape: len(shape) == 4,
    class_count=lambda shape: None,
    decode=lambda raw, threshold, *, limit=1, person=0: (np.array([[0, 0, 31, 63]], np.float32), raw[:1, 0, 0] / 100),
    rows=lambda raw: raw,
    ranked=False,
    any_size=False,
)


def test_a_new_runtime_and_a_new_kind_of_detector_output_are_a_file_and_a_line_each(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RUNTIMES, "halver", HALVER)
    monkeypatch.setitem(DETECTORS, "left_half", f"{__name__}:LEFT_HALF")
    manifest, weights = manifests.load(models / "yolo.yaml")
    manifest = manifest.model_copy(update={"output": manifest.output.model_copy(update={"kind": "left_half"})})
    choice = choose("cpu", "halver", offers=offers(weights))
    assert choice == choose("halver:cpu", offers=offers(weights)) == Choice("halver", "cpu", "fp32")
    assert choose("cpu", offers=offers(weights)).runtime != "halver", "only where it is named"
    with pytest.raises(ConfigError, match="none of auto, torch, openvino, onnx, halver"):
        choose("cpu", "halve")
    detector = Detector(
        lambda width, height: open_runtime(manifest, weights, choice, size=(width, height)), manifest, size=64
    )
    ((boxes, scores),) = detector([np.full((64, 64, 3), 180, np.uint8)])
    np.testing.assert_allclose(boxes, [[0, 0, 31, 63]])
    np.testing.assert_allclose(scores, [0.9])
