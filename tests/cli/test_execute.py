"""Signals and reloads: what ends at once, which cameras end and begin, and when nothing may change."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from streampose.cli.execute import Signals, _reload, finish
from streampose.config import CameraConfig, Config, validate
from streampose.errors import InterruptedRun, SinkError, SourceError, StreamposeError
from streampose.pipeline.run import CameraRun


@dataclass
class Built:
    """Notes what the reload asks of the run."""

    asked: list[str] = field(default_factory=list)

    @property
    def run(self) -> Any:
        return self

    def remove(self, name: str) -> None:
        self.asked.append(f"-{name}")

    def add_when_free(self, name: str, make: Callable[[], CameraRun]) -> None:
        assert isinstance(make, partial)
        signature(make.func).bind(*make.args, **make.keywords)
        self.asked.append(f"+{name}")

    def make_camera(self, name: str, camera: CameraConfig) -> CameraRun:
        raise AssertionError("not before the old one's files are closed")


def config(folder: Path, file: str, **cameras: str) -> Config:
    sinks = [{"jsonl": {"path": f"{folder}/{file}"}}]
    return validate({"cameras": {name: {"url": url} for name, url in cameras.items()}, "sinks": sinks})


def reload(before: Config, after: Config) -> tuple[list[str], Config]:
    built = Built()
    return built.asked, _reload(built, before, lambda: after)  # type: ignore[arg-type]


def test_what_differs_ends_and_begins_and_the_rest_goes_on(tmp_path: Path) -> None:
    before = config(tmp_path, "{camera}.jsonl", a="rtsp://a/", b="rtsp://b/", c="rtsp://c/")
    after = config(tmp_path, "{camera}.jsonl", a="rtsp://a/", b="rtsp://other/", d="rtsp://d/")
    asked, now = reload(before, after)
    assert asked == ["-b", "-c", "+b", "+d"]
    assert now == after
    assert reload(now, after)[0] == []


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
