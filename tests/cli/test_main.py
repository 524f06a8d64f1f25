"""The command itself: what other people's packages have to say does not reach the terminal."""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TextIO

import numpy as np
import PIL.Image
import pytest

from streampose.cli.main import main
from streampose.cli.status import Status
from tests.made_models import write_detector, write_pose_model
from tests.train.stick_people import stick_set, write_annotations


def test_damaged_exif_of_a_picture_is_no_warning_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = PIL.Image.Exif()
    tags[0x010E], tags[0x0132] = "a long description " * 10, "2024:01:01 10:00:00"
    picture = PIL.Image.fromarray(np.zeros((64, 96, 3), np.uint8))
    picture.save(tmp_path / "one.jpg", exif=tags.tobytes()[:-90])
    (tmp_path / "one.yaml").write_text(f"cameras: {{yard: {{url: {tmp_path / 'one.jpg'}}}}}")
    monkeypatch.setattr(sys, "argv", ["streampose", "doctor", "--no-models", str(tmp_path / "one.yaml")])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0
    assert [str(warning.message) for warning in said] == []


def ends_with(arguments: list[str], monkeypatch: pytest.MonkeyPatch, out: TextIO | None = None) -> int:
    """The exit code of `streampose ARGUMENTS`, with `out` for standard output."""
    monkeypatch.setattr(sys, "argv", ["streampose", *arguments])
    if out is not None:
        monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("buffering", [1, -1], ids=["while printing", "at the end"])
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["models", "list"], ["models", "list", "--json"]])
def test_standard_output_on_a_full_disk_is_one_line(
    arguments: list[str], buffering: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w", buffering) as full:
        assert ends_with(arguments, monkeypatch, full) == 6
    said = capsys.readouterr().err
    assert said == "streampose: standard output cannot be written (No space left on device); send it elsewhere\n"


@pytest.mark.parametrize("buffering", [1, -1], ids=["while printing", "at the end"])
def test_a_reader_that_is_gone_is_no_fault(
    buffering: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering) as out:
        assert ends_with(["models", "list"], monkeypatch, out) == 0
    assert capsys.readouterr().err == ""


def test_standard_output_may_be_closed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert ends_with(["models", "list"], monkeypatch) == 0
    assert capsys.readouterr().err == ""


def test_all_three_may_be_closed(tmp_path: Path) -> None:
    """Of a real process: what it writes by their numbers, as native libraries do, must not land in an output."""
    detector, pose = write_detector(tmp_path), write_pose_model(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"cameras: {{gate: {{url: 'test:people?fps=5&seconds=1&size=320x240'}}}}\n"
        f"detect: {{model: {detector}, size: 128}}\npose: {{model: {pose}}}\nruntime: torch\n"
        f"sinks: [{{jsonl: {{path: {tmp_path}/gate.jsonl}}}}]\n"
    )
    command = f"{shlex.quote(sys.executable)} -m streampose run {config} <&- >&- 2>&-"
    done = subprocess.run(["sh", "-c", command], timeout=240, check=False)
    assert done.returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "gate.jsonl").read_text().splitlines()]
    assert lines[-1]["complete"]


def test_a_line_break_in_the_name_of_a_file_breaks_no_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = str(tmp_path / "a\nb\x1b[31m.yaml")
    assert ends_with(["check", name], monkeypatch) == 2
    spelled = rf"{tmp_path}/a\nb\x1b[31m.yaml"
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"streampose: {spelled}: no such configuration")
    logging.getLogger("streampose.sources").warning("%s is cut", name)
    Status(list)._print(f"{name}: 3 frames")
    assert (caplog.messages[-1], capsys.readouterr().err) == (f"{spelled} is cut", f"{spelled}: 3 frames\n")


def test_every_fault_of_a_set_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = stick_set(tmp_path, 12)
    for image in content["images"]:
        image["file_name"] = f"gone\n{image['id']}.png"
    write_annotations(tmp_path, content)
    assert ends_with(["eval", "--data", str(tmp_path / "annotations.json")], monkeypatch) == 5
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "is missing" in line] == [
        rf"streampose: {tmp_path}/annotations.json: image {number}: gone\n{number}.png is missing"
        for number in range(1, 11)
    ]
    # Two pictures more, and twelve people of six joints each.
    assert said[-1] == f"streampose: {tmp_path}/annotations.json: ... and 14 more"


def test_files_are_utf8_whatever_the_locale_says(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes("\ufeffpässwörd\r\n".encode())
    (tmp_path / "gate.yaml").write_bytes(
        f'# the gate … at "Müllers"\ncameras: {{gate: {{url: "${{file:{tmp_path / "secret"}}}.mp4"}}}}'.encode()
    )
    program = f"""
from streampose.config_file import load
print(ascii(load({str(tmp_path / "gate.yaml")!r}).cameras["gate"].url))
"""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **plain}, capture_output=True, text=True, check=False
    )
    assert ended.stdout == "'p\\xe4ssw\\xf6rd.mp4'\n", ended.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="keeps a working directory")
def test_a_working_directory_that_is_gone_is_one_line(tmp_path: Path) -> None:
    program = f"""
import os
os.chdir({str(tmp_path)!r})
os.mkdir("gone")
os.chdir("gone")
os.rmdir("../gone")
import sys
sys.argv = ["streampose", "models", "list"]
from streampose.cli.main import main
main()
"""
    home = str(Path(__file__).parents[2])
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        "streampose: the working directory is gone (No such file or directory); change into one that is there\n"
    )
