"""`streampose run` told by SIGHUP to read its configuration again: cameras come, go and change while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import av

from tests.running import (
    LIVE,
    _small_pose_network,  # noqa: F401
    call,
    records,
    start,
    video_times,
    wait_for_frames,
    write_config,
)


def wait_for_file(process: subprocess.Popen[str], path: Path, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not path.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    if not path.exists():
        process.kill()
        raise AssertionError(f"{path} never came: {process.communicate()[1]}")


def camera_of(path: Path) -> str:
    with av.open(str(path)) as container:
        return str(json.loads(container.metadata["comment"])["camera"])


def test_cameras_come_and_go_on_sighup(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"one": LIVE})
    process = start(["run", str(config)])
    wait_for_frames(process, tmp_path / "one.jsonl", 5)
    write_config(tmp_path, {"two": LIVE})
    process.send_signal(signal.SIGHUP)
    wait_for_frames(process, tmp_path / "two.jsonl", 5)
    deadline = time.monotonic() + 10
    while records(tmp_path / "one.jsonl")[-1]["type"] != "footer" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert records(tmp_path / "one.jsonl")[-1]["type"] == "footer"
    assert [*records(tmp_path / "two.jsonl")[0]["config"]["cameras"]] == ["two"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert records(tmp_path / "two.jsonl")[-1]["type"] == "footer"


def test_sighup_while_it_starts_ends_nothing(tmp_path: Path) -> None:
    """It reads its configuration from a pipe, so that it is known how far it is."""
    text = write_config(tmp_path, {"one": "test:people?seconds=1&size=160x120&people=0"}).read_text()
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    process = start(["run", str(pipe)])
    with pipe.open("w") as file:  # opens when it reads
        process.send_signal(signal.SIGHUP)
        file.write(text)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert records(tmp_path / "one.jsonl")[-1]["complete"]


def test_a_reload_whose_disk_hangs_holds_up_no_signal_and_a_second_one_is_not_lost(tmp_path: Path) -> None:
    """The configuration is a pipe: who opens it to read waits for a writer."""
    config = write_config(tmp_path, {"one": LIVE})
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    process = start(["run", str(pipe)])
    pipe.write_text(config.read_text())
    wait_for_frames(process, tmp_path / "one.jsonl", 5)

    def ask() -> int:
        """Where its configuration can be written, once it is waited for."""
        process.send_signal(signal.SIGHUP)
        return being_read()

    def being_read() -> int:
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s:
            with contextlib.suppress(OSError):  # nobody waits for it yet
                return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            time.sleep(0.02)
        raise AssertionError("it is not read again")

    def answer(end: int, *names: str) -> None:
        os.write(end, write_config(tmp_path, dict.fromkeys(names, LIVE)).read_bytes())
        os.close(end)

    end = ask()
    process.send_signal(signal.SIGHUP)
    answer(end, "one", "two")
    wait_for_frames(process, tmp_path / "two.jsonl", 5)
    answer(being_read(), "one", "two", "three")
    wait_for_frames(process, tmp_path / "three.jsonl", 5)
    end = ask()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    os.close(end)
    assert process.returncode == 143, err
    for name in ("one", "two", "three"):
        assert records(tmp_path / f"{name}.jsonl")[-1]["complete"]


def test_a_camera_that_is_changed_while_running_writes_over_nothing(tmp_path: Path) -> None:
    process = start(["run", str(write_config(tmp_path, {"one": LIVE}))])
    wait_for_frames(process, tmp_path / "one.jsonl", 5)
    write_config(tmp_path, {"one": f"{LIVE}&seed=3"})
    process.send_signal(signal.SIGHUP)
    wait_for_frames(process, tmp_path / "one-2.jsonl", 5)
    process.send_signal(signal.SIGHUP)  # nothing has changed
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    for name in ("one", "one-2"):
        lines = records(tmp_path / f"{name}.jsonl")
        assert [lines[0]["type"], lines[-1]["type"]] == ["header", "footer"]
        assert lines[-1]["complete"]
        assert len(video_times(tmp_path / f"{name}.mp4")) == lines[-1]["written"] >= 2
    assert not (tmp_path / "one-3.jsonl").exists()
    assert err.count("live, policy latest") == 2, err
    code, out, _ = call("verify", str(tmp_path))
    assert code == 0, out


def test_a_camera_that_is_added_takes_no_file_of_one_that_runs(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": f"{LIVE}&seconds=0.5"})  # it begins another file at every reconnect
    process = start(["run", str(config)])
    wait_for_file(process, tmp_path / "a-3.mp4")
    write_config(tmp_path, {"a": f"{LIVE}&seconds=0.5", "a-2": LIVE})
    process.send_signal(signal.SIGHUP)
    wait_for_frames(process, tmp_path / "a-2.jsonl", 5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    of = {path.stem: camera_of(path) for path in tmp_path.glob("*.mp4")}
    assert {name for name, camera in of.items() if camera == "a-2"} == {"a-2-2"}
    assert {name for name, camera in of.items() if camera == "a"} >= {"a", "a-2", "a-3"}


def test_a_reload_that_cannot_be_changes_nothing(tmp_path: Path) -> None:
    process = start(["run", str(write_config(tmp_path, {"one": LIVE}))])
    wait_for_frames(process, tmp_path / "one.jsonl", 5)
    (tmp_path / "two.mp4").mkdir()
    write_config(tmp_path, {"one": LIVE, "two": LIVE})
    process.send_signal(signal.SIGHUP)
    before = len(records(tmp_path / "one.jsonl"))
    wait_for_frames(process, tmp_path / "one.jsonl", before + 5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "two.mp4: this is a folder" in err
    assert "nothing is changed" in err
    assert records(tmp_path / "one.jsonl")[-1]["complete"]
