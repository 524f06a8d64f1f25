"""Results written by the sinks themselves, for the tests of exports."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "sinks"))

from made_results import make_info, make_person, make_result

from streampose.messages import Break, Counts, End, Gap
from streampose.pose.skeleton import load_skeleton
from streampose.sinks.draw import DrawSkeleton
from streampose.sinks.jsonl import JsonlSink
from streampose.sinks.record import RecordSink

NAMES = list(load_skeleton("coco17").keypoints)
HEADER = {"version": "0.1.0", "source": "cctv.mp4", "models": {}, "keypoints": NAMES, "config": {}}


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """20 frames of a person 1 who walks, a person 2 who is there in frames 5 to 9, and a tentative one in frame 3."""
    path = tmp_path / "gate.jsonl"
    sink = JsonlSink(path, "gate", HEADER)
    sink.write(Break("gate", 0, make_info()))
    for index in range(20):
        people = [make_person(1, (10 + index, 10, 60 + index, 110))]
        if 5 <= index < 10:
            people.append(make_person(2, (90, 20, 130, 100.5), "coasting", scores=0.2, raw=False))
        if index == 3:
            people.append(make_person(3, (0, 0, 20, 40), "tentative"))
        sink.write(make_result(index, people=people, wall_s=1.79e9 + index / 25))
    sink.write(End("gate", Counts(decoded=20)))
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[[list[str]], Path]:
    def make(files: list[str]) -> Path:
        path = tmp_path / "pictures.jsonl"
        sink = JsonlSink(path, "pictures", HEADER)
        for index, file in enumerate(files):
            sink.write(make_result(index, float(index), [make_person(index)], file=file))
        sink.write(End("pictures", Counts(decoded=len(files))))
        return path

    return make


@pytest.fixture
def recorded(tmp_path: Path, written: Callable[..., Path]) -> Callable[..., Path]:
    """A folder with the record and video of one camera, to spoil: a copy, with its times, of what `written` made."""

    def copy(ending: str = "mp4", segment_s: float | None = None) -> Path:
        return Path(shutil.copytree(written(ending, segment_s), tmp_path / "out"))

    return copy


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """100 frames of one camera at 25 a second, 10 dropped and an outage of 3 s; each kind is made once."""

    @cache
    def make(ending: str, segment_s: float | None) -> Path:
        coco = load_skeleton("coco17")
        folder = tmp_path_factory.mktemp("written") / "out"
        sinks = (
            JsonlSink(folder / "{camera}.jsonl", "gate", HEADER, segment_s=segment_s),
            RecordSink(
                folder / f"{{camera}}.{ending}", "gate", DrawSkeleton(coco.sides, coco.edges), segment_s=segment_s
            ),
        )

        def send(*messages: object) -> None:
            for message in messages:
                for sink in sinks:
                    sink.write(message)  # type: ignore[arg-type]

        def frames(first: int, last: int, start_s: float, segment: int = 0) -> None:
            for index in range(first, last):
                time_s = start_s + (index - first) / 25
                send(make_result(index, time_s, [make_person(1)], wall_s=1.8e9 + time_s, segment=segment))

        send(Break("gate", 0, make_info(live=True)))
        frames(0, 50, 0.0)
        send(Gap("gate", "dropped", 2.0, 2.4, 10))
        frames(60, 80, 2.4)
        send(Gap("gate", "disconnected", 3.2, 6.2), Break("gate", 1, make_info(live=True), "reconnected"))
        frames(80, 110, 6.2, 1)
        send(End("gate", Counts(decoded=112, corrupt=2, dropped={"newest wins": 10})))
        for sink in sinks:
            sink.close()
        return folder

    return make
