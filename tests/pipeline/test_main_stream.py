"""MainStream: a stream that is only recorded keeps nothing of its pictures."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from streampose.errors import TransientSourceError
from streampose.messages import SourceInfo
from streampose.pipeline.keeper import KeepOptions
from streampose.pipeline.main_stream import MainStream
from streampose.pipeline.produce import ProduceOptions
from streampose.pipeline.workers import WorkerGroup
from streampose.sinks.remux import Remuxer
from tests.pipeline.scripted import FAST, ScriptedSource


def test_nothing_is_kept_of_pictures_that_go_nowhere(tmp_path: Path) -> None:
    tap = Remuxer(tmp_path / "gate.mp4", "gate")
    with WorkerGroup() as group:
        main = MainStream("gate", lambda: ScriptedSource([300], live=False), tap, group, ProduceOptions(KeepOptions()))
        main.start(group)
    ledger = main.producer._ledger
    assert ledger.counts.decoded == 300
    assert ledger.finish() == []


def test_a_trouble_of_the_main_stream_is_said_once_and_its_ordinary_states_only_to_who_asks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streampose")
    scripts = iter([[3, TransientSourceError("the link went down")]])
    tap = Remuxer(tmp_path / "gate.mp4", "gate")
    opened: list[SourceInfo] = []

    def note(info: SourceInfo) -> None:
        opened.append(info)
        if len(opened) == 2:
            main.producer.stop()

    with WorkerGroup() as group:
        options = ProduceOptions(FAST, opened=note)
        main = MainStream("gate", lambda: ScriptedSource(next(scripts, [])), tap, group, options)
        main.start(group)
    assert [record.getMessage() for record in caplog.records] == ["gate.main: reconnecting (the link went down)"]
