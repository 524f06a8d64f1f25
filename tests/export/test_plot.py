"""The plot of a person: the series behind it exactly, the picture by its ink."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from made_results import make_info, make_person, make_result

from streampose.errors import DataError, SinkError, UsageError
from streampose.export.plot import plot_track, split
from streampose.export.reader import ResultReader
from streampose.export.track_series import longest_track, read_track
from streampose.messages import Break, Counts, End, Gap
from streampose.sinks.jsonl import JsonlSink
from tests.export.conftest import HEADER


def test_the_series_is_that_of_the_record(result: Path) -> None:
    reader = ResultReader(result)
    assert longest_track(reader) == 1
    series = read_track(reader, 2, ["left_knee", "nose"])
    assert series.points.shape == (5, 2, 3)
    assert series.times_s.tolist() == [index / 25 for index in range(5, 10)]
    assert np.isnan(series.raw).all()
    assert not series.measured.any()
    frames = list(reader.frames())
    assert series.points[0, 0].tolist() == frames[5]["people"][1]["keypoints"][13]
    assert series.step_s == pytest.approx(0.04)
    walker = read_track(reader, 1, ["nose"])
    assert walker.measured.all()
    assert walker.raw[3, 0].tolist() == frames[3]["people"][0]["raw"][0]


def test_a_picture_is_made_without_a_display(result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    series = read_track(ResultReader(result), 1, ["left_wrist", "right_wrist"])
    picture = cv2.imread(str(plot_track(series, tmp_path / "a" / "p.png")))
    assert picture.shape[1] == 1440
    orange = (np.abs(picture.astype(int) - (0, 123, 224)) < 25).all(axis=2)
    blue = (np.abs(picture.astype(int) - (180, 111, 31)) < 25).all(axis=2)
    assert orange.sum() > 100
    assert blue.sum() > 500


def test_gaps_are_grey_and_break_the_line(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    sink = JsonlSink(
        path, "g", {"version": "0", "source": "x", "models": {}, "keypoints": [str(n) for n in range(17)], "config": {}}
    )
    sink.write(Break("g", 0, make_info()))
    for index in range(100):
        if index == 40:
            sink.write(Gap("g", "stalled", 1.6, 2.4))
        if not 40 <= index < 60:
            sink.write(make_result(index, people=[make_person(1)]))
    sink.write(End("g", Counts(decoded=80)))
    series = read_track(ResultReader(path), 1, ["9"])
    assert series.gaps.tolist() == [[1.6, 2.4]]
    assert [len(piece) for piece in split(series.times_s, series.step_s)] == [40, 40]
    picture = cv2.imread(str(plot_track(series, tmp_path / "p.png")))
    grey = (picture == picture[:, :, :1]).all(axis=2) & (picture[:, :, 0] > 210) & (picture[:, :, 0] < 235)
    columns = np.flatnonzero(grey.sum(axis=0) > 100)
    assert 150 < len(columns) < 400, "two panels, each with a grey stripe"


def test_a_gap_far_from_the_person_takes_no_room(tmp_path: Path) -> None:
    """The path of two seconds is as wide in a day with gaps as in a record without them; so is a joint never measured."""
    pictures = []
    for number, gaps in enumerate([(), ((0.0, 900.0), (80000.0, 86000.0))]):
        sink = JsonlSink(tmp_path / f"{number}.jsonl", "g", HEADER)
        sink.write(Break("g", 0, make_info()))
        for start_s, end_s in gaps:
            sink.write(Gap("g", "stalled", start_s, end_s))
        for index in range(50):
            person = make_person(1, (10 + index, 10, 60 + index, 110))
            person.std[9] = np.inf
            sink.write(make_result(index, 1000 + index / 25, people=[person]))
        sink.write(End("g", Counts(decoded=50)))
        series = read_track(ResultReader(tmp_path / f"{number}.jsonl"), 1, ["nose", "left_wrist"])
        assert np.isnan(series.std[:, 1]).all()
        pictures.append(cv2.imread(str(plot_track(series, tmp_path / f"{number}.png"))))
    assert np.array_equal(*pictures)


def test_what_cannot_be_plotted_is_said(result: Path, tmp_path: Path) -> None:
    reader = ResultReader(result)
    with pytest.raises(UsageError, match="no person 99 in"):
        read_track(reader, 99, ["nose"])
    with pytest.raises(UsageError, match=r"no joint 'left_wing' .* there are nose, left_eye"):
        read_track(reader, 1, ["left_wing"])
    series = read_track(reader, 1, ["nose"])
    with pytest.raises(SinkError, match=r"name a \.png"):
        plot_track(series, tmp_path / "p.wmv")
    (tmp_path / "x").write_text("")
    with pytest.raises(SinkError, match="cannot be written"):
        plot_track(series, tmp_path / "x" / "p.png")
    with pytest.raises(SinkError, match="this is a folder"):
        plot_track(series, tmp_path)
    assert plot_track(series, tmp_path / "no ending") == tmp_path / "no ending.png"
    assert (tmp_path / "no ending.png").is_file()
    empty = tmp_path / "e.jsonl"
    lines = result.read_text().splitlines(keepends=True)
    empty.write_text(lines[0] + lines[-1])
    with pytest.raises(DataError, match="nobody was seen"):
        longest_track(ResultReader(empty))
