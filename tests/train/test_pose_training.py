"""The whole training on a generated set: it learns, resumes to the very step, and says what is wrong with bad data."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from streampose.cli.main import app
from streampose.errors import ConfigError, DataError, ModelError, SinkError, UsageError
from streampose.models.manifest import load
from streampose.pose.network import build_pose_network
from streampose.train.pose import PoseTraining, sample_index
from streampose.train.pose_config import read_recipe
from streampose.train.pose_export import export_pose, training_summary
from streampose.train.precision import pick_device
from streampose.train.run_folder import RunFolder
from streampose.train.weights_file import write_weights
from tests.made_models import write_pose_model
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

    # The same pictures, labelled by people whose custom it is to put joints five pixels lower.
    content = json.loads((tmp_path / "set" / "annotations.json").read_text())
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        image["source"] = "others"
        annotation["keypoints"][1::3] = [y + 5 for y in annotation["keypoints"][1::3]]
    write_annotations(tmp_path / "set", content)
    target = tmp_path / "w" / "aligned.safetensors"
    shift = export_pose(recipe, result.best, target, licence="MIT", align=["others"]).output.shift
    assert shift is not None
    assert len(shift) == 6
    crop_px = 64 / (1.25 * np.median([max(a["bbox"][2:]) for a in content["annotations"]]))
    assert np.abs(np.array(shift) - (0, 5 * crop_px)).max() < 1.0
    with pytest.raises(ConfigError, match="moon: nobody to train on is from these sources"):
        export_pose(recipe, result.best, target, licence="MIT", align=["moon"])


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
    recipe = recipe_for(tmp_path, init=tmp_path / "coco.pth", samples=16, batch=4, freeze_norms=True)
    result = PoseTraining(recipe, said.append).run()
    assert any("17 joints, 6 are wanted" in line for line in said)
    assert any("ms" in line and "fp32" in line for line in said)
    assert result.steps == 4

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
    folder = RunFolder(tmp_path / "run")
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
    training.folder.save(state)
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


def test_every_epoch_is_a_shuffle_of_all() -> None:
    seen = torch.cat([sample_index(10, 4, step, seed=3) for step in range(10)]).tolist()
    for epoch in range(4):
        assert sorted(seen[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert seen[:10] != seen[10:20]


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing picture": (lambda c: c["images"][0].update(file_name="gone.png"), "gone.png is missing"),
    "nan": (lambda c: c["annotations"][0]["keypoints"].__setitem__(0, float("nan")), "annotation 1: a number is NaN"),
    "outside": (lambda c: c["annotations"][0].update(bbox=[300, 5, 20, 20]), "lies outside its 100x120 image"),
    "flat box": (lambda c: c["annotations"][0].update(bbox=[5, 5, 20, 0]), "has no width or height"),
    "joint count": (lambda c: c["annotations"][0].update(keypoints=[1, 1, 2] * 5), "5 key points, the skeleton has 6"),
    "no key points": (lambda c: c["annotations"][0].pop("keypoints"), "needs bbox"),
    "id twice": (lambda c: c["annotations"][1].update(id=1), "annotation 1: id given twice"),
    "image id twice": (lambda c: c["images"][1].update(id=1), "image 1: id given twice"),
    "no such image": (lambda c: c["annotations"][0].update(image_id=77), "no image 77"),
    "visibility": (lambda c: c["annotations"][0]["keypoints"].__setitem__(2, 5), "visibility must be 0, 1 or 2"),
    "scores": (lambda c: c["annotations"][0].update(scores=[0.5]), "scores must be 6 numbers"),
    "empty": (lambda c: (c["annotations"].clear(), c["images"].clear()), "no annotated person"),
    "not coco": (lambda c: c.pop("images"), "COCO format"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_data_is_one_line_each(tmp_path: Path, fault: str) -> None:
    change, message = FAULTS[fault]
    content = stick_set(tmp_path / "set", 3)
    change(content)
    write_annotations(tmp_path / "set", content)
    with pytest.raises(DataError, match=message) as caught:
        PoseTraining(recipe_for(tmp_path), quiet)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(str(tmp_path / "set")) for line in lines)


def test_a_picture_that_does_not_decode_and_one_of_another_size(tmp_path: Path) -> None:
    stick_set(tmp_path / "set", 3)
    (tmp_path / "set" / "2.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"2\.png does not decode"):
        PoseTraining(recipe_for(tmp_path), quiet)
    (tmp_path / "set" / "2.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2\.png does not decode"):
        PoseTraining(recipe_for(tmp_path), quiet)


def test_unlabelled_people_alone_are_refused(tmp_path: Path) -> None:
    content = stick_set(tmp_path / "set", 3)
    for annotation in content["annotations"]:
        annotation["keypoints"] = [0, 0, 0] * 6
    write_annotations(tmp_path / "set", content)
    with pytest.raises(DataError, match="no labelled person is left"):
        PoseTraining(recipe_for(tmp_path), quiet)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sampels: 3", 'sampels: unknown key; did you mean "samples"'),
        ("augment: {filp: 0}", r'augment\.filp: unknown key; did you mean "flip"'),
        ("batch: 0", "batch"),
        ("augment: {flip: 2}", r"augment\.flip"),
        ("data: [", "not a recipe"),
        ("network: 2024-99-99", "not a recipe"),
        ("data: [5]", "data.0: a text is wanted, in quotes"),
        (
            "input: {width: 190, height: 250}",
            r"input: 190x250: an HRNet's sides are multiples of 32; 192x256 is nearest",
        ),
        ("input: {width: 192, height: 256, std: [1, 0, 1]}", r"input\.std\.1: input should be greater than 0"),
    ],
)
def test_a_bad_recipe_names_the_key(tmp_path: Path, line: str, message: str) -> None:
    shipped = Path("configs/train/pose.yaml").read_text()
    assert read_recipe("configs/train/pose.yaml").network == "litehrnet18"
    key = line.split(":")[0]
    kept = re.sub(
        rf"^{key}:.*\n(?:[ ].*\n)*", "", shipped, flags=re.MULTILINE
    )  # a key and the lines that it goes on over
    (tmp_path / "bad.yaml").write_text(kept + line + "\n")
    with pytest.raises(ConfigError, match=message):
        read_recipe(tmp_path / "bad.yaml")


def test_exports_that_cannot_be_are_one_line_and_leave_what_was_there(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, teacher=tmp_path / "teacher.pth")
    best = tmp_path / "best.pt"
    network = build_pose_network({"network": "litehrnet_tiny", "joints": 6})
    torch.save({"network": network.state_dict(), "step": 2}, best)
    target = tmp_path / "w" / "a.safetensors"
    export_pose(recipe, best, target, licence="MIT")
    before = target.read_bytes()

    torch.save(build_pose_network({"network": "hrnet_tiny", "joints": 6}).state_dict(), tmp_path / "teacher.pth")
    with pytest.raises(ModelError, match=r"teacher\.pth: of another network"):
        export_pose(recipe, best, target, licence="MIT", blend=0.5)
    with pytest.raises(ConfigError, match="names none of the same input"):
        export_pose(recipe_for(tmp_path), best, target, licence="MIT", blend=0.5)
    with pytest.raises(ConfigError, match="the recipe's `init`, and it names none"):
        export_pose(recipe_for(tmp_path), best, target, licence="MIT", blend_init=0.5)
    torch.save({"network": build_pose_network({"network": "litehrnet_tiny", "joints": 5}).state_dict()}, best)
    with pytest.raises(ModelError, match="has 5 joints, 6 are wanted"):
        export_pose(recipe, best, target, licence="MIT")
    with pytest.raises(DataError, match="no good `step`"):
        training_summary(recipe, best)
    with pytest.raises(SinkError, match=r"written as \.safetensors"):
        write_weights({"a": torch.zeros(1)}, tmp_path / "a.pt")
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot write the weights"):
        write_weights({"a": torch.zeros(1)}, tmp_path / "file" / "a.safetensors")
    assert target.read_bytes() == before


def test_an_exports_licence_is_that_of_the_start_or_asked_for(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    trained = build_pose_network({"network": "litehrnet_tiny", "joints": 6})
    torch.save({"network": trained.state_dict(), "step": 1}, tmp_path / "run" / "best.pt")
    words = ["train", "pose", str(tmp_path / "recipe.yaml"), "--export", str(tmp_path / "made.safetensors")]
    for start, missing in ((None, "names no `init`"), ("tiny.safetensors", r"tiny\.yaml is missing")):
        recipe = recipe_for(tmp_path, init=start, root=tmp_path)
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
        with pytest.raises(UsageError, match=f"--licence: say which the weights have; .*{missing}"):
            CliRunner().invoke(app, words, catch_exceptions=False)
    write_pose_model(tmp_path)
    for more, licence in (([], "none: made by a test"), (["--licence", "MIT"], "MIT")):
        assert CliRunner().invoke(app, words + more, catch_exceptions=False).exit_code == 0
        assert load(tmp_path / "made.yaml")[0].licence == licence


@pytest.mark.parametrize("words", [("pose", "--samples"), ("pose", "--subset"), ("detector", "--steps")])
@pytest.mark.parametrize("number", ["-3", "0"])
def test_numbers_of_the_command_line_are_checked_as_those_of_a_recipe(words: tuple[str, str], number: str) -> None:
    verb, option = words
    done = CliRunner().invoke(app, ["train", verb, "configs/train/none.yaml", option, number])
    assert done.exit_code == 2
    assert f"Invalid value for '{option}'" in done.output


def test_blending_goes_the_said_way_back(tmp_path: Path) -> None:
    start, trained, init = (build_pose_network({"network": "litehrnet_tiny", "joints": 6}) for _ in range(3))
    torch.save(start.state_dict(), tmp_path / "teacher.pth")
    torch.save(init.state_dict(), tmp_path / "init.pth")
    torch.save({"network": trained.state_dict(), "step": 1}, tmp_path / "best.pt")
    recipe = recipe_for(tmp_path, teacher=tmp_path / "teacher.pth", init=tmp_path / "init.pth")
    for back, shares in ((0.0, (0.75, 0.0, 0.25)), (0.4, (0.45, 0.3, 0.25))):
        target = tmp_path / f"mean{back}.safetensors"
        export_pose(recipe, tmp_path / "best.pt", target, licence="MIT", blend=0.25, blend_init=back)
        got = load_file(target)
        for name, value in got.items():
            parts = zip(shares, (trained, init, start), strict=True)
            wanted = sum(share * network.state_dict()[name] for share, network in parts)
            assert torch.allclose(value.float(), wanted, atol=2e-3)
        assert set(got) == {name for name in start.state_dict() if not name.endswith("num_batches_tracked")}


def test_files_of_a_recipe_are_looked_for_in_its_root_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    recipe = recipe_for(tmp_path, root="root")
    assert recipe.found(Path("a.pth")) == Path("root/a.pth")
    (tmp_path / "a.pth").write_text("")
    assert recipe.found(Path("a.pth")) == Path("a.pth")
    (tmp_path / "root" / "a.pth").write_text("")
    assert recipe.found(Path("a.pth")) == Path("root/a.pth")


@pytest.mark.parametrize("verb", ["pose", "detector"])
def test_a_start_named_on_the_command_line_is_looked_for_here_then_in_the_datas_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """What is found is no checkpoint, and the message says which."""
    monkeypatch.chdir(tmp_path)
    stick_set(tmp_path / "data" / "set", 2)
    if verb == "pose":
        recipe = recipe_for(tmp_path, data=["set"]).model_dump(mode="json")
    else:
        recipe = {"name": "a", "out": "run", "steps": 1, "data": {"sets": ["set"]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for folder in (tmp_path / "data", tmp_path):
        (folder / "start.safetensors").write_text("none")
        with pytest.raises(ModelError) as caught:
            CliRunner().invoke(
                app,
                ["train", verb, "recipe.yaml", "--init", "start.safetensors", "--data", str(tmp_path / "data")],
                catch_exceptions=False,
            )
        assert str(caught.value).startswith(f"{folder / 'start.safetensors'}: not a ")


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "mps" if not torch.backends.mps.is_available() else "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"device: '?{name}"):
        PoseTraining(recipe_for(tmp_path, device=name), quiet)
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("path", sorted(Path("configs/train").glob("pose*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_that_come_with_it_read_and_say_one_thing(path: Path) -> None:
    recipe = read_recipe(path)
    assert f"streampose train pose configs/train/{path.name}" in path.read_text()
    assert recipe.out == Path("runs") / path.stem
    assert recipe.input.width * 4 == recipe.input.height * 3
    assert (recipe.output.stride, recipe.output.offset) == (4, 0)
    if recipe.teacher_zoom > 1:
        assert recipe.input.width * recipe.teacher_zoom == 192
    if path.stem == "pose_overfit":  # it wants a set of people and nothing else
        assert recipe.init is not None
        assert recipe.init.is_file()
        assert recipe.teacher is None
