"""What a detector's training begins with: recipe, pictures and start weights, and one line for what is wrong there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from streampose.detect.checkpoint import describe_checkpoint, load_checkpoint
from streampose.detect.quiet import silence_ultralytics
from streampose.errors import ConfigError, DataError, ModelError, SinkError, UsageError
from streampose.evaluate.keypoints import score_keypoints
from streampose.models.manifest import save
from streampose.models.resolve import fetched_folder
from streampose.pose.skeleton import load_skeleton
from streampose.train.detector import read_pictures, start_network, train_detector
from streampose.train.detector_config import read_recipe
from streampose.train.pose import PoseTraining
from streampose.train.refiner import train_refiner
from streampose.train.refiner_config import read_refiner_recipe
from streampose.train.weights_file import write_weights
from tests.train.small_detector import make_set, quiet, recipe
from tests.train.small_recipe import recipe_for

FINE = "{name: a, out: b, steps: 1, data: {sets: [x]}"


def test_pictures_that_cannot_be_used_are_all_named_before_a_step(tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    (tmp_path / "set" / "1.png").write_bytes(b"\x89PNG broken")
    cv2.imwrite(str(tmp_path / "set" / "4.png"), np.zeros((96, 90, 3), np.uint8))
    with pytest.raises(DataError) as caught:
        train_detector(recipe(tmp_path), resume=False, say=quiet, progress=quiet)
    assert [line.split(": ", 1)[1] for line in caught.value.lines] == [
        "image 1: 1.png does not decode as a picture",
        "image 4: 4.png is 90x96, its annotation says 96x96",
    ]


def test_without_a_counter_no_training_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What measures comes with an extra; the work would be done before that is noticed."""
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    trainings: list[Callable[[], Any]] = [
        lambda: train_detector(recipe(tmp_path), resume=False, say=quiet, progress=quiet),
        lambda: PoseTraining(recipe_for(tmp_path), quiet),
        lambda: train_refiner(read_refiner_recipe("configs/train/refiner.yaml"), quiet),
        lambda: score_keypoints([], [], np.zeros((0, 17, 3), np.float32), load_skeleton("coco17")),
    ]
    for begin in trainings:
        with pytest.raises(UsageError, match=r"needs faster-coco-eval: pip install 'streampose\[eval\]'"):
            begin()
    assert not list(tmp_path.iterdir())


def test_a_published_checkpoint_is_a_start_and_is_looked_for_in_the_datas_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of several classes, as `models fetch` leaves it; the training begins with what it says of people."""
    silence_ultralytics()
    from ultralytics.nn.tasks import DetectionModel

    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path))
    torch.manual_seed(5)
    model = DetectionModel("yolov8n.yaml", nc=80, verbose=False)
    model.names = {number: "person" if number == 3 else f"thing {number}" for number in range(80)}
    file = fetched_folder() / "published.pt"
    file.parent.mkdir()
    torch.save({"model": model, "ema": None, "train_args": {}}, file)
    save(describe_checkpoint(file, trust=True), file.with_suffix(".yaml"))
    architecture = {"builder": "ultralytics", "config": "yolov8n.yaml", "tower_classes": 80}
    data = {"root": str(file.parent), "sets": ["set"]}
    network = start_network(recipe(tmp_path, init="published.pt", data=data, architecture=architecture))
    wanted = load_checkpoint(file, trust=True).model.state_dict()
    got = network.model.state_dict()
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    elsewhere = tmp_path / "elsewhere.pt"
    elsewhere.write_bytes(file.read_bytes())
    unknown = recipe(tmp_path, init=str(elsewhere), data=data, architecture=architecture)
    with pytest.raises(ModelError, match=r"elsewhere\.pt: is a pickle.*or --trust"):
        start_network(unknown)
    trusted = start_network(unknown.model_copy(update={"trust": True})).model.state_dict()
    assert all(torch.equal(trusted[name], wanted[name]) for name in wanted)
    with pytest.raises(ModelError, match=r"published\.pt: model\.22\.cv3\.0\.0\.conv\.weight is"):
        start_network(recipe(tmp_path, init="published.pt", data=data))


def test_the_start_looks_only_at_pictures_that_are_new(tmp_path: Path) -> None:
    """A run that goes on with one more set learns from whole labels there too, and from the same as before elsewhere."""
    make_set(tmp_path / "one", pictures=2)
    make_set(tmp_path / "two", pictures=4)  # the first two are those of "one"
    write_weights(start_network(recipe(tmp_path)).model.state_dict(), tmp_path / "start.safetensors")
    said: list[str] = []

    def read(*sets: str, init: str = "start.safetensors") -> None:
        names = {"guess_sources": ["train2017", "one", "val2017"], "weights": {"val2017": 2.0, "two": 0.5}}
        data = {"root": str(tmp_path), "sets": list(sets), "held_out": 0, **names}
        said.clear()
        read_pictures(recipe(tmp_path, init=init, data=data), said.append)

    (tmp_path / "run").mkdir()
    read("one")
    (kept,) = (tmp_path / "run").iterdir()
    assert said[0] == "no picture is of one, train2017, two, which `weights` or `guess_sources` of the recipe names"
    assert said[2] == "the start looks at 2 pictures whose labels may be incomplete"
    before = dict(np.load(kept))
    read("one", "two")
    assert said[2] == "the start looks at 2 pictures whose labels may be incomplete"
    after = dict(np.load(kept))
    assert len(after) == 4
    assert all(np.array_equal(after[key], rows) for key, rows in before.items())
    read("two")
    assert said[1:] == ["4 pictures to train on, 0 held out, 0 of unseen cameras"]
    write_weights(start_network(recipe(tmp_path, seed=9)).model.state_dict(), tmp_path / "other.safetensors")
    read("two", init="other.safetensors")  # another start has guesses of its own
    assert said[2] == "the start looks at 4 pictures whose labels may be incomplete"
    assert len(list((tmp_path / "run").glob("guesses-*.npz"))) == 2
    kept.write_bytes(kept.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"guesses-\w+\.npz: damaged .*; without it the start looks once more"):
        read("one")


@pytest.mark.parametrize(
    ("start", "name"),
    [("mine.safetensors", "mine"), ("mine.pt", "mine"), ("last.safetensors", "mine"), ("first.safetensors", "first")],
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_start_in_the_runs_own_folder_is_not_written_over(
    tmp_path: Path, start: str, name: str, resume: bool
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / start).write_bytes(b"weights")
    (run / start).with_suffix(".yaml").write_text("its manifest")
    if resume:
        plan = recipe(tmp_path, name=name, init=f"run/{start}").model_dump(mode="json")
        kept: dict[str, Any] = {"network": {}, "average": {}, "optimiser": {}, "step": 1, "best": 0.0, "bf16": False}
        torch.save(kept | {"recipe": plan}, run / "last.pt")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(SinkError, match=r"this is what is read, and would be lost") as raised:
        train_detector(recipe(tmp_path, name=name, init=f"run/{start}"), resume=resume, say=quiet, progress=quiet)
    assert str(run / start) in str(raised.value) or str(run / f"{name}.yaml") in str(raised.value)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_the_result_of_a_run_without_its_checkpoint_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tiny.safetensors").write_bytes(b"a finished run")
    with pytest.raises(UsageError, match=r"run holds the tiny\.safetensors of a run; move it away, or name another"):
        train_detector(recipe(tmp_path), resume=False, say=quiet, progress=quiet)


def test_what_cannot_be_trained_is_one_line(tmp_path: Path) -> None:
    make_set(tmp_path / "set", pictures=2)
    nothing = {"root": str(tmp_path), "sets": ["set"], "held_out": 2, "held_out_share": 1.0}
    with pytest.raises(DataError, match="nothing is left to train on"):
        train_detector(recipe(tmp_path, data=nothing), resume=False, say=quiet, progress=quiet)
    open_data = {"root": str(tmp_path), "sets": ["set"], "held_out": 1}
    with pytest.raises(DataError, match="no checkpoint to resume"):
        train_detector(recipe(tmp_path, data=open_data), resume=True, say=quiet, progress=quiet)
    missing = recipe(tmp_path, data=open_data, init=str(tmp_path / "none.safetensors"))
    with pytest.raises(ModelError, match="no such weights file"):
        train_detector(missing, resume=False, say=quiet, progress=quiet)
    state = tmp_path / "run" / "last.pt"
    torch.save({"step": 1, "network": torch.zeros(1000)}, state)
    state.write_bytes(state.read_bytes()[:2000])
    with pytest.raises(UsageError, match="holds a run already"):
        train_detector(recipe(tmp_path, data=open_data), resume=False, say=quiet, progress=quiet)
    with pytest.raises(DataError, match="not a whole checkpoint"):
        train_detector(recipe(tmp_path, data=open_data), resume=True, say=quiet, progress=quiet)
    whole = {"network": {}, "average": {}, "optimiser": {}, "step": 1, "best": 0.0, "bf16": False}
    others = [
        (whole, DataError, "no good `recipe`"),
        (whole | {"recipe": {"batch": 99}}, UsageError, "another `batch`"),
        (whole | {"recipe": {}}, DataError, "does not fit this recipe's network"),
    ]
    for content, kind, message in others:
        torch.save(content, state)
        with pytest.raises(kind, match=message):
            train_detector(recipe(tmp_path, data=open_data), resume=True, say=quiet, progress=quiet)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "not a recipe"),
        ("{name: a, out: b, steps: 1}", "data: missing; it must be given"),
        ("{name: a, out: b, steps: 0, data: {sets: [x]}}", r"steps: input should be greater than 0 \(given: 0\)"),
        ("{name: a, out: b, steps: 1, data: {sets: [x]}, leraning_rate: 1}", "leraning_rate: unknown key"),
        (
            "{name: a, out: b, steps: 1, data: {sets: [x]}, architecture: {builder: ultralytics, config: rtdetr-l.yaml}}",
            r"architecture\.config: an RT-DETR has another loss",
        ),
        (
            "{name: a, out: b, steps: 1, data: {sets: [x]}, canvases: [[100, 96]]}",
            "100x96 is not made of multiples of 32",
        ),
        (
            "{name: my/cams, out: b, steps: 1, data: {sets: [x]}}",
            "name: a plain file name without its ending is wanted",
        ),
        ("{name: .., out: b, steps: 1, data: {sets: [x]}}", "name: a plain file name without its ending is wanted"),
        ("{name: Last, out: b, steps: 1, data: {sets: [x]}}", "name: the run keeps its last weights under that name"),
        (f"{FINE}, canvases: []}}", "canvases: empty; at least one is wanted"),
        (f"{FINE}, canvases: [[0, 32]]}}", r"canvases\.0\.0: input should be greater than 0"),
        (f"{FINE}, seed: -1}}", "seed: input should be greater than or equal to 0"),
        (f"{FINE}, threads: -1}}", "threads: input should be greater than or equal to 0"),
        (f"{FINE}, augment: {{scale: [0, 1]}}}}", r"augment\.scale\.0: input should be greater than 0"),
        (
            f"{FINE}, augment: {{mosaic_scale: [2, 1]}}}}",
            r"augment\.mosaic_scale: from the least to the most is wanted",
        ),
        (
            "{name: a, out: b, steps: 1, data: {sets: [x], weights: {a: -1}}}",
            r"data\.weights\.a: input should be greater",
        ),
    ],
)
def test_recipes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_recipe(path)


def test_the_shipped_recipes_read() -> None:
    folder = Path(__file__).parents[2] / "configs" / "train"
    with pytest.raises(UsageError, match="teacher_share: the teacher is the start; name one by --init"):
        train_detector(read_recipe(folder / "detector_taught.yaml"), resume=False, say=quiet, progress=quiet)
    plan = read_recipe(folder / "detector.yaml")
    assert plan.file == "detector.yaml"
    assert "file" not in plan.model_dump()
    assert plan.architecture["tower_classes"] == 80
    with pytest.raises(ConfigError, match="no such recipe"):
        read_recipe("nowhere.yaml")
