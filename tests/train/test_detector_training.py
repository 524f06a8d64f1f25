"""A detector's training: it learns, resumes to the very step, and keeps the weights it should."""

from __future__ import annotations

import json
import multiprocessing
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from streampose.detect.network import build
from streampose.errors import DataError, UsageError
from streampose.models.manifest import load
from streampose.train.detector import DetectorTraining, read_pictures, start_network, train_detector
from streampose.train.detector_batches import Batches, Pictures
from streampose.train.detector_data import read_set
from streampose.train.precision import Arithmetic, arithmetics, choose_arithmetic, fastest
from streampose.train.run_folder import RunFolder
from streampose.train.weights_file import write_weights
from tests.made_models import seeded_pose_network
from tests.train.small_detector import Killed, kill_at, make_set, quiet, recipe


@pytest.mark.slow
def test_it_learns_what_it_is_shown(tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    losses: list[float] = []
    plan = recipe(tmp_path, steps=25, lr=2e-3, file="tiny.yaml")
    training = train_detector(
        plan, resume=False, say=quiet, progress=lambda _, parts: losses.append(sum(parts.values()))
    )
    assert len(losses) == 25
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    manifest, weights = load(tmp_path / "run" / "tiny.yaml")
    assert {tensor.dtype for tensor in load_file(str(weights)).values()} == {torch.float16, torch.int64}
    assert manifest.training["pictures"] in (0, 50)  # of the best: the start or the end
    assert set(manifest.measured) >= {"command", "held_out_ap50_all", "held_out_ap50_64"}
    assert manifest.measured["parameters_m"] == 3.01
    assert manifest.measured["command"] == "streampose train detector tiny.yaml"
    with torch.inference_mode():
        assert build(manifest, weights)(torch.zeros(1, 3, 96, 96)).shape == (1, 5, 189)
    assert training.step == 25
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000


def test_without_pictures_held_out_no_figures_are_said(tmp_path: Path) -> None:
    make_set(tmp_path / "set", pictures=2)
    said: list[str] = []
    data = {"root": str(tmp_path), "sets": ["set"], "held_out": 0}
    train_detector(recipe(tmp_path, steps=1, data=data), resume=False, say=said.append, progress=quiet)
    assert "step 1: nothing is held out to measure on" in said
    assert said[-1].startswith("done: nothing held out, the last weights in ")
    assert load(tmp_path / "run" / "tiny.yaml")[0].training["step"] == 1


@pytest.mark.slow
def test_where_nobody_is_held_out_the_last_weights_are_kept(tmp_path: Path) -> None:
    """Pictures of nobody often come last, and so with the ids that are held out."""
    make_set(tmp_path / "set", pictures=4)
    file = tmp_path / "set" / "annotations.json"
    content = json.loads(file.read_text())
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] < 2]
    file.write_text(json.dumps(content))
    said: list[str] = []
    train_detector(recipe(tmp_path, steps=1), resume=False, say=said.append, progress=quiet)
    assert any(line.startswith("nobody is in the pictures held out") for line in said)
    assert load(tmp_path / "run" / "tiny.yaml")[0].training["step"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_best_weights_are_kept_unless_the_last_are_asked_for(tmp_path: Path, keep: str) -> None:
    """At such a rate nothing is found any more after a step: the start is the best, if nothing is as good as nothing."""
    make_set(tmp_path / "set")
    said: list[str] = []
    train_detector(recipe(tmp_path, steps=1, lr=10.0, keep=keep), resume=False, say=said.append, progress=quiet)
    manifest, _ = load(tmp_path / "run" / "tiny.yaml")
    assert manifest.training["step"] == (0 if keep == "best" else 1)
    assert manifest.measured["held_out_ap50_64"] is None  # nobody is that high, and NaN is no JSON
    assert said[-1].startswith(f"done: {keep} AP50 ")


@pytest.mark.slow
@pytest.mark.parametrize("taught", [False, True])
def test_a_resumed_run_is_the_unbroken_one(tmp_path: Path, taught: bool) -> None:
    make_set(tmp_path / "set")
    changes: dict[str, Any] = {}
    if taught:
        write_weights(start_network(recipe(tmp_path)).model.state_dict(), tmp_path / "start.safetensors")
        changes = {"init": "start.safetensors", "teacher_share": 0.5, "start_share": 0.5, "keep": "last"}
    plan = recipe(tmp_path, out=str(tmp_path / "whole"), **changes)
    whole = train_detector(plan, resume=False, say=quiet, progress=quiet)

    cut = recipe(tmp_path, out=str(tmp_path / "cut"), **changes)
    with pytest.raises(Killed):
        train_detector(cut, resume=False, say=quiet, progress=kill_at(3))
    seen: list[int] = []
    for name, value in (("start_share", 0.1), ("teacher_share", 0.1), ("guess_sure", 0.9), ("guess_sources", ["a"])):
        data = cut.data.model_copy(update={name: value})
        other = cut.model_copy(update={"data": data} if "guess" in name else {name: value})
        with pytest.raises(UsageError, match=f"was made with another `{name}`"):
            train_detector(other, resume=True, say=quiet, progress=quiet)
    if taught:
        write_weights(start_network(recipe(tmp_path, seed=9)).model.state_dict(), tmp_path / "other.safetensors")
        with pytest.raises(UsageError, match=r"was made with another start \(start\.safetensors\)"):
            train_detector(cut.model_copy(update={"init": "other.safetensors"}), resume=True, say=quiet, progress=quiet)
    cut = cut.model_copy(update={"init": None})  # as --resume without --init has it
    resumed = train_detector(cut, resume=True, say=quiet, progress=lambda step, _: seen.append(step))
    assert seen == [3, 4]
    pairs = [(each.network, each.average.network, each.result()) for each in (whole, resumed)]
    for one, again in zip(*pairs, strict=True):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), name
    rows = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 4, 4]
    assert ("lesson" in rows[1]) == taught


def losses(run: Path) -> list[dict[str, float]]:
    """What `metrics.jsonl` has of the losses, without how fast that was."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if name != "pictures_per_s"} for row in rows if "box" in row]


@pytest.mark.slow
@pytest.mark.parametrize("often", [{"checkpoint_every": 3}, {"evaluate_every": 3}, {"checkpoint_s": 1e-9}])
def test_a_resumed_run_writes_the_curve_of_the_unbroken_one(tmp_path: Path, often: dict[str, Any]) -> None:
    """Between two lines of the metrics, too; saved by steps, with what is measured, or by the clock."""
    make_set(tmp_path / "set")
    rare: dict[str, Any] = {"checkpoint_every": 100, "canvases": [[32, 32]], "size": 32, "steps": 5}
    whole = recipe(tmp_path, out=str(tmp_path / "whole"), **rare)
    train_detector(whole, resume=False, say=quiet, progress=quiet)
    cut = recipe(tmp_path, out=str(tmp_path / "cut"), **rare | often)
    with pytest.raises(Killed):
        train_detector(cut, resume=False, say=quiet, progress=kill_at(4))
    seen: list[int] = []
    train_detector(cut, resume=True, say=quiet, progress=lambda step, _: seen.append(step))
    assert seen == [4, 5]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_a_run_killed_at_its_first_step_goes_on_though_its_worker_lives_on(tmp_path: Path) -> None:
    """The exception that is kept keeps the worker, as a kill -9 leaves it for seconds; it held the folder's lock."""
    make_set(tmp_path / "set")
    plan = recipe(tmp_path, workers=1, steps=2, checkpoint_every=100, canvases=[[32, 32]], size=32)
    with pytest.raises(Killed) as kept:
        train_detector(plan, resume=False, say=quiet, progress=kill_at(1))
    assert multiprocessing.active_children()
    seen: list[int] = []
    train_detector(plan, resume=True, say=quiet, progress=lambda step, _: seen.append(step))
    assert seen == [1, 2]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 2, 2]
    del kept


def test_a_run_killed_in_its_first_measurement_goes_on(tmp_path: Path) -> None:
    """The weights of step 0 alone would keep the next run out; the line of step 0 stays one."""
    make_set(tmp_path / "set")
    plan = recipe(tmp_path, steps=1, canvases=[[32, 32]], size=32)

    def kill(line: str) -> None:
        if line.startswith("step 0"):
            raise Killed

    for resume in (False, True):
        with pytest.raises(Killed):
            train_detector(plan, resume=resume, say=kill, progress=quiet)
    training = DetectorTraining(plan, read_pictures(plan, quiet), RunFolder(tmp_path / "run"), quiet)
    training.load_state(training.folder.load())
    training.evaluate()  # up to the line and the weights, without the checkpoint
    assert (tmp_path / "run" / "tiny.safetensors").exists()
    training.folder.__exit__()
    train_detector(plan, resume=True, say=quiet, progress=quiet)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 1]


def test_of_the_unseen_cameras_so_many_pictures_are_measured_as_the_recipe_says(tmp_path: Path) -> None:
    """Of six, 0, 2, 3 and 5 are four evenly spread; people are in the two others only, so that nobody is measured."""
    make_set(tmp_path / "set")
    plan = recipe(tmp_path, evaluate_unseen=4, canvases=[[32, 32]], size=32)
    pictures = read_set(tmp_path / "set")
    unseen = [replace(each, boxes=each.boxes[:0]) if each.image.id in (0, 2, 3, 5) else each for each in pictures]
    for count, nobody in ((4, True), (5, False)):
        changed = plan.model_copy(update={"evaluate_unseen": count, "out": str(tmp_path / f"run{count}")})
        folder = RunFolder(changed.out)
        DetectorTraining(changed, Pictures(pictures, [], unseen), folder, quiet).evaluate()
        (line,) = folder.read_metrics()
        assert (line["unseen_ap50_all"] is None) is nobody


def test_a_gradient_that_is_no_number_ends_the_run_before_it_reaches_the_weights(tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    plan = recipe(tmp_path, canvases=[[32, 32]])
    training = DetectorTraining(plan, read_pictures(plan, quiet), RunFolder(tmp_path / "run"), quiet)
    next(iter(training.network.parameters())).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DataError, match=r"^step 0: the gradient is (inf|nan); lower lr, or look at the labels$"):
        training.train_step(Batches(training.pictures.training, plan, 0)[0])
    assert all(tensor.isfinite().all() for tensor in training.network.state_dict().values())


@pytest.mark.slow
def test_a_run_resumed_with_fewer_steps_than_it_has_ends_as_it_is(tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    whole = train_detector(recipe(tmp_path, steps=2), resume=False, say=quiet, progress=quiet)
    again = train_detector(recipe(tmp_path, steps=1, weight_decay=0.3), resume=True, say=quiet, progress=quiet)
    assert again.step == whole.step == 2
    assert [group["weight_decay"] for group in again.optimiser.param_groups] == [0.3, 0.0]


@pytest.mark.slow
def test_a_run_that_goes_on_with_other_pictures_held_out_keeps_the_best_of_these(tmp_path: Path) -> None:
    """Neither the step of a run that held out nothing, nor a figure of other pictures, is one to compare with."""
    make_set(tmp_path / "set")

    def train(steps: int, held_out: int) -> DetectorTraining:
        data = {"root": str(tmp_path), "sets": ["set"], "held_out": held_out, "held_out_share": 0.5}
        plan = recipe(tmp_path, steps=steps, data=data)
        return train_detector(plan, resume=steps > 1, say=quiet, progress=quiet)

    assert train(1, held_out=0).best == -1.0
    assert 0 <= train(2, held_out=2).best <= 1
    manifest, _ = load(tmp_path / "run" / "tiny.yaml")
    assert manifest.measured["held_out_ap50_all"] is not None
    with RunFolder(tmp_path / "run") as folder:
        state = folder.load()
        folder.save(state | {"best": 0.9})
    assert train(2, held_out=2).best == 0.9
    old = {name: value for name, value in state.items() if name != "measured"}  # of a run begun before that was kept
    for best, stays in ((0.9, True), (2.0, False)):
        with RunFolder(tmp_path / "run") as folder:
            folder.save(old | {"best": best})
        assert (train(2, held_out=2).best == best) is stays
    with RunFolder(tmp_path / "run") as folder:
        folder.save(state | {"best": 0.9})
    assert train(2, held_out=3).best < 0.9


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_while_samples_are_made_is_its_own_line(tmp_path: Path, workers: int) -> None:
    make_set(tmp_path / "set")
    plan = recipe(tmp_path, workers=workers)
    pictures = read_pictures(plan, quiet)
    broken = [replace(picture, encoded=b"none") for picture in pictures.training]
    training = DetectorTraining(plan, Pictures(broken, [], []), RunFolder(tmp_path / "run"), quiet)
    with pytest.raises(DataError, match=r"^\S+set: image \d: \d\.png does not decode as a picture$"):
        training.run(quiet)


@pytest.mark.slow
def test_timing_the_arithmetic_teaches_nothing(tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    plan = recipe(tmp_path, steps=1, precision="auto", freeze_batch_norm=False)
    training = DetectorTraining(plan, read_pictures(plan, quiet), RunFolder(tmp_path / "run"), quiet)
    before = {name: tensor.clone() for name, tensor in training.network.state_dict().items()}
    training.choose_precision()
    assert all(torch.equal(before[name], tensor) for name, tensor in training.network.state_dict().items())
    network = seeded_pose_network("litehrnet_tiny").train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    choose_arithmetic(network, (2, 3, 64, 64), torch.device("cpu"), arithmetics("fp32", "auto"), quiet)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_slow_arithmetic_is_timed_for_a_few_pictures_only() -> None:
    """Seconds a picture as once measured on a CPU that emulates bf16, where a batch of 32 took a minute."""
    costs = {"fp32, channels last": 0.19, "fp32, channels first": 0.21, "bf16, channels last": 1.0}
    costs["bf16, channels first"] = 1.9
    timed: dict[str, list[int]] = {name: [] for name in costs}
    said: list[str] = []

    def seconds(candidate: Arithmetic, count: int) -> float:
        timed[str(candidate)].append(count)
        return costs[str(candidate)] * count

    def choose(device: str) -> Arithmetic:
        return fastest(arithmetics("auto", "auto"), seconds, 32, torch.device(device), said.append)

    assert str(choose("cpu")) == "fp32, channels last"
    assert timed["bf16, channels last"] == timed["bf16, channels first"] == [2]
    assert timed["fp32, channels first"].count(32) == 3
    assert said[0].startswith("timing 4 arithmetics on cpu: fp32, channels last; ")
    assert said[1].endswith(
        ": fp32, channels last: 190.0 ms; fp32, channels first: 210.0 ms; bf16, channels last: 1000.0 ms (2 at once); "
        "bf16, channels first: 1900.0 ms (2 at once)"
    )
    costs["bf16, channels last"] = 0.1
    assert str(choose("cpu")) == "bf16, channels last"
    assert str(choose("cuda")) == "bf16, channels last"


@pytest.mark.slow
def test_the_result_lies_between_the_start_and_the_average(tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    plan = recipe(tmp_path, start_share=0.25, steps=2)
    training = train_detector(plan, resume=False, say=quiet, progress=quiet)
    name = "model.model.0.conv.weight"
    start = start_network(plan).state_dict()[name]
    average = training.average.network.state_dict()[name]
    assert not torch.equal(start, average)
    torch.testing.assert_close(training.result().state_dict()[name], 0.25 * start + 0.75 * average)
