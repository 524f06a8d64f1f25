"""`streampose annotate` on real footage: recordings smoothed without lag, pictures one by one."""

from __future__ import annotations

import json
import re
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
from streampose.cli.main import app
from streampose.errors import PermanentSourceError, StreamposeError, UsageError
from streampose.export.verify import verify_folder
from streampose.pose.skeleton import load_skeleton
from streampose.track.offline import smooth_track
from streampose.track.options import SmoothOptions
from tests.annotating import FAST, annotate, frames_of
from tests.media import cut, write_video


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
