"""`streampose run` from the outside: a real process, real files, and every way in which it may end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import av
import jsonschema
import pytest

from tests.conftest import BundledRun
from tests.running import (
    LIVE,
    ROOT,
    _small_pose_network,  # noqa: F401
    call,
    records,
    start,
    video_times,
    wait_for_frames,
    write_config,
)


@pytest.mark.slow
@pytest.mark.timeout(580)
def test_the_bundled_clip_becomes_video_and_record(bundled_run: BundledRun) -> None:
    folder = bundled_run.folder
    assert str(folder / "gate.mp4") in bundled_run.said
    lines = records(folder / "gate.jsonl")
    frames = [line for line in lines if line["type"] == "frame"]
    assert lines[0]["type"] == "header"
    assert lines[-1]["type"] == "footer"
    assert lines[-1]["decoded"] == len(frames) == 200
    assert [frame["index"] for frame in frames] == list(range(200))
    assert video_times(folder / "gate.mp4") == pytest.approx([frame["time"] for frame in frames], abs=1e-3)
    confirmed = [p for frame in frames for p in frame["people"] if p["state"] == "confirmed"]
    assert len(confirmed) > 500  # up to eight people, most of the time several
    assert all(len(person["keypoints"]) == 17 for person in confirmed)


def test_a_signal_finishes_what_is_queued_and_closes_the_files(tmp_path: Path) -> None:
    running = {}
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        folder = tmp_path / number.name
        folder.mkdir()
        config = write_config(folder, {"gate": LIVE})
        config.write_text(
            config.read_text().replace("sinks:\n", f'sinks:\n  - record: {{path: "{folder}/whole.mp4"}}\n')
        )
        running[folder] = start(["run", str(config)]), number, code
    for folder, (process, number, code) in running.items():
        wait_for_frames(process, folder / "gate.jsonl", 8)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
        assert process.returncode == code, err
        lines = records(folder / "gate.jsonl")
        footer = lines[-1]
        assert footer["type"] == "footer"
        assert footer["decoded"] == footer["written"] + sum(footer["dropped"].values()) + footer["corrupt"]
        assert len(video_times(folder / "gate.mp4")) == footer["written"]
        assert len(video_times(folder / "whole.mp4")) == footer["written"]
        assert "Traceback" not in err
        ages = footer["age_ms"]
        assert list(ages) == ["pose", "record", "record-2", "jsonl"]
        assert all(0 < age["p50"] <= age["p95"] <= age["p99"] for age in ages.values())
        assert ages["pose"]["p50"] <= ages["jsonl"]["p50"], "a sink has it later"
        schema = json.loads((files("streampose") / "schema" / "result.schema.json").read_text(encoding="utf-8"))
        jsonschema.validate(footer, schema)


def test_two_signals_close_the_files_now(tmp_path: Path) -> None:
    process = start(["run", str(write_config(tmp_path, {"gate": LIVE}))])
    wait_for_frames(process, tmp_path / "gate.jsonl", 5)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert records(tmp_path / "gate.jsonl")[-1]["type"] == "footer"
    assert video_times(tmp_path / "gate.mp4")


def test_kill_9_leaves_whole_lines_and_a_video_that_plays(tmp_path: Path) -> None:
    process = start(["run", str(write_config(tmp_path, {"gate": LIVE}))])
    wait_for_frames(process, tmp_path / "gate.jsonl", 40)
    process.kill()
    process.communicate(timeout=20)
    text = (tmp_path / "gate.jsonl").read_text()
    assert text.endswith("\n")
    frames = [line for line in records(tmp_path / "gate.jsonl") if line["type"] == "frame"]
    times = video_times(tmp_path / "gate.mp4")
    may_wait = 8 + 4 + 11  # in the sink's channel, in the encoder, in the fragment of a second under way
    assert len(times) >= len(frames) - may_wait
    assert times == pytest.approx([frame["time"] - frames[0]["time"] for frame in frames[: len(times)]], abs=1e-3)


def test_of_two_cameras_one_dies_and_the_other_has_a_line_for_every_frame(tmp_path: Path, short_clip: Path) -> None:
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(b"not a video at all")
    code, out, err = call("run", str(write_config(tmp_path, {"good": str(short_clip), "bad": str(torn)})))
    assert code == 3
    assert "torn.mp4" in err
    assert "Traceback" not in err
    lines = records(tmp_path / "good.jsonl")
    assert lines[-1]["complete"]
    frames = [line for line in lines if line["type"] == "frame"]
    assert len(frames) == len(video_times(tmp_path / "good.mp4")) == len(video_times(short_clip))
    assert f"{tmp_path}/good.jsonl" in out


def undecodable(path: Path) -> Path:
    """A recording whose container and key frames are whole, while no picture of it can be decoded."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for number in range(5):
            packet = av.Packet(bytes(500))
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, number, number, True
            packet.time_base = Fraction(1, 25)
            container.mux(packet)
    return path


@pytest.mark.parametrize("offline", [False, True], ids=["at once", "smoothed offline"])
def test_recordings_that_cannot_be_read_are_said_once_and_cost_no_earlier_result(tmp_path: Path, offline: bool) -> None:
    (tmp_path / "text.mkv").write_bytes(b"not a video at all")
    undecodable(tmp_path / "torn.mkv")
    names = ["text", "torn", "gone"]
    cameras = {name: f"{tmp_path}/{name}.mkv" for name in names}
    out = tmp_path / "out"
    out.mkdir()
    config = write_config(out, cameras, f"smooth: {{offline: {offline}}}")
    config.write_text(config.read_text().replace('.mp4"}', '.mkv", mode: both}'))
    earlier = {out / f"{name}{ending}": name.encode() for name in names for ending in (".jsonl", ".mkv", ".source.mkv")}
    for path, data in earlier.items():
        path.write_bytes(data)
    code, told, err = call("run", str(config))
    assert code == 3, err
    for name, url in cameras.items():
        (said,) = [line for line in err.splitlines() if url in line]
        assert said.startswith(f"E {name}: "), err
        assert f"{out}/{name}-2.jsonl" in told
        assert f"{name}.mkv" in records(out / f"{name}-2.jsonl")[-1]["error"]
    assert err.splitlines()[-1] == "streampose: 3 sources failed, as said above"
    assert "Traceback" not in err
    assert {path: path.read_bytes() for path in earlier} == earlier
    if not offline:
        for path in (*earlier, *out.glob("*-2.jsonl")):
            path.unlink()
        assert call("run", str(config))[0] == 3
        assert [records(out / f"{name}.jsonl")[-1]["decoded"] for name in names] == [0, 0, 0]
        assert sorted(path.name for path in out.iterdir()) == ["config.yaml", "gone.jsonl", "text.jsonl", "torn.jsonl"]


def test_a_sink_that_fails_costs_only_itself_and_is_said_once(tmp_path: Path, short_clip: Path) -> None:
    (tmp_path / "a.mp4").symlink_to("/dev/full")
    code, _, err = call("run", str(write_config(tmp_path, {"a": str(short_clip)})))
    assert code == 6
    (said,) = [line for line in err.splitlines() if "a.mp4" in line]
    assert said.startswith("E record of a ended: "), err
    assert err.splitlines()[-1] == "streampose: 1 output failed, as said above"
    assert "Traceback" not in err
    assert records(tmp_path / "a.jsonl")[-1]["complete"]


@pytest.mark.parametrize("kind", ["folder in its place", "below a file", "cannot be made", "no such ending"])
def test_an_output_that_cannot_be_is_said_before_any_camera_is_asked(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "gate.jsonl").mkdir()
    record, jsonl, code, said = {
        "folder in its place": (
            f"{tmp_path}/{{camera}}.mp4",
            f"{tmp_path}/{{camera}}.jsonl",
            6,
            "gate.jsonl: this is a folder",
        ),
        "below a file": (f"{tmp_path}/file/{{camera}}.mp4", f"{tmp_path}/ok.jsonl", 6, "a part of that path is a file"),
        "cannot be made": (f"{tmp_path}/ok.mp4", "/proc/streampose/{camera}.jsonl", 6, "cannot be written"),
        "no such ending": (f"{tmp_path}/{{camera}}.avi", f"{tmp_path}/ok.jsonl", 2, "written as .mp4 or .mkv"),
    }[kind]
    asked: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        config = tmp_path / "config.yaml"
        config.write_text(
            f"cameras: {{gate: {{url: 'rtsp://127.0.0.1:{listening.getsockname()[1]}/x'}}}}\n"
            f"sinks:\n  - record: {{path: '{record}'}}\n  - jsonl: {{path: '{jsonl}'}}\n"
        )
        found, out, err = call("run", str(config))
        with contextlib.suppress(TimeoutError):
            asked.append(listening.accept())
    assert found == code, err
    assert said in err
    assert len(err.strip().splitlines()) == 1, err
    assert not asked
    assert "Traceback" not in out + err


def test_bad_input_is_one_line_and_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    cases = [
        (["run", str(tmp_path / "none.yaml")], 2, "no such configuration"),
        (["run", str(write_config(tmp_path, {"a": str(tmp_path / "none.mp4")}))], 3, "none.mp4"),
        (["annotate", str(tmp_path / "empty.mp4"), "--out", str(tmp_path / "out")], 3, "empty.mp4"),
        (["annotate", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")], 3, "nothing"),
        (["export", "gate.jsonl"], 2, "Choose from: coco, mot, openpose, csv, parquet (`streampose --help`"),
        (["check", "configs/cctv.yaml", "--set", "cameras.gate.url=foo://x"], 2, "scheme foo:// is not known"),
        (["run", "configs/cctv.yaml", "--set", "cameras.gate.url=foo://x"], 2, "cameras.gate.url: foo://x"),
        (
            ["doctor", "configs/cctv.yaml", "--set", "cameras.gate.backoff=0"],
            2,
            "configs/cctv.yaml: cameras.gate.backoff: 0",
        ),
        (["run", "configs/cctv.yaml", "--set", "cameras.gate.max_age=0"], 2, "cameras.gate.max_age: input should be"),
        (["run", "configs/cctv.yaml", "--set", "pose.model=weights/none.yaml"], 4, "none.yaml"),
    ]
    processes = [start(arguments) for arguments, _, _ in cases]
    for process, (arguments, expected, said) in zip(processes, cases, strict=True):
        _, err = process.communicate(timeout=240)
        assert process.returncode == expected, (arguments, err)
        assert said in err
        assert "Traceback" not in err


def test_check_opens_nothing(tmp_path: Path) -> None:
    code, out, _ = call("check", str(write_config(tmp_path, {"gate": "rtsp://me:secret@127.0.0.1:9/x"})))
    assert code == 0
    assert "secret" not in out
    assert "policy latest" in out
    assert os.listdir(tmp_path) == ["config.yaml"]


def test_a_terminal_that_cannot_show_a_name_gets_its_escape(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"gate": f"{tmp_path}/Straße.mp4"})
    process = start(["check", str(config)], env={**os.environ, "PYTHONIOENCODING": "ascii"})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "Stra\\xdfe.mp4" in out


def test_a_sub_stream_is_analysed_while_the_main_stream_is_recorded(tmp_path: Path, short_clip: Path) -> None:
    main = ROOT / "samples" / "park.mp4"
    config = tmp_path / "config.yaml"
    config.write_text(
        f'cameras: {{gate: {{url: "{main}", detect_url: "{short_clip}"}}}}\n'
        "detect: {size: 320}\n"
        "sinks:\n"
        f'  - record: {{path: "{tmp_path}/{{camera}}.mp4", mode: both}}\n'
        f'  - jsonl: {{path: "{tmp_path}/{{camera}}.jsonl"}}\n'
    )
    code, out, err = call("run", str(config))
    assert code == 0, err
    frames = [line for line in records(tmp_path / "gate.jsonl") if line["type"] == "frame"]
    assert len(frames) == 20
    assert (frames[0]["width"], frames[0]["height"]) == (768, 576)
    assert f"{tmp_path}/gate.source.mp4" in out
    with av.open(str(tmp_path / "gate.source.mp4")) as recorded:
        stream = recorded.streams.video[0]
        assert (stream.width, stream.height) == (1280, 720)
        assert next(recorded.decode(stream)).key_frame
