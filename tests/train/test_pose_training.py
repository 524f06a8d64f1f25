"""The whole training on a generated set: it learns, resumes to the very step, and refuses checkpoints that are none."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from streampose.errors import ConfigError, DataError, ModelError, SinkError, UsageError
from streampose.models.load import load_pose
from streampose.models.manifest import load
from streampose.pose.network import build_pose_network
from streampose.pose.skeleton import FOLDER
from streampose.train.pose import PoseTraining, sample_index
from streampose.train.pose_config import PoseRecipe, read_recipe
from streampose.train.pose_export import export_pose, training_summary
from streampose.train.run_folder import RunFolder
from tests.train.small_recipe import quiet, recipe_for
from tests.train.stick_people import stick_set, write_annotations


@pytest.mark.slow
def test_it_learns_a_small_set_by_heart(tmp_path: Path) -> None:
    stick_set(tmp_path / "set", 8)
    recipe = recipe_for(tmp_path, samples=1600, batch=8)
    result = PoseTraining(recipe, quiet).run()
    assert result.figures["clean"].ap > 0.95
    losses = [line["loss"] for line in RunFolder(recipe.out).read_metrics() if "loss" in line]
    assert np.mean(losses[-3:]) < 0.3 * np.mean(losses[:3])
    assert (recipe.out / "curves.png").stat().st_size > 5000

    exported = export_pose(
        recipe,
        result.best,
        tmp_path / "w" / "sticks.safetensors",
        licence="MIT",
        training=training_summary(recipe, result.best),
    )
    manifest, weights = load(tmp_path / "w" / "sticks.yaml")
    assert manifest == exported
    assert weights.name == "sticks.safetensors"
    assert manifest.training["crops_seen"] == 1600
    assert manifest.output.skeleton == "limbs6"
    network = build_pose_network(manifest.architecture)
    assert manifest.measured["parameters_m"] * 1e6 == pytest.approx(
        sum(p.numel() for p in network.parameters()), rel=0.01
    )
    assert manifest.measured["gmacs"] > 0
    assert manifest.output.shift is None

    # A skeleton of one's own travels with the weights.
    own = tmp_path / "mine" / "limbs.yaml"
    own.parent.mkdir()
    own.write_bytes((FOLDER / "limbs6.yaml").read_bytes())
    export_pose(
        recipe.model_copy(update={"skeleton": str(own)}), result.best, tmp_path / "o" / "own.safetensors", licence="MIT"
    )
    own.unlink()
    (tmp_path / "o").rename(tmp_path / "moved")
    assert load(tmp_path / "moved" / "own.yaml")[0].output.skeleton == "own.skeleton.yaml"
    assert load_pose(tmp_path / "moved" / "own.yaml", runtime="torch").skeleton.keypoints

    # The same pictures thrice, labelled by people whose custom it is to put joints five pixels lower.
    content = json.loads((tmp_path / "set" / "annotations.json").read_text())
    for image, annotation in zip(content["images"][:8], content["annotations"][:8], strict=True):
        for number in (image["id"] + 8, image["id"] + 16):
            shutil.copy(tmp_path / "set" / image["file_name"], tmp_path / "set" / f"{number}.png")
            content["images"].append(image | {"id": number, "file_name": f"{number}.png"})
            again = annotation | {"id": number, "image_id": number, "keypoints": list(annotation["keypoints"])}
            content["annotations"].append(again)
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        image["source"] = "others"
        annotation["keypoints"][1::3] = [y + 5 for y in annotation["keypoints"][1::3]]
    write_annotations(tmp_path / "set", content)
    target = tmp_path / "w" / "aligned.safetensors"
    said: list[str] = []
    shift = export_pose(recipe, result.best, target, licence="MIT", align=["others"], say=said.append).output.shift
    assert re.fullmatch(
        r"moved, in pixels of the 64x64 crop to the right and down: (\w+ \S+ \S+, ){5}\w+ \S+ \S+; other joints stay",
        said[0],
    )
    assert shift is not None
    assert len(shift) == 6
    crop_px = 64 / (1.25 * np.median([max(a["bbox"][2:]) for a in content["annotations"]]))
    assert np.abs(np.array(shift) - (0, 5 * crop_px)).max() < 1.0
    with pytest.raises(ConfigError, match="align: no picture is of moon; the sets have others"):
        export_pose(recipe, result.best, target, licence="MIT", align=["others", "moon"])


SCRIPT = """
import sys
import torch
torch.set_num_threads(1)
from streampose.train.pose_config import read_recipe
from streampose.train.pose import PoseTraining
PoseTraining(read_recipe(sys.argv[1]), print).run()
"""


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_curve(tmp_path: Path) -> None:
    """What is killed is a process of its own; the unbroken training and the resumed one need none."""
    stick_set(tmp_path / "set", 10)
    curves = {}
    for name in ("whole", "killed"):
        changes = {
            "out": str(tmp_path / name),
            "data": [str(tmp_path / "set")],
            "samples": 320,
            "batch": 8,
            "checkpoint_s": 0.2,
        }
        recipe = recipe_for(tmp_path).model_dump(mode="json") | changes
        recipe["augment"] |= {"camera": 0.7, "colour": 0.5, "occlude": 0.3, "rotate": 0.5}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        metrics = tmp_path / name / "metrics.jsonl"
        if name == "killed":
            command = [sys.executable, "-c", SCRIPT, str(tmp_path / f"{name}.yaml")]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            deadline = time.monotonic() + 120
            while not (metrics.is_file() and metrics.read_text().count("\n") >= 2):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert not any(line.get("step") == 40 for line in RunFolder(tmp_path / name).read_metrics())
            with metrics.open("a") as file:
                file.write('{"step": 39, "lo')  # what a kill in the middle of a write leaves
        PoseTraining(read_recipe(tmp_path / f"{name}.yaml"), quiet, resume=name == "killed").run()
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        curves[name] = [(line["step"], line["loss"], line["lr"]) for line in lines if "loss" in line]
    assert [step for step, _, _ in curves["whole"]] == list(range(10, 41, 10))
    assert curves["killed"] == curves["whole"]


def test_fine_tuning_from_weights_of_other_joints_says_so(tmp_path: Path) -> None:
    stick_set(tmp_path / "set", 4)
    torch.save(build_pose_network({"network": "litehrnet_tiny", "joints": 17}).state_dict(), tmp_path / "coco.pth")
    said: list[str] = []
    changes = {"init": tmp_path / "coco.pth", "samples": 16, "batch": 4, "freeze_norms": True, "measure_samples": 8}
    recipe = recipe_for(tmp_path, **changes, lr=1e-12)
    result = PoseTraining(recipe, said.append).run()
    assert [line["mean_ap"] for line in RunFolder(recipe.out).read_metrics() if "mean_ap" in line] == [0, 0, 0]
    assert torch.load(result.best, weights_only=True)["step"] == 4  # the random head of step 0 is none to keep
    assert any("17 joints, 6 are wanted" in line for line in said)
    assert any("ms" in line and "fp32" in line for line in said)
    assert result.steps == 4

    slower = recipe.model_copy(update={"weight_decay": 0.3})
    again = PoseTraining(slower, said.append, resume=True)
    assert [group["weight_decay"] for group in again.optimizer.param_groups] == [0.3, 0.0]
    again.folder.__exit__()

    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(UsageError, match="holds a run already; go on with --resume, or name another `out`"):
        PoseTraining(recipe, said.append)
    (tmp_path / "run" / "last.pt").unlink()
    with pytest.raises(UsageError, match=r"holds the best\.pt of a run; move it away, or name another `out`"):
        PoseTraining(recipe, said.append)
    del before["last.pt"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_teacher_of_other_joints_is_refused(tmp_path: Path) -> None:
    torch.save(build_pose_network({"network": "litehrnet_tiny", "joints": 17}).state_dict(), tmp_path / "coco.pth")
    with pytest.raises(ModelError, match=r"coco\.pth: has 17 joints, 6 are wanted$"):
        PoseTraining(recipe_for(tmp_path, teacher=tmp_path / "coco.pth"), quiet)


def test_resuming_nothing_or_something_else_is_one_line(tmp_path: Path) -> None:
    stick_set(tmp_path / "set", 4)
    with pytest.raises(DataError, match="no checkpoint to resume from"):
        PoseTraining(recipe_for(tmp_path), quiet, resume=True)
    (tmp_path / "run" / "last.pt").write_bytes(b"PK\x03\x04cut short")
    with pytest.raises(DataError, match="not a whole checkpoint"):
        PoseTraining(recipe_for(tmp_path), quiet, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot make the run's folder"):
        RunFolder(tmp_path / "file" / "run")


def junk(name: str) -> Any:
    """What may lie under the name last.pt, and the one line it gives."""
    good: dict[str, Any] = {
        "network_name": "litehrnet_tiny", "student": {}, "average": {}, "optimizer": {}, "step": 3, "best": 0.5,
        "precision": "fp32", "channels_last": False,
    }  # fmt: skip
    return {
        "text": (b"not a checkpoint\n", "not a whole checkpoint"),
        "a pickle that runs code": (pickle.dumps(RunFolder), "not a whole checkpoint"),
        "half a zip": (b"PK\x03\x04cut short", "not a whole checkpoint"),
        "nothing": (b"", "not a whole checkpoint"),
        "a list": ([1, 2], "no good `step`"),
        "weights alone": ({"network": {}, "step": 5}, "no good `network_name`"),
        "a step that is a word": (good | {"step": "3"}, "no good `step`"),
        "another preset": (good | {"network_name": "hrnet_tiny"}, "was made with another `network`"),
        "another batch": (good | {"recipe": {"batch": 7}}, "was made with another `batch`"),
        "no weights in it": (good, "does not fit this recipe's network"),
        "weights of another shape": (good | {"student": {"a": torch.zeros(2)}}, "does not fit this recipe's network"),
    }[name]


@pytest.mark.parametrize(
    "name",
    ["text", "a pickle that runs code", "half a zip", "nothing", "a list", "weights alone", "a step that is a word",
     "another preset", "another batch", "no weights in it", "weights of another shape"],
)  # fmt: skip
def test_a_checkpoint_that_is_none_is_one_line_and_costs_no_metrics(tmp_path: Path, name: str) -> None:
    content, message = junk(name)
    with RunFolder(tmp_path / "run") as folder:
        folder.log(step=9, loss=1.0)
    if isinstance(content, bytes):
        folder.last.write_bytes(content)
    else:
        torch.save(content, folder.last)
    with pytest.raises((DataError, UsageError), match=message) as caught:
        PoseTraining(recipe_for(tmp_path), quiet, resume=True)
    assert len(str(caught.value).splitlines()) == 1
    assert str(folder.last) in str(caught.value)
    assert folder.read_metrics() == [{"step": 9, "loss": 1.0}]


def test_a_checkpoint_of_other_joints_is_one_line(tmp_path: Path) -> None:
    """The right names and the wrong head, as after a change of the skeleton's file."""
    stick_set(tmp_path / "set", 2)
    training = PoseTraining(recipe_for(tmp_path, samples=16), quiet)
    other = build_pose_network({"network": "litehrnet_tiny", "joints": 17})
    state = {
        "network_name": "litehrnet_tiny", "student": other.state_dict(), "step": 1, "best": 0.0, "precision": "fp32",
        "average": {"network": other.state_dict(), "updates": 1}, "optimizer": training.optimizer.state_dict(),
        "channels_last": False,
    }  # fmt: skip
    with training.folder as folder:
        folder.save(state)
    with pytest.raises(DataError, match=r"does not fit this recipe's network .*size mismatch"):
        PoseTraining(recipe_for(tmp_path), quiet, resume=True)


def test_metrics_that_are_none_are_one_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics_file.write_text('{"step": 1}\n[3]\n')
    with pytest.raises(DataError, match="not a training's metrics"):
        folder.read_metrics()
    folder.metrics_file.write_text('{"step": 1}\n{"step": 2, "lo')
    assert folder.read_metrics() == [{"step": 1}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save({"step": 1})
    for name, numbers, stays in (("last.pt", 1, "; the one before stays"), ("best.pt", 10**5, "")):
        (tmp_path / f"{name}.part").symlink_to("/dev/full")
        with pytest.raises(SinkError) as caught:
            folder.save({"step": 2, "network": torch.zeros(numbers)}, name)
        reason = f"cannot write the checkpoint (No space left on device){stays}"
        assert str(caught.value) == f"{tmp_path / name}: {reason}"
    assert folder.load() == {"step": 1}
    assert not list(tmp_path.glob("*.part"))


def test_metrics_and_curves_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.log(step=1, loss=1.0, score=0.5)
    (tmp_path / "run" / "curves.part.png").mkdir()
    with pytest.raises(SinkError, match=r"curves\.png: cannot be written \(Is a directory\)"):
        folder.plot(("loss",), ("score",), "title")
    folder.metrics_file = Path("/dev/full")
    if folder.metrics_file.exists():
        with pytest.raises(SinkError, match=r"/dev/full: cannot be written \(No space left on device\)"):
            folder.log(step=2)


def test_a_figure_of_nobody_is_null_and_is_not_drawn(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics_file.write_text('{"step": 1, "score": NaN}\n')  # as it was written once
    folder.log(step=2, loss=1.0, score=float("nan"))
    folder.log(step=3, loss=float("inf"), score=0.5)
    with folder.restoring(3):
        assert len(folder.read_metrics()) == 3
    lines = folder.metrics_file.read_text().splitlines()
    assert lines[0] == '{"step": 1, "score": null}'
    assert lines[1:] == ['{"step": 2, "loss": 1.0, "score": null}', '{"step": 3, "loss": null, "score": 0.5}']
    folder.plot(("loss",), ("score",), "title")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_two_dollars_in_a_title_are_dollars(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run$a_{$")
    folder.log(step=1, loss=0.5)
    folder.plot(("loss",), (), f"tiny, {folder.path}")
    assert (folder.path / "curves.png").stat().st_size > 1000


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_a_folder_in_which_a_training_runs_is_refused_to_another_one(tmp_path: Path) -> None:
    stick_set(tmp_path / "set", 2)
    recipe = recipe_for(tmp_path, samples=16)
    training = PoseTraining(recipe, quiet)
    for resume in (False, True):
        with pytest.raises(SinkError, match=r"run/training\.lock: is being written by another run") as caught:
            PoseTraining(recipe, quiet, resume=resume)
        assert caught.value.exit_code == 6
    training.run()
    assert PoseTraining(recipe, quiet, resume=True).step == 1  # it has ended, and is held by nobody


@contextmanager
def another_user() -> Iterator[None]:
    """Root may write everything; anybody else is another user to a file that not even its owner may write."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_a_lock_that_another_user_has_left_keeps_nobody_out_and_none_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        monkeypatch.chdir(place)
        Path("run").mkdir()
        Path("run").chmod(0o777)
        lock = Path(place, "run", "training.lock")
        with RunFolder("run"):
            lock.chmod(0o444)
            with another_user(), pytest.raises(SinkError, match=r"run/training\.lock: is being written by another run"):
                RunFolder("run")
            if (child := os.fork()) == 0:  # as a process that makes samples
                os._exit(0)
            os.waitpid(child, 0)
            assert lock.exists()
            monkeypatch.chdir("/")
        assert not lock.exists()
        lock.touch(0o444)  # of a run that was killed
        with another_user(), RunFolder(Path(place, "run")):
            assert os.access(lock, os.W_OK, effective_ids=True)
        assert not lock.exists()
        lock.touch(0)
        with another_user(), pytest.raises(SinkError, match=r"run/training\.lock: cannot be written: no permission"):
            RunFolder(Path(place, "run"))
        assert lock.exists()


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    stick_set(tmp_path / "set", 4)
    torch.save(build_pose_network({"network": "litehrnet_tiny", "joints": 6}).state_dict(), tmp_path / "start.pth")
    changes: dict[str, Any] = {"batch": 4, "freeze_norms": True, "warmup_samples": 0, "keep": "last"}
    recipe = recipe_for(tmp_path, init=tmp_path / "start.pth", samples=80, lr=1e30, measure_samples=32, **changes)
    with pytest.raises(DataError, match=r"step 8: the loss is nan; lower lr, or look at the labels"):
        PoseTraining(recipe, quiet).run()
    for name, key in (("last.pt", "student"), ("best.pt", "network")):
        state = torch.load(tmp_path / "run" / name, weights_only=True)
        assert state["step"] == 0
        assert all(tensor.isfinite().all() for tensor in state[key].values())
    again = recipe.model_copy(update={"lr": 1e-3, "samples": 16})
    assert PoseTraining(again, quiet, resume=True).run().figures


class Killed(Exception):
    """What a kill -9 leaves, at that very place."""


def test_a_run_that_was_killed_in_its_first_measurement_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stick_set(tmp_path / "set", 4)
    torch.save(build_pose_network({"network": "litehrnet_tiny", "joints": 6}).state_dict(), tmp_path / "start.pth")
    recipe = recipe_for(tmp_path, init=tmp_path / "start.pth", samples=16)

    def kill(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "plot", kill)  # after best.pt and the line of step 0, before the checkpoint
        with pytest.raises(Killed):
            PoseTraining(recipe, quiet).run()
    for _ in range(
        3
    ):  # and what has ended may be asked to go on without a line more; the start need not be named again
        PoseTraining(recipe.model_copy(update={"init": None}), quiet, resume=True).run()
        measured = [line["step"] for line in RunFolder(recipe.out).read_metrics() if "mean_ap" in line]
        assert measured == [0, 1]
    kept = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert kept["best"] >= 0
    assert kept["recipe"]["init"] == str(tmp_path / "start.pth")


def test_a_run_that_goes_on_with_other_people_measured_keeps_the_best_of_these(tmp_path: Path) -> None:
    """A best figure of others kept all later weights out; one of a run begun before this was kept counts on."""
    stick_set(tmp_path / "set", 4)
    stick_set(tmp_path / "other", 4, seed=1)
    recipe = recipe_for(tmp_path, samples=16)
    other = recipe.model_copy(update={"data": (tmp_path / "other",)})
    PoseTraining(recipe, quiet).run()

    def go_on(plan: PoseRecipe, samples: int, *, old: bool) -> tuple[float, int]:
        folder = RunFolder(plan.out)
        state = {name: value for name, value in folder.load().items() if not (old and name == "measured")}
        folder.save(state | {"best": 0.9})
        del folder
        training = PoseTraining(plan.model_copy(update={"samples": samples}), quiet, resume=True)
        training.run()
        return training.best, torch.load(plan.out / "best.pt", weights_only=True)["step"]

    assert go_on(recipe, 32, old=False) == (0.9, 1)
    assert go_on(recipe, 48, old=True) == (0.9, 1)
    best, step = go_on(other, 48, old=False)
    assert best < 0.9
    assert step == 3


def test_every_epoch_is_a_shuffle_of_all() -> None:
    seen = torch.cat([sample_index(10, 4, step, seed=3) for step in range(10)]).tolist()
    for epoch in range(4):
        assert sorted(seen[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert seen[:10] != seen[10:20]
