"""The commands export, plot and verify, by their command line."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet
import pytest
import typer
from typer.testing import CliRunner

from streampose.cli.export import Format, export
from streampose.cli.plot import plot
from streampose.cli.verify import verify
from streampose.errors import DataError, SinkError, UsageError

app = typer.Typer()
for command in (export, plot, verify):
    app.command()(command)


def call(*arguments: object) -> str:
    """Standard output; what the command raises is raised here."""
    found = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.mark.parametrize(
    ("format_name", "name"),
    [
        ("coco", "gate.coco.json"),
        ("mot", "gate.mot.txt"),
        ("openpose", "gate_openpose"),
        ("csv", "gate.csv"),
        ("parquet", "gate.parquet"),
    ],
)
def test_export_writes_beside_the_result_and_says_where(format_name: str, name: str, result: Path) -> None:
    assert call("export", result, "--format", format_name).split() == [str(result.with_name(name))]
    assert result.with_name(name).exists()


def test_export_to_a_place(result: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "er" / "x.txt"
    call("export", result, "--format", "mot", "--out", out, "--states", "confirmed, coasting")
    assert len(out.read_text().splitlines()) == 25


@pytest.mark.parametrize("out", ["/dev/stdout", "-"])
def test_export_to_standard_output_is_the_export_alone(
    out: str, result: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export(result, Format.mot, Path(out))
    written = capfd.readouterr()
    assert written.err.split() == ["/dev/stdout"]
    export(result, Format.mot, result.with_name("mot.txt"))
    assert written.out == result.with_name("mot.txt").read_text()


@pytest.mark.parametrize("format_name", ["coco", "mot", "openpose", "csv", "parquet"])
def test_a_result_through_a_pipe_is_exported_whole(format_name: str, result: Path, tmp_path: Path) -> None:
    pipe, expected, got = tmp_path / "gate", tmp_path / "expected", tmp_path / "got"
    os.mkfifo(pipe)
    call("export", result, "--format", format_name, "--out", expected)
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(pipe.write_bytes, result.read_bytes())
        call("export", pipe, "--format", format_name, "--out", got)
        sent.result(10)
    if format_name == "openpose":
        assert {path.name: path.read_bytes() for path in got.glob("*.json")} == {
            path.name: path.read_bytes() for path in expected.glob("*.json")
        }
    else:
        assert got.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("command", [("export", "--format", "csv"), ("plot",)])
def test_beside_what_is_no_file_of_its_own_nothing_is_written(
    command: tuple[str, ...], result: Path, tmp_path: Path
) -> None:
    """It is refused before anything is read."""
    end, other = os.pipe()
    os.close(other)
    with result.open("rb") as file, open(end, "rb"):
        for name in ("/dev/null", "/dev/stdin", f"/dev/fd/{end}", f"/dev/fd/{file.fileno()}"):
            with pytest.raises(UsageError, match=f"^{name}: .*say where to with --out"):
                call(command[0], name, *command[1:])
    with pytest.raises(DataError, match=r"none\.jsonl: no such file; name a \.jsonl result"):
        call(command[0], tmp_path / "none.jsonl", *command[1:])
    assert list(tmp_path.iterdir()) == [result]


@pytest.mark.parametrize("command", [("export", "--format", "csv"), ("plot",)])
def test_a_reader_that_is_gone_has_read_enough(command: tuple[str, ...], result: Path, tmp_path: Path) -> None:
    line = shlex.join([sys.executable, "-m", "streampose", command[0], str(result), *command[1:], "--out", "-"])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line} | true"], cwd=tmp_path, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [result]


@pytest.mark.parametrize(("states", "ids"), [(None, "123"), ("confirmed", "1"), ("tentative,coasting", "23")])
def test_states_are_those_of_every_format(states: str | None, ids: str, result: Path, tmp_path: Path) -> None:
    wish = () if states is None else ("--states", states)
    for name in ("coco", "openpose", "csv", "parquet"):
        call("export", result, "--format", name, "--out", tmp_path / name, *wish)
    table = csv.DictReader((tmp_path / "csv").open())
    assert {row["id"] for row in table} == set(ids)
    assert set(map(str, pyarrow.parquet.read_table(tmp_path / "parquet")["id"].to_pylist())) == set(ids)
    counts = {"1": 20, "2": 5, "3": 1}
    assert len(json.loads((tmp_path / "coco").read_text())) == sum(counts[who] for who in ids)
    people = [json.loads(path.read_text())["people"] for path in (tmp_path / "openpose").glob("*.json")]
    assert len(people) == 20
    assert {str(person["person_id"][0]) for picture in people for person in picture} == set(ids)


def test_export_options_that_cannot_be(result: Path) -> None:
    with pytest.raises(UsageError, match="give some of confirmed, tentative, coasting"):
        call("export", result, "--format", "mot", "--states", "sleeping")
    with pytest.raises(UsageError, match="--images belongs to --format coco"):
        call("export", result, "--format", "mot", "--images", result)
    for out in ("-", "/dev/stdout", "/dev/null"):
        with pytest.raises(UsageError, match=f"--out {out}: openpose is a folder; standard output, a pipe or"):
            call("export", result, "--format", "openpose", "--out", out)


def test_export_never_writes_over_what_it_reads(result: Path, tmp_path: Path) -> None:
    images, before = tmp_path / "images.json", result.read_bytes()
    images.write_text('{"images": []}')
    with pytest.raises(SinkError, match="this is what is read"):
        call("export", result, "--format", "csv", "--out", result)
    with pytest.raises(SinkError, match="this is what is read"):
        call("export", result, "--format", "coco", "--images", images, "--out", images)
    assert result.read_bytes() == before


def test_plot(result: Path, tmp_path: Path) -> None:
    assert call("plot", result).split() == [str(result.with_suffix(".png"))]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(pipe.read_bytes)
        call("plot", result, "--id", 2, "--joint", "nose", "-j", "left_knee", "-o", pipe)
        assert read.result(10).startswith(b"\x89PNG")
    assert pipe.is_fifo()


def test_verify(recorded: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = recorded()
    assert call("verify", folder).startswith("gate: 100 frames in 1 record, 100 pictures in 2 videos")
    (folder / "gate.jsonl").write_text("".join((folder / "gate.jsonl").read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="1 disagreement between") as caught:
        verify(folder)
    assert caught.value.exit_code == 5
    assert len(capsys.readouterr().out.splitlines()) == 2
