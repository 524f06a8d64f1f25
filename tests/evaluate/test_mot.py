"""Identity figures against cases that can be counted by hand, and the files they are read from."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streampose.errors import DataError, UsageError
from streampose.evaluate.mot import measure_tracking, read_result, read_truth
from tests.evaluate.results import HEADER, found, seen, write_lines


def box_at(frame: int, lane: int) -> list[float]:
    return [10.0 + 4 * frame, 100.0 * lane, 40.0 + 4 * frame, 80.0 + 100.0 * lane]


def write_truth(path: Path, people: dict[int, range], extra: str = "") -> Path:
    """One person a lane, walking to the right, in the frames (from 1) given."""
    rows = []
    for who, frames in people.items():
        for frame in frames:
            x1, y1, x2, y2 = box_at(frame, who)
            rows.append(f"{frame},{who},{x1},{y1},{x2 - x1},{y2 - y1},1,1,1.0")
    path.write_text("\n".join(rows) + "\n" + extra)
    return path


def write_result(path: Path, frames: list[list[tuple[int, int, str]]]) -> Path:
    """For each frame, (id, lane, state) of the people."""
    lines = []
    for index, people in enumerate(frames):
        lines.append(seen(index, [found(who, state, box_at(index + 1, lane)) for who, lane, state in people]))
    return write_lines(path, lines)


def test_a_perfect_result_is_perfect(tmp_path: Path) -> None:
    truth = read_truth(write_truth(tmp_path / "gt.txt", {1: range(1, 21), 2: range(5, 16)}))
    frames = [[(7, 1, "confirmed")] + ([(9, 2, "confirmed")] if 5 <= frame < 16 else []) for frame in range(1, 21)]
    figures = measure_tracking(truth, read_result(write_result(tmp_path / "r.jsonl", frames)))
    assert (figures.idf1, figures.mota, figures.hota, figures.id_switches) == (1.0, 1.0, 1.0, 0)
    assert (figures.people, figures.boxes, figures.frames) == (2, 31, 20)


def test_a_switch_costs_what_it_must(tmp_path: Path) -> None:
    """One person, 20 frames, id 1 for 12 of them and id 2 for 8: IDTP 12, so IDF1 = 2·12 / (20 + 20)."""
    truth = read_truth(write_truth(tmp_path / "gt.txt", {1: range(1, 21)}))
    frames = [[(1 if frame <= 12 else 2, 1, "confirmed")] for frame in range(1, 21)]
    figures = measure_tracking(truth, read_result(write_result(tmp_path / "r.jsonl", frames)))
    assert figures.idf1 == pytest.approx(0.6)
    assert figures.mota == pytest.approx(1 - 1 / 20)
    assert figures.id_switches == 1


def test_states_decide_who_is_counted(tmp_path: Path) -> None:
    truth = read_truth(write_truth(tmp_path / "gt.txt", {1: range(1, 11)}))
    states = ["tentative"] * 2 + ["confirmed"] * 5 + ["coasting"] * 3
    path = write_result(tmp_path / "r.jsonl", [[(1, 1, state)] for state in states])
    assert measure_tracking(truth, read_result(path)).missed == 2
    assert measure_tracking(truth, read_result(path, coasting=False)).missed == 5


def test_people_flagged_out_are_neither_missed_nor_wrong(tmp_path: Path) -> None:
    flagged = "".join(f"{f},5,{10 + 4 * f},300,30,80,0,1,0.2\n" for f in range(1, 11))
    truth = read_truth(write_truth(tmp_path / "gt.txt", {1: range(1, 11)}, flagged))
    both = write_result(tmp_path / "r.jsonl", [[(1, 1, "confirmed"), (2, 3, "confirmed")]] * 10)
    only = write_result(tmp_path / "s.jsonl", [[(1, 1, "confirmed")]] * 10)
    for path in (both, only):
        figures = measure_tracking(truth, read_result(path))
        assert (figures.idf1, figures.false_positives, figures.missed) == (1.0, 0, 0)


def trackevals_own(truth: str, result: str, folder: Path, frames: int) -> dict[str, float]:
    """The figures by TrackEval's own reading of MOTChallenge files, with its own preprocessing."""
    with contextlib.redirect_stdout(io.StringIO()):
        from trackeval.datasets import MotChallenge2DBox
        from trackeval.metrics import CLEAR, HOTA, Identity

        for path, text in ((folder / "gt/seq/gt/gt.txt", truth), (folder / "found/us/data/seq.txt", result)):
            path.parent.mkdir(parents=True)
            path.write_text(text)
        places = {"GT_FOLDER": str(folder / "gt"), "TRACKERS_FOLDER": str(folder / "found"), "SKIP_SPLIT_FOL": True}
        dataset = MotChallenge2DBox(places | {"SEQ_INFO": {"seq": frames}, "PRINT_CONFIG": False})
        data = dataset.get_preprocessed_seq_data(dataset.get_raw_seq_data("us", "seq"), "pedestrian")
        quiet = {"PRINT_CONFIG": False}
        clear = CLEAR(quiet).eval_sequence(data)
        identity, hota = Identity(quiet).eval_sequence(data), HOTA().eval_sequence(data)
    return {
        "idf1": identity["IDF1"], "mota": clear["MOTA"], "hota": float(np.mean(hota["HOTA"])),
        "id_switches": clear["IDSW"], "false_positives": clear["CLR_FP"], "missed": clear["CLR_FN"],
    }  # fmt: skip


def test_all_classes_count_as_trackeval_has_them(tmp_path: Path) -> None:
    """Boxes of every class, crowded, so that many a result could be matched to several of them."""
    rng = np.random.default_rng(3)
    truth, result, lines = [], [], []
    for frame in range(1, 41):
        people = []
        for who in range(1, 27):
            x, y = 30 * (who % 9) + frame, 40 * (who // 9)
            kind = 1 + (who - 1) % 13
            truth.append(f"{frame},{who},{x},{y},50,90,{1 if kind == 1 else 0},{kind},1")
            if rng.random() < 0.8:
                dx, dy = rng.integers(-12, 13, 2)
                box = [float(x + dx), float(y + dy), float(x + dx + 50), float(y + dy + 90)]
                result.append(f"{frame},{who},{box[0]},{box[1]},50,90,1,-1,-1,-1")
                people.append(found(who, "confirmed", box))
        lines.append(seen(frame - 1, people))
    (tmp_path / "gt.txt").write_text("\n".join(truth))
    ours = measure_tracking(read_truth(tmp_path / "gt.txt"), read_result(write_lines(tmp_path / "r.jsonl", lines)))
    theirs = trackevals_own("\n".join(truth), "\n".join(result), tmp_path, 40)
    assert {name: getattr(ours, name) for name in theirs} == pytest.approx(theirs)
    assert ours.false_positives > 100  # on cars and the like


@pytest.mark.parametrize(("kind", "wrong"), [(2, 0), (7, 0), (8, 0), (12, 0), (3, 10), (6, 10), (11, 10), (13, 10)])
def test_who_is_found_on_distractors_is_not_wrong(tmp_path: Path, kind: int, wrong: int) -> None:
    other = "".join(f"{f},5,{10 + 4 * f},300,30,80,0,{kind},0.2\n" for f in range(1, 11))
    truth = read_truth(write_truth(tmp_path / "gt.txt", {1: range(1, 11)}, other))
    both = write_result(tmp_path / "r.jsonl", [[(1, 1, "confirmed"), (2, 3, "confirmed")]] * 10)
    figures = measure_tracking(truth, read_result(both))
    assert (figures.false_positives, figures.missed, figures.people) == (wrong, 0, 1)


def test_ten_columns_are_places_in_the_room_and_no_class(tmp_path: Path) -> None:
    """As MOT15 has them: everybody counts whose flag is not 0, wherever they stand."""
    (tmp_path / "gt.txt").write_text(
        "\ufeff1,1,10,20,30,40,1,-1.6,2.2,0\n1,2,10,20,30,40,1,2,1,0\n1,3,10,20,30,40,0,1,1,0\n", "utf-8"
    )
    assert read_truth(tmp_path / "gt.txt")[1].counted.tolist() == [True, True, False]
    (tmp_path / "gt.txt").write_text("1,1,10,20,30,40,1,1,0.5,\n1,2,10,20,30,40,1,2\n")
    assert read_truth(tmp_path / "gt.txt")[1].counted.tolist() == [True, False]


def test_frames_without_truth_count_against_ghosts(tmp_path: Path) -> None:
    truth = read_truth(write_truth(tmp_path / "gt.txt", {1: range(1, 11)}))
    path = write_result(tmp_path / "r.jsonl", [[(1, 1, "confirmed")]] * 14)
    assert measure_tracking(truth, read_result(path)).false_positives == 4
    assert measure_tracking(truth, read_result(path), frames=10).false_positives == 0


def test_somebody_never_found_and_nobody_at_all(tmp_path: Path) -> None:
    truth = read_truth(write_truth(tmp_path / "gt.txt", {1: range(1, 11)}))
    figures = measure_tracking(truth, read_result(write_result(tmp_path / "r.jsonl", [[]] * 10)))
    assert (figures.idf1, figures.missed) == (0.0, 10)
    assert np.isfinite(list(figures.as_dict().values())).all()


def test_frames_in_which_nobody_is_to_be_found_have_no_figures(tmp_path: Path) -> None:
    truth = read_truth(write_truth(tmp_path / "gt.txt", {1: range(10, 15)}))
    result = read_result(write_result(tmp_path / "r.jsonl", [[(1, 1, "confirmed")]] * 14))
    with pytest.raises(UsageError, match=r"nobody is to be found in frames 1 to 5; the first .* frame 10"):
        measure_tracking(truth, result, frames=5)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("1,1,10,20,30\n", "line 1"),
        ("1,1,10,20,30,40,1\n1,2,nan,20,30,40,1\n", "line 2"),
        ("0,1,10,20,30,40\n", "from 1"),
        ("1,1,10,20,0,40\n", "width"),
        ("1,1,10,20,30,40\n1,1,11,20,30,40\n", "twice"),
        ("a,b\n", "numbers only"),
        ("1,1,10,20,30,40,,1,1\n", "numbers only"),
        ("1,1,10,20,30,40,1,1.5\n", "frame, id and class are whole numbers"),
        ("1.5,1,10,20,30,40\n", "frame, id and class are whole numbers"),
        ("1,1e30,10,20,30,40\n", "frame, id and class are whole numbers"),
        ("", "no person"),
    ],
)
def test_bad_truth_is_one_line(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "gt.txt").write_text(text)
    with pytest.raises(DataError, match=word) as caught:
        read_truth(tmp_path / "gt.txt")
    assert "\n" not in str(caught.value)


def test_a_camera_that_is_not_in_the_result_is_named(tmp_path: Path) -> None:
    path = write_result(tmp_path / "r.jsonl", [[(1, 1, "confirmed")]])
    with pytest.raises(DataError, match='no frame record of the camera "yard" in it'):
        read_result(path, camera="yard")


def test_a_result_that_was_cut_is_read_as_far_as_it_goes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_result(tmp_path / "r.jsonl", [[(1, 1, "confirmed")]] * 14)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:11]) + lines[11][:40])
    assert sorted(read_result(path)) == list(range(1, 11))
    (said,) = caplog.messages
    assert said == f"{path}: line 12 breaks off: the run was cut short; what is there was read"


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ([seen(0, [{"id": 1}])], r"line 2: people\[0\].*not a whole result"),
        ([seen(0, [found(10**30, "confirmed", [1, 2, 3, 4])])], r"line 2: people\[0\]\.id"),
        ([[]], "line 2: not a record"),
        ([], "no frame record"),
        ([seen(0, []), seen(0, [])], "frame index 0 stands there twice"),
        ([seen(0, []), HEADER, seen(0, [])], "line 3: a second header; one file holds one result, split it"),
        ([seen(0, []), {"type": "footer"}, HEADER, seen(0, [])], "line 4: a second header; one file holds one result"),
    ],
)
def test_bad_results_are_one_line(tmp_path: Path, lines: list[Any], word: str) -> None:
    write_lines(tmp_path / "r.jsonl", lines)
    with pytest.raises(DataError, match=word) as caught:
        read_result(tmp_path / "r.jsonl")
    assert "\n" not in str(caught.value)


def test_a_result_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_result(tmp_path / "none.jsonl")
