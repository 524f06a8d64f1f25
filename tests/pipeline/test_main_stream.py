"""MainStream: a stream that is only recorded keeps nothing of its pictures."""

from __future__ import annotations

from pathlib import Path

from streampose.pipeline.keeper import KeepOptions
from streampose.pipeline.main_stream import MainStream
from streampose.pipeline.produce import ProduceOptions
from streampose.pipeline.workers import WorkerGroup
from streampose.sinks.remux import Remuxer
from tests.pipeline.scripted import ScriptedSource


def test_nothing_is_kept_of_pictures_that_go_nowhere(tmp_path: Path) -> None:
    tap = Remuxer(tmp_path / "gate.mp4", "gate")
    with WorkerGroup() as group:
        main = MainStream("gate", lambda: ScriptedSource([300], live=False), tap, group, ProduceOptions(KeepOptions()))
        main.start(group)
    ledger = main.producer._ledger
    assert ledger.counts.decoded == 300
    assert ledger.finish() == []
