"""Where `streampose annotate` writes: each result has a place of its own, and nothing is written over."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import streampose
from streampose.annotate import jobs_for
from streampose.build_sinks import check_outputs
from streampose.errors import SinkError, UsageError
from streampose.sources.open import kind_of
from tests.annotating import FAST, annotate, frames_of, pictures_of
from tests.media import write_video


def test_two_results_of_one_name_are_refused(tmp_path: Path, short_clip: Path) -> None:
    other = tmp_path / "short.mp4"
    other.write_bytes(short_clip.read_bytes())
    with pytest.raises(UsageError, match=r"both become short\.jsonl"):
        annotate(str(short_clip), str(other), "--out", str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("names", "settings"),
    [
        (("a.mp4", "b.mp4"), ["sinks.jsonl.path={out}/people.jsonl"]),
        (("a.mp4", "b.mp4"), ["sinks.1={{pictures: {{path: '{out}/drawn'}}}}"]),
        (("a.mp4", "yard"), ["sinks.jsonl.path={out}/people.jsonl"]),
    ],
)
def test_a_path_that_is_set_for_several_inputs_must_tell_them_apart(
    names: tuple[str, str], settings: list[str], tmp_path: Path, short_clip: Path, pictures: Path
) -> None:
    """Each took the place of the one before, and the last one alone was left."""
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(short_clip.read_bytes())
    (tmp_path / "yard").symlink_to(pictures)
    first, second = paths = [tmp_path / name for name in names]
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=rf"^{second} and {first} would both become {out}/.*; put {{camera}} in it$"):
        annotate(
            str(first), str(second), "--out", str(out),
            *(word for text in settings for word in ("--set", text.format(out=out))),
        )  # fmt: skip
    assert not out.exists()
    told_apart = [text.format(out=f"{out}/{{camera}}") for text in settings]
    assert len(jobs_for(paths, out, overlay=True, settings=told_apart)) == 2


def test_what_several_inputs_may_share_is_no_collision(tmp_path: Path, short_clip: Path) -> None:
    """A device or pipe takes what both write, and files that roll get names of their own."""
    pipe, out = tmp_path / "pipe", tmp_path / "out"
    os.mkfifo(pipe)
    paths = [tmp_path / name for name in ("a.mp4", "b.mp4")]
    for path in paths:
        path.write_bytes(short_clip.read_bytes())
    for place in ("/dev/null", pipe):
        for job in jobs_for(paths, out, overlay=True, settings=[f"sinks.jsonl.path={place}"]):
            check_outputs(job.config)
    rolling = (
        "sinks.record.path={}/{{date}}/{{time}}.mp4",
        "sinks.jsonl.path={}/{{date}}/{{time}}.jsonl",
        "sinks.record.segment=1h",
    )
    settings = [word for text in (*rolling, "smooth.offline=false") for word in ("--set", text.format(out))]
    annotate(*map(str, paths), "--out", str(out), *settings)
    assert sum(map(pictures_of, out.glob("*/*.mp4"))) == 40
    records = [json.loads(path.read_text().splitlines()[0]) for path in out.glob("*/*.jsonl")]
    assert {record["source"] for record in records} == set(map(str, paths))


@pytest.mark.parametrize(
    "setting",
    [
        "sinks=null", "sinks.jsonl.path=null", "sinks.record.path=null", "sinks=[{jsonl: null}, record]",
        "smooth=null", "smooth.enabled=null", "smooth.offline=null", "cameras.a.url=null",
    ],
)  # fmt: skip
def test_what_is_set_to_null_is_as_annotate_has_it(setting: str, tmp_path: Path, pictures: Path) -> None:
    """It became the default of a configuration: results in ./out, and no hindsight."""
    recording = tmp_path / "a.mp4"
    recording.touch()
    usual, set_so = (
        jobs_for([recording], tmp_path, overlay=True, settings=settings)[0].config.public()
        for settings in ([], [setting])
    )
    assert set_so == usual
    if setting.startswith("smooth"):
        (job,) = jobs_for([pictures], tmp_path, overlay=True, settings=[setting])
        assert (job.config.smooth.enabled, job.config.smooth.offline) == (False, False)


def test_nothing_that_is_read_is_written_over(tmp_path: Path, short_clip: Path, pictures: Path) -> None:
    recording, picture = tmp_path / "short.mp4", tmp_path / "one.jpg"
    recording.write_bytes(short_clip.read_bytes())
    picture.write_bytes((pictures / "one.jpg").read_bytes())
    for path in (recording, picture, tmp_path):
        with pytest.raises(SinkError, match=rf"{path.stem if path.suffix else 'one'}.*: this is what is read"):
            annotate(str(path), "--out", str(tmp_path))
    lost = ["--out", str(tmp_path / "out"), "--no-overlay", "--set"]
    for path in (recording, picture):
        with pytest.raises(SinkError, match=rf"{path.name}: this is what is read"):
            annotate(str(path), *lost, f"sinks.jsonl.path={path}")
    with pytest.raises(SinkError, match=r"one\.jpg: this is what is read"):
        annotate(str(tmp_path), *lost, f"sinks.jsonl.path={picture}")
    assert recording.read_bytes() == short_clip.read_bytes()
    assert picture.read_bytes() == (pictures / "one.jpg").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_pictures_of_another_kind_may_be_annotated_beside_themselves(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "ten.webp").write_bytes((pictures / "ten.webp").read_bytes())
    for path in (tmp_path, tmp_path / "ten.webp"):
        for job in jobs_for([path], tmp_path, overlay=True, settings=[]):
            check_outputs(job.config)


def test_two_pictures_of_one_name_are_not_drawn_over_each_other(tmp_path: Path, pictures: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "one.jpg").write_bytes((pictures / "one.jpg").read_bytes())
    for asked in ([str(pictures), str(other)], [str(pictures / "one.jpg"), str(other / "one.jpg")]):
        with pytest.raises(UsageError, match=r"one\.jpg would both become .*out/one\.jpg"):
            annotate(*asked, "--out", str(tmp_path / "out"))
    asked = [str(pictures), str(other), "--out", str(tmp_path / "out"), "--no-overlay", "--print"]
    printed = json.loads(annotate(*asked, "--set", f"sinks.jsonl.path={tmp_path / 'mine' / '{camera}.jsonl'}"))
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["other.jsonl", "yard.jsonl"]
    assert set(printed) == {str(pictures / "one.jpg"), str(other / "one.jpg"), "ten.webp", "two.PNG"}
    jobs_for([pictures / "one.jpg", pictures / "one.jpg"], tmp_path / "out", overlay=True, settings=[])


@pytest.mark.parametrize(
    ("name", "camera"),
    [
        ("Straße ü.mp4", "Stradfe_u"),
        ("北京.mp4", "53174eac"),
        ("{camera} 100%.mp4", "camera__100_"),
        ("12:30.mp4", "12_30"),
        ("test:people.mp4", "test_people"),
        ("2024", "2024"),
        ("-", "recording"),
    ],
)
def test_any_name_of_a_file_or_folder_will_do(
    name: str, camera: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_clip: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    if name.endswith(".mp4"):
        Path(name).write_bytes(short_clip.read_bytes())
    else:
        Path(name).mkdir()
    (job,) = jobs_for([Path(name)], Path("out"), overlay=True, settings=[])
    ((found, settings),) = job.config.cameras.items()
    assert found == camera
    assert Path(settings.url) == Path(name)
    assert kind_of(settings.url) == ("video" if name.endswith(".mp4") else "images")
    check_outputs(job.config)
    if name.endswith(".mp4"):
        for frame in streampose.open_source(settings.url):
            assert frame.height == 576
            break


def test_a_record_is_found_where_its_template_leads(tmp_path: Path, pictures: Path) -> None:
    template = f"sinks.jsonl.path={tmp_path}/{{camera}}/all.jsonl"
    (job,) = jobs_for([pictures], tmp_path, overlay=True, settings=[template])
    assert job.jsonl == tmp_path / "yard" / "all.jsonl"


@pytest.mark.parametrize("out", ["a{camera}", "res{1}", "a}"])
def test_a_folder_for_results_is_no_template(out: str, tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(UsageError, match=rf"^--out .*{re.escape(out)}: a brace"):
        annotate(str(pictures), "--out", str(tmp_path / out))
    assert not list(tmp_path.iterdir())


def test_recordings_of_like_names_are_cameras_apart(tmp_path: Path, short_clip: Path) -> None:
    paths = [tmp_path / name for name in ("a.mp4", "_a.mp4", "a-2.mp4")]
    for path in paths:
        path.write_bytes(short_clip.read_bytes())
    template = f"sinks.jsonl.path={tmp_path}/out/{{camera}}.jsonl"
    jobs = jobs_for(paths, tmp_path / "out", overlay=True, settings=[template])
    assert [[*job.config.cameras] for job in jobs] == [["a"], ["a-2"], ["a-2-2"]]
    assert [job.jsonl and job.jsonl.name for job in jobs] == ["a.jsonl", "a-2.jsonl", "a-2-2.jsonl"]


def test_the_second_file_of_a_recording_is_not_that_of_another(tmp_path: Path) -> None:
    """The size changes within a recording, so that its video goes on in another file."""
    parts = [tmp_path / "wide.ts", tmp_path / "high.ts"]
    write_video(parts[0], frames=6, size=(192, 128))
    write_video(parts[1], frames=5, size=(160, 192))
    broken, other = tmp_path / "a.ts", tmp_path / "a-2.mp4"
    broken.write_bytes(b"".join(part.read_bytes() for part in parts))
    write_video(other, frames=9)
    for order in ([broken, other], [other, broken]):
        out = tmp_path / order[0].stem
        annotate(*map(str, order), "--out", str(out))
        assert {path.name: pictures_of(path) for path in out.glob("*.mp4")} == {"a.mp4": 6, "a-2.mp4": 9, "a-3.mp4": 5}
        assert json.loads((out / "a-2.jsonl").read_text().splitlines()[0])["source"] == str(other)


@contextmanager
def first_reading_of_another(*arguments: str) -> Iterator[None]:
    """`streampose annotate` in another process, stopped in its first reading; ended after that."""
    command = [sys.executable, "-m", "streampose", "annotate", *arguments, *FAST]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "policy lossless" in line)
        assert said.startswith("cctv: ")
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGCONT)
            process.stderr.read()
        assert process.wait() == 128 + signal.SIGINT


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_what_another_run_will_write_is_refused_from_its_start(tmp_path: Path, short_clip: Path) -> None:
    """Its first reading writes nothing, and another recording's turn has not come."""
    out, clip = tmp_path / "out", str(Path(__file__).parent.parent / "samples" / "cctv.mp4")
    out.mkdir()
    (out / "cctv.jsonl").write_text("made before")
    with first_reading_of_another(clip, str(short_clip), "--out", str(out)):
        for source, name in ((str(short_clip), "short"), (clip, "cctv")):
            for more in ([], ["--set", "smooth.offline=false"]):
                with pytest.raises(SinkError, match=rf"{name}.jsonl: is being written by another run"):
                    annotate(source, "--out", str(out), *more)
        assert (out / "cctv.jsonl").read_text() == "made before"
    assert all(path.stat().st_size for path in out.iterdir())
    annotate(str(short_clip), "--out", str(out), "--no-overlay", "--set", "smooth.offline=false")
    assert len(frames_of(out / "short.jsonl")) == 20
