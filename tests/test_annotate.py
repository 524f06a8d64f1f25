"""`streampose annotate` on real footage: recordings smoothed without lag, pictures one by one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

import streampose
from streampose.annotate import jobs_for
from streampose.build_sinks import check_outputs
from streampose.cli.main import app
from streampose.errors import PermanentSourceError, SinkError, StreamposeError, UsageError
from streampose.export.verify import verify_folder
from streampose.pose.skeleton import load_skeleton
from streampose.sources.open import kind_of
from streampose.track.offline import smooth_track
from streampose.track.options import SmoothOptions
from tests.media import cut, write_video

FAST = ["--set", "detect.size=320"]


def annotate(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["annotate", *arguments, *FAST], catch_exceptions=True)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def frames_of(path: Path) -> list[dict[str, object]]:
    return [record for line in path.read_text().splitlines() if (record := json.loads(line))["type"] == "frame"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, short_clip: Path) -> Path:
    """Three frames of the clip as pictures of different kinds, and one file that is none."""
    folder = tmp_path_factory.mktemp("pictures") / "yard"
    folder.mkdir()
    with av.open(str(short_clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in (0, 8, 16):
                name = {0: "one.jpg", 8: "two.PNG", 16: "ten.webp"}[index]
                assert cv2.imwrite(str(folder / name), frame.to_ndarray(format="bgr24"))
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory, short_clip: Path) -> tuple[Path, BaseException | None]:
    """What `annotate` makes of a torn recording and the short clip, and how it ends."""
    folder = tmp_path_factory.mktemp("annotated")
    torn = folder / "torn.mp4"
    torn.write_bytes(short_clip.read_bytes()[:200])
    done = CliRunner().invoke(app, ["annotate", str(torn), str(short_clip), "--out", str(folder / "out"), *FAST])
    opened = [line for line in done.stderr.splitlines() if "policy lossless" in line]
    assert [line.partition(" (")[0] for line in opened] == [f"short: {short_clip}"], "once, though it is read twice"
    return folder / "out", done.exception


def test_a_recording_is_smoothed_with_hindsight(
    tmp_path: Path, short_clip: Path, annotated: tuple[Path, BaseException | None]
) -> None:
    offline = frames_of(annotated[0] / "short.jsonl")
    annotate(str(short_clip), "--out", str(tmp_path / "live"), "--no-overlay", "--set", "smooth.offline=false")
    live = frames_of(tmp_path / "live" / "short.jsonl")
    assert not (tmp_path / "live" / "short.mp4").exists()
    with av.open(str(annotated[0] / "short.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == len(offline) == len(live) == 20
    assert jitter(offline) < jitter(live)


def test_hindsight_knows_how_far_each_joint_is_to_be_trusted(annotated: tuple[Path, BaseException | None]) -> None:
    """The record's own measurements, smoothed with the skeleton's sigmas, are what it says of the longest track."""
    frames = frames_of(annotated[0] / "short.jsonl")
    tracks: dict[int, list[tuple[float, dict[str, Any]]]] = {}
    for frame in frames:
        for person in frame["people"]:  # type: ignore[attr-defined]
            tracks.setdefault(person["id"], []).append((frame["time"], person))  # type: ignore[arg-type]
    life = max(tracks.values(), key=len)
    assert len(life) > 10
    times_s, people = np.array([time_s for time_s, _ in life]), [person for _, person in life]
    raw = np.array([person["raw"] or np.full((17, 3), np.nan) for person in people], np.float64)
    used = np.array([[word == "measured" for word in person["joint_state"]] for person in people])
    boxes, sigmas = np.array([person["box"] for person in people]), load_skeleton("coco17").sigmas
    points, std = smooth_track(times_s, raw, used, boxes, SmoothOptions(), sigmas)
    known = used.any(axis=0)
    said = np.array([person["std"] for person in people], np.float64)
    np.testing.assert_allclose(said[:, known], std[:, known], atol=0.02)
    assert np.isnan(said[:, ~known]).all()
    said = np.array([person["keypoints"] for person in people], np.float64)
    np.testing.assert_allclose(said[:, known, :2], points[:, known, :2], atol=0.05)


def test_what_is_said_of_a_recording_is_one_line_however_long(tmp_path: Path, pictures: Path) -> None:
    far = tmp_path / ("a folder with a long name " * 4)
    far.mkdir()
    (far / "one.jpg").write_bytes((pictures / "one.jpg").read_bytes())
    done = CliRunner().invoke(app, ["annotate", str(far), "--out", str(tmp_path / "out"), "--no-overlay", *FAST])
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stderr.splitlines() if "policy" in line]
    assert str(far) in line
    assert line.endswith("images, policy lossless")


def jitter(frames: list[dict[str, object]]) -> float:
    """Mean second difference of all key points that are seen in three frames on end, in pixels a frame squared."""
    tracks: dict[int, dict[int, np.ndarray]] = {}
    for frame in frames:
        for person in frame["people"]:  # type: ignore[attr-defined]
            tracks.setdefault(person["id"], {})[frame["index"]] = np.array(person["keypoints"])[:, :2]  # type: ignore[index]
    steps = [
        np.abs(points[i - 1] - 2 * points[i] + points[i + 1]).mean()
        for points in tracks.values()
        for i in points
        if i - 1 in points and i + 1 in points
    ]
    assert len(steps) > 10
    return float(np.mean(steps))


def test_a_recording_too_short_to_confirm_anybody_keeps_whom_it_shows(tmp_path: Path, short_clip: Path) -> None:
    whole, cut_off = av.open(str(short_clip)), tmp_path / "one.mp4"
    with whole, av.open(str(cut_off), "w") as target:
        stream = target.add_stream_from_template(whole.streams.video[0])
        packet = next(whole.demux(whole.streams.video[0]))
        packet.stream = stream
        target.mux(packet)
    annotate(str(cut_off), "--out", str(tmp_path / "out"), "--no-overlay")
    (frame,) = frames_of(tmp_path / "out" / "one.jsonl")
    assert {person["state"] for person in frame["people"]} == {"tentative"}  # type: ignore[attr-defined]


def test_a_folder_gives_one_record_and_a_picture_each(tmp_path: Path, pictures: Path) -> None:
    printed = json.loads(annotate(str(pictures), "--out", str(tmp_path), "--print"))
    frames = frames_of(tmp_path / "yard.jsonl")
    assert [frame["file"] for frame in frames] == ["one.jpg", "ten.webp", "two.PNG"]
    assert sorted(printed) == ["one.jpg", "ten.webp", "two.PNG"]
    assert all(frame["people"] for frame in frames)
    for name in printed:
        assert len(printed[name]["bounding_box"]) == len(printed[name]["key_points"]) > 0
        assert np.array(printed[name]["key_points"]).shape[1:] == (17, 3)
        drawn = [path for path in tmp_path.iterdir() if path.stem.startswith(Path(name).stem)]
        assert drawn
        assert cv2.imread(str(drawn[0])) is not None
    footer = json.loads((tmp_path / "yard.jsonl").read_text().splitlines()[-1])
    assert footer["corrupt"] == 1


@pytest.mark.parametrize(("codec", "suffix", "b_frames"), [("mjpeg", "avi", 0), ("h264", "mp4", 2)])
def test_frames_after_one_that_is_damaged_keep_their_number(
    codec: str, suffix: str, b_frames: int, tmp_path: Path
) -> None:
    """What goes by frame numbers (MOT, recordings of several cameras side by side) counts as the recording does."""
    whole, damaged = tmp_path / f"whole.{suffix}", tmp_path / f"hurt.{suffix}"
    write_video(whole, codec=codec, b_frames=b_frames, time_base=Fraction(1, 12), pts=range(24))
    with av.open(str(whole)) as source, av.open(str(damaged), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            data = bytes(packet)
            torn = av.Packet((data[: len(data) // 3] if codec == "h264" else b"").ljust(len(data), b"\0"))
            hurt = torn if number in (5, 14) else packet
            hurt.pts, hurt.dts, hurt.time_base, hurt.stream = packet.pts, packet.dts, packet.time_base, stream
            hurt.is_keyframe = packet.is_keyframe
            if data:
                target.mux(hurt)
    annotate(str(damaged), "--out", str(tmp_path / "out"))
    frames = frames_of(tmp_path / "out" / "hurt.jsonl")
    assert len(frames) == 22
    assert [frame["index"] for frame in frames] == [frame.index for frame in streampose.open_source(str(damaged))]
    assert [frame["index"] for frame in frames][-1] == 23
    if not b_frames:  # else pictures before the damage come out after it was found, and are one too far
        assert [frame["index"] for frame in frames] == [frame["pts"] for frame in frames]
    assert verify_folder(tmp_path / "out").disagreements == ()


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


def test_a_path_that_is_not_there_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    for name in ("none.mp4", f"{'long' * 80}.mp4", f"{'long' * 80}.jpg"):
        with pytest.raises(PermanentSourceError, match="does not exist"):
            annotate(str(tmp_path / name), "--out", str(tmp_path))
    with pytest.raises(
        UsageError, match=r"rtsp://\*\*\*@cam/1: no file or folder; annotate takes recordings and pictures"
    ):
        annotate("rtsp://me:secret@cam/1", "--out", str(tmp_path))


def test_what_a_folder_holds_beside_its_pictures_is_said_to_be_left_out(
    tmp_path: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs_for([pictures], tmp_path / "out", overlay=True, settings=[])
    assert caplog.messages == []
    folder = tmp_path / "mixed"
    for name in ("b.MP4", "a.mkv", "one.jpg", "moving.gif", "._a.mkv", "._c.HEIC", "d.HEIC", "c.dng", "e.nef"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    for inner in ("100", "101", "out", ".thumbs", "notes"):
        (folder / inner).mkdir()
        (folder / inner / ("a.txt" if inner == "notes" else "a.jpg")).write_bytes(b"")
    (job,) = jobs_for([folder], folder / "out", overlay=True, settings=[])
    assert caplog.messages == [
        f"{folder}: of a folder pictures are taken; a.mkv and 1 more left out, name videos one by one",
        f"{folder}: c.dng and 2 more left out, of a format that is not read; convert to JPEG",
        f"{folder}: pictures in folders inside it are left out (100 and 1 more); name those, too",
    ]
    assert [file.name for file in job.files] == ["moving.gif", "one.jpg"]


def test_a_photograph_that_cannot_be_read_is_no_video_of_nobody(tmp_path: Path, pictures: Path) -> None:
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes((pictures / "one.jpg").read_bytes())
    with pytest.raises(PermanentSourceError, match=r"IMG_1\.HEIC: \.heic is not read; convert it to JPEG$"):
        annotate(str(path), "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_still_picture_keeps_its_people_whatever_its_name(tmp_path: Path, pictures: Path) -> None:
    with PIL.Image.open(pictures / "one.jpg") as whole:
        whole.save(tmp_path / "still.gif")
        whole.save(tmp_path / "photo", "PNG")
    printed = json.loads(
        annotate(*(str(tmp_path / n) for n in ("still.gif", "photo")), "-o", str(tmp_path / "out"), "--print")
    )
    assert printed.keys() == {"still.gif", "photo"}
    assert all(people["bounding_box"] for people in printed.values())
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".jsonl", ".png", ".png"]
    assert not (tmp_path / "out" / "photo").exists()


def test_of_a_recording_nobody_is_printed_and_that_is_said(
    tmp_path: Path, short_clip: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = f"--print: {short_clip.name}: no picture; the people of a recording are in its JSONL"
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        annotate(str(short_clip), "--out", str(tmp_path / "out"), "--print")
    assert not (tmp_path / "out").exists()
    both = [str(short_clip), str(pictures / "one.jpg"), "--out", str(tmp_path / "out"), "--no-overlay", "--print"]
    assert json.loads(annotate(*both)).keys() == {"one.jpg"}
    assert said in caplog.messages


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


def pictures_of(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("more", [[], ["--set", "smooth.offline=false"]], ids=["offline", "at once"])
def test_what_cannot_be_opened_is_said_once_and_costs_no_earlier_result(
    more: list[str], tmp_path: Path, short_clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torn, empty = tmp_path / "torn.mp4", tmp_path / "yard"
    torn.write_bytes(short_clip.read_bytes()[:200])
    empty.mkdir()
    (empty / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    earlier = [tmp_path / "out" / name for name in ("torn.jsonl", "torn.mp4", "yard.jsonl")]
    (tmp_path / "out").mkdir()
    for path in earlier:
        path.write_text("made before")
    for source in (torn, empty):
        print_ = ["--print"] if source == empty else []
        done = CliRunner().invoke(app, ["annotate", str(source), "--out", str(tmp_path / "out"), *print_, *FAST, *more])
        assert isinstance(done.exception, StreamposeError)
        assert (str(done.exception), done.exception.exit_code) == ("1 source failed, as said above", 3)
        assert done.stdout.splitlines() == (["{}"] if print_ else [])
    said = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert [next(source for source in (torn, empty) if str(source) in line) for line in said] == [torn, empty]
    assert [path.read_text() for path in earlier] == ["made before"] * 3


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


def test_what_is_cut_is_read_as_far_as_it_goes_and_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_video(tmp_path / "whole.mkv", frames=24)
    short = cut(tmp_path / "whole.mkv", 0.6, tmp_path / "cut.mkv")
    annotate(str(short), "--out", str(tmp_path / "out"), "--no-overlay", "--set", "smooth.offline=false")
    assert 0 < len(frames_of(tmp_path / "out" / "cut.jsonl")) < 24
    assert "cut.mkv is cut: it ends at" in caplog.text


def test_one_torn_video_does_not_cost_the_others(annotated: tuple[Path, BaseException | None]) -> None:
    folder, error = annotated
    assert isinstance(error, StreamposeError)
    assert (str(error), error.exit_code) == ("1 source failed, as said above", 3)
    assert sorted(path.name for path in folder.iterdir()) == ["short.jsonl", "short.mp4"]
    assert len(frames_of(folder / "short.jsonl")) == 20
