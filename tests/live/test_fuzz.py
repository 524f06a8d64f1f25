"""Cameras that lie: a thousand spoilt RTSP dialogues through the real source, in a process that may die."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import pytest

from streampose.sources.libav import VideoOptions
from tests.live import fuzz
from tests.live.rows import broken, table
from tests.live.rtsp_script import Camera, script


def drain(source: fuzz.VideoSource, into: list[object]) -> None:
    for item in source.frames(lambda: False):
        into.append(item)


@pytest.mark.parametrize("transport", fuzz.TRANSPORTS)
@pytest.mark.parametrize("codec", fuzz.CODECS)
def test_the_unspoilt_script_is_a_whole_camera(codec: str, transport: Literal["tcp", "udp"], tmp_path: Path) -> None:
    with Camera() as camera:
        camera.script = script(codec, tmp_path)
        source = fuzz.VideoSource(f"rtsp://127.0.0.1:{camera.port}/x", VideoOptions(2.0, 2.0, transport))
        assert source.open().codec == codec
        items: list[object] = []
        with pytest.raises(fuzz.SourceError, match="ended the stream"):
            drain(source, items)
        source.close()
    assert sum(isinstance(item, fuzz.Picture) for item in items) == 12


@pytest.mark.slow
def test_a_thousand_lying_cameras_are_clean_errors_and_counts(lies: fuzz.Fuzz) -> None:
    report = lies
    rows = report.rows()
    assert not broken(rows), table(rows) + "\n".join(report.bad)
    assert report.cases >= 300, report.cases  # fewer than a thousand only where the machine is very busy
    assert len(report.kinds) >= 15 * len(fuzz.TRANSPORTS)
    assert all(went.startswith(("TransientSourceError", "PermanentSourceError")) for went in report.went), report.went
    assert len(report.went) >= 3


def test_a_crash_or_a_dirty_error_is_told_with_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge itself: a process that dies is not taken for one that was content."""
    report = fuzz.Fuzz("rtsp", 1)
    script_of = iter(["import os, signal; print('{\"try\": 7}', flush=True); os.kill(os.getpid(), signal.SIGSEGV)",
                      "print('{\"try\": 9}', flush=True); raise KeyError('not clean')"])  # fmt: skip
    popen = fuzz.subprocess.Popen
    monkeypatch.setattr(
        fuzz.subprocess, "Popen", lambda command, **how: popen([command[0], "-c", next(script_of)], **how)
    )
    assert fuzz._one_process(report, 0, 10, 5.0) == 7
    assert fuzz._one_process(report, 8, 10, 5.0) == 9
    assert "case 7 of seed 1: SIGSEGV" in report.bad[0]
    assert "KeyError" in report.bad[1]
    assert broken(report.rows())
    assert report.went == Counter()
