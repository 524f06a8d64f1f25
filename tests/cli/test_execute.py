"""Signals and reloads: what ends at once, which cameras end and begin, and when nothing may change."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from streampose import build
from streampose.build_models import load_models
from streampose.build_sinks import reserved_files
from streampose.cli.execute import Signals, execute_with, finish, reserved
from streampose.cli.reload import Reload
from streampose.cli.status import Status
from streampose.config import Config, validate
from streampose.errors import InterruptedRun, SinkError, SourceError, StreamposeError
from streampose.pipeline.run import CameraRun
from streampose.pipeline.workers import WorkerGroup
from streampose.sinks.reserve import Reserved


@dataclass
class Leaving:
    """A camera that was removed."""

    closed: bool = False

    def whole(self) -> bool:
        return self.closed


@dataclass
class Built:
    """Notes what the reload asks of the run."""

    asked: list[str] = field(default_factory=list)
    ending: bool = False
    gone: list[Leaving] = field(default_factory=list)

    @property
    def run(self) -> Any:
        return self

    def remove(self, name: str) -> None:
        self.asked.append(f"-{name}")

    def add_when_free(self, name: str, make: Callable[[], CameraRun]) -> None:
        assert isinstance(make, partial)
        signature(make.func).bind(*make.args, **make.keywords)
        self.asked.append(f"+{name}")

    def make_camera(self, config: Config, name: str) -> CameraRun:
        raise AssertionError("not before the old one's files are closed")


def config(folder: Path, file: str, **cameras: str) -> Config:
    sinks = [{"jsonl": {"path": f"{folder}/{file}"}}]
    return validate({"cameras": {name: {"url": url} for name, url in cameras.items()}, "sinks": sinks})


def reload(before: Config, after: Config, outputs: Reserved | None = None) -> tuple[list[str], Config]:
    built = Built()
    with WorkerGroup() as group:
        again = Reload(built, before, lambda: after, group, outputs)  # type: ignore[arg-type]
        again.begin()
        while again.under_way:
            time.sleep(0.01)
            again.tick()
    return built.asked, again.config


def test_what_differs_ends_and_begins_and_the_rest_goes_on(tmp_path: Path) -> None:
    before = config(tmp_path, "{camera}.jsonl", a="rtsp://a/", b="rtsp://b/", c="rtsp://c/")
    after = config(tmp_path, "{camera}.jsonl", a="rtsp://a/", b="rtsp://other/", d="rtsp://d/")
    asked, now = reload(before, after)
    assert asked == ["-b", "-c", "+b", "+d"]
    assert now == after
    assert reload(now, after)[0] == []


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_what_is_reserved_follows_the_cameras(tmp_path: Path) -> None:
    before = config(tmp_path, "{camera}.jsonl", a="rtsp://a/", b="rtsp://b/")
    after = config(tmp_path, "{camera}.jsonl", a="rtsp://other/", c="rtsp://c/")
    with reserved() as outputs:
        outputs.take(reserved_files(before))
        reload(before, after, outputs)
        with reserved() as others:
            others.take([tmp_path / "b.jsonl"])
            for name in ("a.jsonl", "c.jsonl"):
                with pytest.raises(SinkError, match=f"{name}: is being written by another run"):
                    others.take([tmp_path / name])
    assert not list(tmp_path.iterdir()), "nothing was written"


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_what_a_removed_camera_may_yet_open_stays_reserved_until_it_has_closed(tmp_path: Path) -> None:
    before = config(tmp_path, "{camera}.jsonl", a="rtsp://a/", b="rtsp://b/")
    after = config(tmp_path, "{camera}.jsonl", a="rtsp://a/")
    camera = Leaving()
    with reserved() as outputs, WorkerGroup() as group:
        outputs.take(reserved_files(before))
        again = Reload(Built(gone=[camera]), before, lambda: after, group, outputs)  # type: ignore[arg-type]
        again.begin()
        while again.under_way:
            time.sleep(0.01)
            again.tick()
        time.sleep(0.2)
        again.tick()
        assert (tmp_path / "b.jsonl").exists()
        camera.closed = True
        again.tick()
        for _ in range(500):
            if not (tmp_path / "b.jsonl").exists():
                break
            time.sleep(0.01)
        assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_other_sections_wait_for_the_next_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = config(tmp_path, "{camera}.jsonl", a="rtsp://a/")
    after = config(tmp_path / "other", "{camera}.jsonl", a="rtsp://a/", b="rtsp://b/")
    asked, now = reload(before, after)
    assert asked == ["+b"]
    assert now.sinks == before.sinks
    assert "only `cameras` can change while running" in caplog.text
    assert not (tmp_path / "other").exists(), "nothing will be written there"


def test_two_cameras_never_get_the_one_file_of_the_sinks_that_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The new configuration is right by itself, but its sinks begin only at the next start."""
    before = config(tmp_path, "one.jsonl", a="rtsp://a/")
    after = config(tmp_path, "{camera}.jsonl", a="rtsp://a/", b="rtsp://b/")
    asked, now = reload(before, after)
    assert asked == []
    assert now is before
    assert 'jsonl: "' in caplog.text
    assert "one file for 2 cameras" in caplog.text
    assert "nothing is changed" in caplog.text


def test_sighup_where_nothing_can_be_reloaded_gets_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the first of two readings; `annotate` has none to read again at all."""
    data = {
        "cameras": {"a": {"url": "test:people?seconds=1&size=160x120&people=0"}},
        "smooth": {"offline": True},
        "detect": {"size": 64},
        "sinks": [{"jsonl": {"path": f"{tmp_path}/a.jsonl"}}],
    }
    config = validate(data)
    with Signals() as signals:
        signals.reload = True
        failures = execute_with(config, load_models(config), signals, reload=lambda: config, tell=lambda _: None)
    assert failures == []
    said = [record.message for record in caplog.records if "reload" in record.message]
    assert said == ["reload: only `streampose run` without smooth.offline can; nothing is changed"]


def test_a_signal_before_anything_is_open_ends_at_once_whoever_catches_exceptions() -> None:
    def load() -> None:
        with Signals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(20)
            except Exception as error:  # as the converters of networks do
                raise AssertionError("went on") from error

    with pytest.raises(InterruptedRun, match="SIGTERM before a camera was opened") as ended:
        load()
    assert ended.value.exit_code == 143


@pytest.mark.parametrize(
    ("failures", "code", "words"),
    [
        ([SourceError("a")], 3, "1 source failed, as said above"),
        ([SinkError("b"), SinkError("c")], 6, "2 outputs failed, as said above"),
        ([SourceError("a"), SinkError("b"), SourceError("c")], 6, "2 sources and 1 output failed, as said above"),
    ],
)
def test_the_last_words_count_what_failed_and_repeat_nothing(
    failures: list[Exception], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StreamposeError) as ended:
        finish(failures, Signals())
    assert (str(ended.value), ended.value.exit_code) == (words, code)
    assert capsys.readouterr() == ("", "")


def test_of_several_failures_a_bug_keeps_its_traceback() -> None:
    bug = RuntimeError("sink")
    with pytest.raises(RuntimeError) as ended:
        finish([SinkError("b"), bug], Signals())
    assert ended.value is bug


def test_a_signal_later_is_only_noted() -> None:
    with Signals() as signals:
        signals.begin()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
    assert (signals.times, signals.last) == (1, signal.SIGINT)


def press(folder: Path, patch: pytest.MonkeyPatch, *presses: str, seconds: int = 4000) -> dict[str, Any]:
    """The footer of a recording smoothed offline, with these presses of Ctrl-C: in the `first` reading, after a thousand
    frames, `between` the two, or in the `second` one."""
    left = list(presses)

    def reach(where: str) -> None:
        while left and left[0] == where:
            del left[0]
            os.kill(os.getpid(), signal.SIGINT)

    def tick(status: Status) -> None:
        if status._again:
            reach("second")
        elif any(camera.lane.tally.frames > 1000 for camera in status._cameras()):
            reach("first")

    second_reading = build.second_reading

    def second(*given: Any) -> build.Built:
        made = second_reading(*given)
        reach("between")
        if left:
            sink = made.run.cameras["a"].sinks[0].sink
            write = sink.write

            def wait_and_write(message: Any) -> None:
                assert made.run.group.stopping.wait(20)  # else it may be through before anybody presses
                write(message)

            patch.setattr(sink, "write", wait_and_write)
        return made

    patch.setattr(Status, "tick", tick)
    patch.setattr(build, "second_reading", second)
    data = {
        "cameras": {"a": {"url": f"test:people?seconds={seconds}&size=160x120&people=0"}},
        "smooth": {"offline": True},
        "detect": {"size": 64},
        "sinks": [{"jsonl": {"path": f"{folder}/{{camera}}.jsonl"}}],
    }
    config = validate(data)
    with Signals() as signals:
        assert execute_with(config, load_models(config), signals, tell=lambda _: None) == []
    assert left == []
    (path,) = folder.iterdir()
    footer: dict[str, Any] = json.loads(path.read_text().splitlines()[-1])
    return footer


@pytest.mark.parametrize(("where", "seconds"), [("first", 4000), ("between", 4)])
def test_one_press_writes_what_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, seconds: int
) -> None:
    footer = press(tmp_path, monkeypatch, where, seconds=seconds)
    assert footer["complete"]
    assert footer["decoded"] == footer["written"] >= (1000 if where == "first" else 60)


@pytest.mark.parametrize(
    ("presses", "seconds"),
    [
        (["first", "first"], 4000),
        (["first", "between"], 4000),
        (["first", "second"], 4000),
        (["between", "between"], 4),
    ],
    ids=str,
)
def test_two_presses_close_the_files_in_whatever_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, presses: list[str], seconds: int
) -> None:
    footer = press(tmp_path, monkeypatch, *presses, seconds=seconds)
    assert (footer["type"], footer["complete"], footer["decoded"]) == ("footer", False, None)
    assert footer["written"] < 1000


def test_two_presses_before_a_run_begins_close_its_files(tmp_path: Path) -> None:
    data = {"cameras": {"a": {"url": "test:people?seconds=4&people=0"}}, "detect": {"size": 64}}
    config = validate({**data, "sinks": [{"jsonl": {"path": f"{tmp_path}/a.jsonl"}}]})
    with Signals() as signals:
        signals.times = 2
        assert execute_with(config, load_models(config), signals, tell=lambda _: None) == []
    footer = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1])
    assert (footer["complete"], footer["decoded"], footer["written"]) == (False, None, 0)
