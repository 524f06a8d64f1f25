"""`streampose eval` from the command line: real networks, figures, files, exit codes, and bad sets in one line each."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from streampose.detect.quiet import silence_ultralytics
from streampose.errors import DataError
from streampose.evaluate.dataset import open_keypoint_set
from streampose.models import manifest as manifests
from streampose.models.manifest import InputSpec, Manifest, OutputSpec
from tests.evaluate.conftest import Command
from tests.evaluate.results import found, seen, write_lines
from tests.evaluate.sets import labels, person, write_folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The manifest of a real pose network that has learnt nothing."""
    import torch
    from safetensors.torch import save_file

    from streampose.pose.network import build_pose_network

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # such small pictures lose more by waiting for threads than they win
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    architecture = {"network": "litehrnet18", "joints": 17}
    weights = folder / "untrained.safetensors"
    save_file(build_pose_network(architecture).state_dict(), str(weights))
    manifest = Manifest(
        name="untrained",
        task="pose",
        architecture=architecture,
        weights=weights.name,
        sha256=manifests.sha256_of(weights),
        input=InputSpec(width=64, height=96),
        output=OutputSpec(kind="heatmap"),
        licence="none",
    )
    manifests.save(manifest, folder / "untrained.yaml")
    yield folder / "untrained.yaml"
    torch.set_num_threads(threads)


@pytest.mark.parametrize("wish", [("--sheet", "worst.png"), ("--expect", "50"), ("--person-height", "64")])
def test_what_needs_key_points_is_refused_before_anything_runs(
    command: Command, untrained: Path, tmp_path: Path, wish: tuple[str, str]
) -> None:
    truth = labels(pictures=1)
    for entry in truth["annotations"]:
        del entry["keypoints"]
    folder = write_folder(tmp_path / "set", truth)
    asked = ["eval", "--data", folder, "--model", untrained, "--runtime", "torch", "--boxes", "detector"]
    code, told, said = command(*asked, *wish)
    assert code == 2
    assert f"{wish[0]}: nobody here has labelled key points" in said
    assert told == ""


def test_a_sheet_that_cannot_be_written_leaves_the_one_before(
    command: Command, folder: Path, untrained: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / "worst.png"
    sheet.write_bytes(b"the one before")
    (tmp_path / "worst.png.part").mkdir()
    code, _, said = command("eval", "--data", folder, "--model", untrained, "--runtime", "torch", "--sheet", sheet)
    assert code == 6
    assert "worst.png: cannot be written (Is a directory); choose another place with --sheet" in said
    assert sheet.read_bytes() == b"the one before"


@pytest.mark.parametrize("option", ["--json", "--sheet"])
def test_an_output_that_cannot_be_written_is_said_before_anything_runs(
    command: Command, folder: Path, untrained: Path, tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").write_text("")
    code, told, said = command("eval", "--data", folder, "--model", untrained, option, tmp_path / "file" / "out.png")
    assert code == 6
    assert "a part of that path is a file, not a folder" in said
    assert told == ""


def test_figures_that_cannot_be_written_have_been_shown(
    command: Command, folder: Path, untrained: Path, tmp_path: Path
) -> None:
    (tmp_path / "figures.json.part").mkdir()
    asked = ["eval", "--data", folder, "--model", untrained, "--runtime", "torch", "--json", tmp_path / "figures.json"]
    code, told, said = command(*asked)
    assert code == 6
    assert "figures.json: cannot be written (Is a directory)" in said
    assert "key points" in told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "set", labels(pictures=3))


def test_two_outputs_of_one_name_are_refused(command: Command, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "set" / ".." / "out.png"
    code, _, err = command("eval", "--data", folder, "--json", tmp_path / "out.png", "--sheet", other)
    assert code == 2
    assert "out.png are one file; name two" in err


@pytest.mark.parametrize("what", ["set", "boxes", "detector"])
def test_faults_are_said_before_a_network_is_got_ready(
    command: Command, folder: Path, untrained: Path, tmp_path: Path, what: str
) -> None:
    """The network could not be: its weights are of another one."""
    text = untrained.read_text().replace("network: litehrnet18", "network: litehrnet30")
    for file in untrained.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "untrained.yaml").write_text(text)
    words = ["eval", "--data", folder, "--model", tmp_path / "untrained.yaml", "--runtime", "torch"]
    assert command(*words)[0] == 4
    if what == "set":
        (folder / "0.png").unlink()
    other = {
        "set": [],
        "boxes": ["--boxes", tmp_path / "boxes.json"],
        "detector": ["--boxes", "detector", "--detector", "no"],
    }
    (tmp_path / "boxes.json").write_text("[{}]")
    _, _, said = command(*words, *other[what])
    assert {"set": "0.png is missing", "boxes": "boxes.json", "detector": "no: no model of this name"}[what] in said


@pytest.mark.parametrize("option", ["--json", "--sheet"])
def test_what_is_measured_is_not_written_over(command: Command, folder: Path, option: str) -> None:
    before = (folder / "annotations.json").read_bytes()
    code, _, err = command("eval", "--data", folder, option, folder / "annotations.json")
    assert code == 6
    assert "annotations.json: this is what is read" in err
    assert (folder / "annotations.json").read_bytes() == before


def test_a_part_of_a_zip_is_measured_and_the_zip_not_written_over(
    command: Command, folder: Path, untrained: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"valid/{file.name}")
    words = ["eval", "--data", tmp_path / "mine.zip" / "valid", "--model", untrained, "--runtime", "torch"]
    code, _, err = command(*words, "--json", tmp_path / "mine.zip")
    assert code == 6
    assert "mine.zip: this is what is read" in err
    code, told, _ = command(*words, "--json", tmp_path / "figures.json")
    assert code == 0, told
    assert json.loads((tmp_path / "figures.json").read_text())["settings"]["data"] == ["mine.zip/valid"]


def test_figures_files_and_exit_code(command: Command, folder: Path, untrained: Path, tmp_path: Path) -> None:
    out, sheet = tmp_path / "new" / "figures.json", tmp_path / "new" / "worst.png"
    asked = ["eval", "--data", folder, "--model", untrained, "--runtime", "torch"]
    options = ["--person-height", "48", "--flip-test", "--json", out, "--sheet", sheet, "--worst", "5"]
    code, told, _ = command(*asked, *options)
    assert code == 0, told
    figures = json.loads(out.read_text())
    assert {"AP", "AP50", "AR"} <= set(figures["keypoints"])
    assert {"AP", "AP50"} <= set(figures["boxes"])
    assert figures["settings"]["flip_test"] is True
    assert {value for name, value in figures["settings"].items() if name.startswith("detector")} == {None}
    assert set(figures["person_height"]) == {"48"}
    assert figures["pictures"] == 3
    picture = cv2.imread(str(sheet))
    assert picture is not None
    assert picture.std() > 5
    assert "labelled boxes, flip test" in told


def test_a_network_is_measured_with_its_refiner_and_without(command: Command, folder: Path, tmp_path: Path) -> None:
    told, refiners = {}, {}
    for option in ("--refiner", "--no-refiner"):
        out = tmp_path / f"{option}.json"
        code, told[option], _ = command("eval", "--data", folder, option, "--json", out, "--limit", "1")
        assert code == 0
        refiners[option] = json.loads(out.read_text())["settings"]["refiner_sha256"]
    manifest, _ = manifests.load(Path("weights/litehrnet18_256x192.yaml"))
    assert refiners == {"--refiner": manifest.sha256_refiner, "--no-refiner": None}
    assert "labelled boxes, no flip test, refined, " in told["--refiner"]
    assert "refined" not in told["--no-refiner"]


def test_a_detector_of_unknown_origin_wants_trust(
    command: Command, folder: Path, untrained: Path, tmp_path: Path
) -> None:
    import torch

    silence_ultralytics()
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel("yolov8n.yaml", nc=1, verbose=False)
    model.names = {0: "person"}
    path = tmp_path / "mine.pt"
    torch.save({"model": model.half(), "ema": None, "train_args": {}}, path)
    asked = ["eval", "--data", folder, "--model", untrained, "--runtime", "torch", "--limit", "1"]
    asked += ["--boxes", "detector", "--detector", path, "--size", "64", "--threshold", "0.9", "--device", "cpu"]
    code, _, said = command(*asked)
    assert code == 4, said
    assert "is a pickle" in said
    code, told, said = command(*asked, "--trust", "--json", tmp_path / "figures.json")
    assert code == 0, said
    assert "in 1 pictures" in told
    settings = json.loads((tmp_path / "figures.json").read_text())["settings"]
    ran = {name: settings[f"detector_{name}"] for name in ("size", "runtime", "device")}
    assert ran == {"size": 64, "runtime": "torch", "device": "cpu"}
    detector, pose = (f"torch {settings[f'{of}precision']} on cpu" for of in ("detector_", ""))
    assert f", boxes of mine at 64 px ({detector}), no flip test, {pose}\n" in told
    assert command(*asked)[0] == 4  # trust is for the one call


def test_an_expectation_that_does_not_hold(command: Command, folder: Path, untrained: Path) -> None:
    asked = ["eval", "--data", folder, "--model", untrained, "--runtime", "torch"]
    code, _, said = command(*asked, "--expect", "74.4")
    assert code == 1
    lines = [line for line in said.splitlines() if line.startswith("streampose:")]
    assert len(lines) == 1
    assert "expected 74.4 ± 0.3" in lines[0]


def test_json_and_folder_named_apart(command: Command, folder: Path, untrained: Path, tmp_path: Path) -> None:
    annotations = (folder / "annotations.json").rename(tmp_path / "person_keypoints.json")
    code, told, _ = command(
        "eval", "--data", annotations, "--images", folder, "--model", untrained, "--runtime", "torch", "--limit", "2"
    )
    assert code == 0
    assert "in 2 pictures" in told


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "--data"),
        (["--mot", "gt.txt"], "RESULT.jsonl"),
        (
            ["--mot", "gt.txt", "r.jsonl", "--data", "x", "--images", "y"],
            "--mot GT.txt wants one RESULT.jsonl, and no --data",
        ),
        (["--data", "x", "--size", "-5"], "--size"),
        (["--data", "x", "--person-height", "tall"], "--person-height"),
        (["--data", "x", "--boxes", "b.json", "--person-height", "64"], "b.json has no boxes of them"),
        (
            ["--mot", "gt.txt", "r.jsonl", "--expect", "90", "--tolerance", "0", "--sheet", "a.png", "--no-refiner"],
            "--no-refiner, --sheet, --expect, --tolerance: only with --data\n",
        ),
        (
            ["--data", "x", "--camera", "gate", "--no-coasting", "--frames", "3", "--detector", "m"],
            "--camera, --no-coasting, --frames: only with --mot; --detector: only with --boxes detector\n",
        ),
        (["--data", "x", "--worst", "9"], "--worst: only with --sheet\n"),
        (["--data", "x.zip", "--images", "x"], "--images x: goes with --data FILE.json"),
    ],
)
def test_wrong_usage_is_one_line(command: Command, words: list[str], hint: str) -> None:
    code, _, said = command("eval", *words)
    assert code == 2
    assert hint in said
    assert len(said.splitlines()) == 1


def test_identity_from_the_command_line(command: Command, tmp_path: Path) -> None:
    truth, result, out = tmp_path / "gt.txt", tmp_path / "r.jsonl", tmp_path / "figures.json"
    truth.write_text("".join(f"{f},1,10,10,40,80,1,1,1\n" for f in range(1, 11)))
    write_lines(result, [seen(index, [found(4, "confirmed", [10, 10, 50, 90])]) for index in range(10)])
    code, told, _ = command("eval", "--mot", truth, result, "--json", out)
    assert code == 0
    assert "IDF1 100.0" in told
    assert json.loads(out.read_text())["tracking"]["IDF1"] == 1.0
    code, _, said = command("eval", "--mot", truth, tmp_path / "none.jsonl")
    assert code == 5
    assert "none.jsonl" in said


def spoil(change: Callable[[dict[str, Any]], None]) -> str:
    truth = labels(pictures=2)
    change(truth)
    return json.dumps(truth)


def first_box(box: list[float]) -> Callable[[dict[str, Any]], None]:
    return lambda truth: truth["annotations"][0].update(bbox=box)


BAD = {
    "missing picture": (spoil(lambda t: t["images"][0].update(file_name="gone.png")), "gone.png is missing"),
    "endless name": (spoil(lambda t: t["images"][0].update(file_name="a" * 300)), "is missing"),
    "no width": (spoil(lambda t: t["images"].append(t["images"][0] | {"id": 9, "width": 0})), "good id"),
    "nobody": (spoil(lambda t: t["annotations"].clear()), "no annotated person"),
    "nan": (spoil(first_box([10.0, float("nan"), 20.0, 30.0])), "NaN"),
    "area NaN": (spoil(lambda t: t["annotations"][0].update(area=float("nan"))), "area nan"),
    "area a word": (spoil(lambda t: t["annotations"][0].update(area="big")), "area 'big'"),
    "score a word": (spoil(lambda t: t["annotations"][0].update(scores=["a"] * 17)), "scores must be 17 numbers"),
    "picture a list": (spoil(lambda t: t["annotations"][0].update(image_id=[1])), "no image [1]"),
    "endless width": (
        spoil(lambda t: t["images"].append(t["images"][0] | {"id": 9, "width": float("inf")})),
        "good id",
    ),
    "box outside": (spoil(first_box([400.0, 10.0, 20.0, 30.0])), "outside"),
    "key point far outside": (
        spoil(lambda t: t["annotations"][0]["keypoints"].__setitem__(0, 1e30)),
        "lies far outside its",
    ),
    "flat box": (spoil(first_box([10.0, 10.0, 20.0, 0.0])), "no width or height"),
    "other joints": (spoil(lambda t: t["annotations"][0]["keypoints"].extend([1, 2, 2])), "18 key points"),
    "annotation twice": (spoil(lambda t: t["annotations"].append(person(1, 10, (5, 5, 9, 9)))), "id given twice"),
    "picture twice": (spoil(lambda t: t["images"].append(t["images"][0])), "image 10: id given twice"),
    "no such picture": (spoil(lambda t: t["annotations"][0].update(image_id=99)), "no image 99"),
    "visibility": (spoil(lambda t: t["annotations"][0]["keypoints"].__setitem__(2, 7)), "visibility"),
    "odd annotation": (spoil(lambda t: t["annotations"].append("x")), "no objects"),
    "not json": ("{cut", "not JSON"),
    "nested without end": ("[" * 100_000, "not JSON"),
    "a list": ("[]", "COCO format"),
}


@pytest.mark.parametrize(("text", "word"), BAD.values(), ids=BAD)
def test_a_bad_set_is_said_in_one_line(tmp_path: Path, text: str, word: str) -> None:
    folder = write_folder(tmp_path / "set", labels(pictures=2))
    (folder / "annotations.json").write_text(text)
    with pytest.raises(DataError) as caught:
        open_keypoint_set(folder, joints=17)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1, lines
    assert word in lines[0]
    assert str(folder) in lines[0]


def test_a_bad_zip_and_a_bad_picture(command: Command, folder: Path, untrained: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.zip"
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    no_zip = tmp_path / "text.zip"
    no_zip.write_text("not a zip")
    (folder / "1.png").write_bytes(b"")
    asked = ["eval", "--model", untrained, "--runtime", "torch", "--data"]
    for path, word in ((empty, "annotations.json"), (no_zip, "not a zip"), (folder, "does not decode")):
        code, _, said = command(*asked, path)
        lines = [line for line in said.splitlines() if line.startswith("streampose:")]
        assert code == 5
        assert len(lines) == 1
        assert word in lines[0]
        assert "Traceback" not in said
