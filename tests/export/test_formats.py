"""Every export read back by a reader that is not ours."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from made_results import make_person, make_result

from streampose.errors import DataError, SinkError
from streampose.export.coco import export_coco, read_image_ids
from streampose.export.csv_table import COLUMNS, export_csv
from streampose.export.mot import export_mot
from streampose.export.openpose import export_openpose
from streampose.export.parquet import export_parquet
from streampose.export.reader import ResultReader
from streampose.messages import Counts, End
from streampose.sinks.jsonl import JsonlSink
from streampose.track.association import iou
from tests.export.conftest import HEADER


def test_coco_is_evaluated_by_pycocotools(result: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    out = export_coco(ResultReader(result), tmp_path / "coco.json")
    frames = list(ResultReader(result).frames())
    truth = {
        "images": [{"id": frame["index"], "width": 160, "height": 120} for frame in frames],
        "categories": [{"id": 1, "name": "person", "keypoints": list(ResultReader(result).keypoints)}],
        "annotations": [
            {
                "id": 1 + frame["index"] * 10 + number,
                "image_id": frame["index"],
                "category_id": 1,
                "keypoints": [v for x, y, _ in person["keypoints"] for v in (x, y, 2)],
                "num_keypoints": 17,
                "bbox": [person["box"][0], person["box"][1], 50, 100],
                "area": 5000,
                "iscrowd": 0,
            }
            for frame in frames
            for number, person in enumerate(frame["people"])
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(out)), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
    entries = json.loads(out.read_text())
    assert len(entries) == 26
    assert all(isinstance(entry["image_id"], int) and 0 <= entry["score"] <= 1 for entry in entries)
    assert entries[0]["bbox"] == [10.5, 10.5, 50, 100]  # COCO counts from the edge of the first pixel


def test_coco_image_ids_come_from_names_that_are_numbers(pictures: Callable[[list[str]], Path], tmp_path: Path) -> None:
    path = pictures(["a/000000000139.jpg", "000000000785.jpg"])
    entries = json.loads(export_coco(ResultReader(path), tmp_path / "c.json").read_text())
    assert [entry["image_id"] for entry in entries] == [139, 785]
    for names in (["1.jpg", "b.jpg"], ["x/7.jpg", "y/7.jpg"]):
        path = pictures(names)
        entries = json.loads(export_coco(ResultReader(path), tmp_path / "c.json").read_text())
        assert [entry["image_id"] for entry in entries] == [0, 1]


def test_coco_image_ids_come_from_an_annotation_file(
    pictures: Callable[[list[str]], Path], result: Path, tmp_path: Path
) -> None:
    annotations = tmp_path / "annotations.json"
    images = [{"file_name": "a.jpg", "id": 50}, {"file_name": "b.jpg", "id": 7}]
    annotations.write_text(json.dumps({"images": images}))
    ids = read_image_ids(annotations)
    reader = ResultReader(pictures(["b.jpg", "sub/a.jpg"]))
    entries = json.loads(export_coco(reader, tmp_path / "c.json", ids).read_text())
    assert [entry["image_id"] for entry in entries] == [7, 50]
    with pytest.raises(DataError, match=r"c\.jpg has no id among the 2 pictures"):
        export_coco(ResultReader(pictures(["c.jpg"])), tmp_path / "c.json", ids)
    with pytest.raises(DataError, match="frame 0 has no file name, as those of a recording; leave --images away"):
        export_coco(ResultReader(result), tmp_path / "c.json", ids)
    images = [{"file_name": "train/a.jpg", "id": 3}, {"file_name": "val\\b.jpg", "id": 4}]
    annotations.write_text(
        json.dumps({"images": [*images, {"file_name": "val/c.jpg", "id": 5}, {"file_name": "c.jpg", "id": 6}]})
    )
    reader = ResultReader(pictures(["a.jpg", "b.jpg", "c.jpg", "val/c.jpg"]))
    entries = json.loads(export_coco(reader, tmp_path / "c.json", read_image_ids(annotations)).read_text())
    assert [entry["image_id"] for entry in entries] == [3, 4, 6, 5]
    annotations.write_text(json.dumps({"images": [*images, {"file_name": "val/a.jpg", "id": 5}]}))
    with pytest.raises(DataError, match=r"a\.jpg may be train/a\.jpg, val/a\.jpg of the annotation file"):
        export_coco(reader, tmp_path / "c.json", read_image_ids(annotations))
    annotations.write_text("{}")
    with pytest.raises(DataError, match="not a COCO annotation file"):
        read_image_ids(annotations)


def test_a_result_without_people_is_an_empty_list(pictures: Callable[[list[str]], Path], tmp_path: Path) -> None:
    path = pictures([])
    assert json.loads(export_coco(ResultReader(path), tmp_path / "c.json").read_text()) == []
    assert export_mot(ResultReader(path), tmp_path / "m.txt").read_text() == ""
    assert export_csv(ResultReader(path), tmp_path / "t.csv").read_text().strip() == ",".join(COLUMNS)


def test_mot_is_scored_by_trackeval(result: Path, tmp_path: Path) -> None:
    from trackeval.metrics import Identity

    out = export_mot(ResultReader(result), tmp_path / "mot.txt")
    table = np.loadtxt(out, delimiter=",")
    assert table.shape == (20, 10)
    assert table[0, :2].tolist() == [1, 1]
    assert (table[:, 7:] == -1).all()
    assert table[19].tolist() == [20, 1, 29, 10, 50, 100, 0.91, -1, -1, -1]
    everyone = np.loadtxt(
        export_mot(ResultReader(result, {"confirmed", "tentative", "coasting"}), tmp_path / "all.txt"), delimiter=","
    )
    assert len(everyone) == 26
    people = [frame["people"] for frame in ResultReader(result).frames()]
    truth = [np.array([person["id"] - 1 for person in there]) for there in people]
    corners = [np.array([person["box"] for person in there]) for there in people]
    lines = [everyone[everyone[:, 0] == 1 + frame] for frame in range(len(people))]
    scored = {
        "num_timesteps": 20, "num_gt_ids": 3, "num_tracker_ids": 3, "num_gt_dets": 26, "num_tracker_dets": len(everyone),
        "gt_ids": truth, "tracker_ids": [there[:, 1].astype(int) - 1 for there in lines],
        "similarity_scores": [
            iou(of, np.hstack((there[:, 2:4], there[:, 2:4] + there[:, 4:6])))
            for of, there in zip(corners, lines, strict=True)
        ],
    }  # fmt: skip
    assert all(np.allclose(likeness.max(axis=1), 1) for likeness in scored["similarity_scores"])
    with contextlib.redirect_stdout(io.StringIO()):
        assert Identity().eval_sequence(scored)["IDF1"] == 1
        scored["tracker_ids"][7] = scored["tracker_ids"][7][::-1]
        assert Identity().eval_sequence(scored)["IDF1"] < 1


def test_openpose_is_a_file_for_each_frame(result: Path, tmp_path: Path) -> None:
    out = export_openpose(ResultReader(result), tmp_path / "op")
    files = sorted(out.glob("*.json"))
    assert len(files) == 20
    assert files[7].name == "gate_000000000007_keypoints.json"
    seen = json.loads(files[7].read_text())
    assert seen["version"] == 1.3
    assert [person["person_id"] for person in seen["people"]] == [[1], [2]]
    source = list(ResultReader(result).frames())[7]["people"][0]
    points = np.array(seen["people"][0]["pose_keypoints_2d"]).reshape(-1, 3)
    assert points.tolist() == source["keypoints"]
    empty = [
        value for key, value in seen["people"][0].items() if key.endswith(("2d", "3d")) and key != "pose_keypoints_2d"
    ]
    assert empty == [[]] * 7


def test_a_point_that_was_never_measured_is_nowhere(tmp_path: Path) -> None:
    import pyarrow.parquet

    person = make_person(1)
    person.std[13] = np.inf
    sink = JsonlSink(tmp_path / "gate.jsonl", "gate", HEADER)
    sink.write(make_result(0, people=[person]))
    sink.write(End("gate", Counts(decoded=1)))
    reader = ResultReader(tmp_path / "gate.jsonl")
    (file,) = export_openpose(reader, tmp_path / "op").glob("*.json")
    points = np.array(json.loads(file.read_text())["people"][0]["pose_keypoints_2d"]).reshape(-1, 3)
    assert np.flatnonzero((points == 0).all(axis=1)).tolist() == [13]
    stds = pyarrow.parquet.read_table(export_parquet(reader, tmp_path / "t.parquet"))["std"].to_pylist()
    assert [joint for joint, std in enumerate(stds) if std is None] == [13]
    with export_csv(reader, tmp_path / "t.csv").open(newline="") as text:
        assert [joint for joint, line in enumerate(csv.DictReader(text)) if not line["std"]] == [13]


def test_openpose_files_of_pictures_carry_their_names(pictures: Callable[[list[str]], Path], tmp_path: Path) -> None:
    out = export_openpose(ResultReader(pictures(["a/x.jpg", "b/x.png", "y.jpg"])), tmp_path / "op")
    names = sorted(path.name for path in out.glob("*.json"))
    assert names == ["x_000000000001_keypoints.json", "x_keypoints.json", "y_keypoints.json"]


@pytest.mark.parametrize("files", [["a.jpg", "a.png", "a_000000000001.jpg"], ["a_000000000001.jpg", "a.jpg", "a.png"]])
def test_every_picture_has_an_openpose_file_of_its_own_also_where_its_name_has_the_form_of_a_number(
    files: list[str], pictures: Callable[[list[str]], Path], tmp_path: Path
) -> None:
    out = export_openpose(ResultReader(pictures(files)), tmp_path / "op")
    ids = [json.loads(path.read_text())["people"][0]["person_id"] for path in out.glob("*.json")]
    assert sorted(ids) == [[0], [1], [2]]


def test_openpose_files_differ_by_more_than_case(pictures: Callable[[list[str]], Path], tmp_path: Path) -> None:
    out = export_openpose(ResultReader(pictures(["A.jpg", "a.jpg", "Straße.jpg", "STRASSE.jpg"])), tmp_path / "op")
    names = [path.name for path in out.glob("*.json")]
    assert "A_keypoints.json" in names
    assert len({name.casefold() for name in names}) == 4


def shortened(result: Path, lines: int) -> None:
    """Leave the first `lines` and the footer, whose counts no export reads."""
    kept = result.read_text().splitlines(keepends=True)
    result.write_text("".join([*kept[:lines], kept[-1]]))


def test_openpose_files_of_an_earlier_longer_export_are_gone(result: Path, tmp_path: Path) -> None:
    others = {"yard_000000000099_keypoints.json", "gate_notes.json"}
    for name in others:
        (tmp_path / "op").mkdir(exist_ok=True)
        (tmp_path / "op" / name).write_text("{}")

    def exported(path: Path) -> set[str]:
        return {file.name for file in export_openpose(ResultReader(path), tmp_path / "op").glob("*.json")}

    assert len(exported(result)) == 22
    shortened(result, 10)
    assert len(exported(result)) == 10
    (tmp_path / "moved").mkdir()
    shortened(result, 7)
    result = result.rename(tmp_path / "moved" / result.name)
    names = exported(result)
    assert len(names) == 7
    assert others < names


def test_openpose_files_of_the_pictures_of_another_result_stay(
    pictures: Callable[[list[str]], Path], tmp_path: Path
) -> None:
    """Names of pictures begin anew in each folder."""
    monday = pictures(["img_000.jpg", "img_001.jpg"]).rename(tmp_path / "monday.jsonl")
    tuesday = pictures(["img_001.jpg", "img_002.jpg"]).rename(tmp_path / "tuesday.jsonl")
    tuesday.write_text(tuesday.read_text().replace('"run":"', '"run":"1'))
    out = export_openpose(ResultReader(monday), tmp_path / "op")
    there = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(
        SinkError, match=r"op: img_001_keypoints\.json and others there are not known to be of .*tuesday"
    ):
        export_openpose(ResultReader(tuesday), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == there
    monday.write_text(pictures(["img_001.jpg"]).read_text())
    export_openpose(ResultReader(monday), out)
    assert [path.name for path in out.glob("*.json")] == ["img_001_keypoints.json"]


def test_openpose_files_of_another_result_stay(result: Path, tmp_path: Path) -> None:
    parts = []
    for place in ("gate/2026-11-25", "yard/2026-11-25", "yard/2026-11-26"):
        parts.append(tmp_path / place / "02-30-00.jsonl")
        parts[-1].parent.mkdir(parents=True)
        parts[-1].write_text(result.read_text().replace('"camera":"gate"', f'"camera":"{place[:4]}"'))
    for part in parts:
        out = export_openpose(ResultReader(part), tmp_path / "op")
    assert len(list(out.glob("*.json"))) == 60
    assert (out / "yard_2026-11-26_02-30-00_000000000019_keypoints.json").is_file()
    other = tmp_path / "other" / "gate.jsonl"
    other.parent.mkdir()
    other.write_text(result.read_text().replace('"run":"', '"run":"1'))
    export_openpose(ResultReader(result), out)
    there = sorted(out.iterdir())
    with pytest.raises(
        SinkError, match=r"op: gate_0.* are not known to be of .*other/gate\.jsonl; delete them, or name an"
    ):
        export_openpose(ResultReader(other), out)
    for spoilt in ("[", "[]"):
        (out / ".gate.streampose").write_text(spoilt)
        with pytest.raises(SinkError, match="not known"):
            export_openpose(ResultReader(result), out)
    assert sorted(out.iterdir()) == there


@pytest.mark.parametrize("export", [export_coco, export_mot, export_csv, export_parquet])
def test_what_is_no_file_is_written_through_and_a_link_is_followed(
    export: Callable[[ResultReader, Path], Path], result: Path, tmp_path: Path
) -> None:
    reader = ResultReader(result)
    expected = export(reader, tmp_path / "plain").read_bytes()
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "far" / "target"
    os.mkfifo(pipe)
    target.parent.mkdir()
    link.symlink_to(target)
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(pipe.read_bytes)
        assert export(reader, pipe) == pipe
        assert read.result(10) == expected
    assert pipe.is_fifo()
    assert export(reader, link) == link
    assert link.is_symlink()
    assert target.read_bytes() == expected
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_csv_and_parquet_are_read_by_others_and_say_the_same(result: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    with export_csv(ResultReader(result), tmp_path / "t.csv").open(newline="") as file:
        text = list(csv.DictReader(file))
    table = pyarrow.parquet.read_table(export_parquet(ResultReader(result), tmp_path / "t.parquet"))
    rows = table.to_pylist()
    assert list(text[0]) == table.column_names == list(COLUMNS)
    assert len(text) == len(rows) == 26 * 17
    for line, row in zip(text, rows, strict=True):
        for name, kind in COLUMNS.items():
            assert (kind(line[name]) if line[name] else None) == row[name], name
    knee = [row for row in rows if row["id"] == 2 and row["joint"] == "left_knee"]
    assert [row["index"] for row in knee] == [5, 6, 7, 8, 9]
    assert {(row["raw_x"], row["joint_state"]) for row in knee} == {(None, "coasted")}
    source = list(ResultReader(result).frames())[5]["people"][1]
    assert [knee[0][name] for name in ("x", "y", "score")] == source["keypoints"][13]
    assert [knee[0][name] for name in ("x1", "y1", "x2", "y2")] == source["box"]


def test_a_name_that_is_not_utf_8_is_escaped(pictures: Callable[[list[str]], Path], tmp_path: Path) -> None:
    import pyarrow.parquet

    reader = ResultReader(pictures([os.fsdecode(b"b\xff.png")]))
    assert "b\\udcff.png" in export_csv(reader, tmp_path / "t.csv").read_text()
    table = pyarrow.parquet.read_table(export_parquet(reader, tmp_path / "t.parquet"))
    assert set(table["file"].to_pylist()) == {"b\\udcff.png"}


@pytest.mark.parametrize("export", [export_coco, export_mot, export_openpose, export_csv, export_parquet])
def test_an_unwritable_place_is_one_line(
    export: Callable[[ResultReader, Path], Path], result: Path, tmp_path: Path
) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(SinkError) as caught:
        export(ResultReader(result), tmp_path / "x" / "y")
    assert str(tmp_path / "x" / "y") in str(caught.value)
    assert "--out" in str(caught.value)
    assert (tmp_path / "x").read_text() == ""


@pytest.mark.parametrize("export", [export_coco, export_mot, export_csv, export_parquet])
def test_a_name_that_cannot_be_is_one_line(
    export: Callable[[ResultReader, Path], Path], result: Path, tmp_path: Path
) -> None:
    with pytest.raises(SinkError, match="cannot be written"):
        export(ResultReader(result), tmp_path / ("x" * 300))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("export", [export_coco, export_mot, export_csv, export_parquet])
def test_a_full_disk_is_one_line_and_leaves_no_half_export(
    export: Callable[[ResultReader, Path], Path], result: Path, tmp_path: Path
) -> None:
    out = tmp_path / "table"
    Path(f"{out}.part").symlink_to("/dev/full")
    with pytest.raises(SinkError) as caught:
        export(ResultReader(result), out)
    assert str(caught.value) == f"{out}: cannot be written (No space left on device); choose another place with --out"
    assert not os.path.lexists(f"{out}.part")


def test_a_folder_that_is_a_file_is_said_for_a_result_without_frames(
    pictures: Callable[[list[str]], Path], tmp_path: Path
) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(SinkError, match="x: cannot be written"):
        export_openpose(ResultReader(pictures([])), tmp_path / "x")


def test_a_damaged_result_leaves_the_old_export(result: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    out.write_text("old")
    lines = result.read_text().splitlines(keepends=True)
    lines[5] = "{}\n"
    result.write_text("".join(lines))
    for export in (export_csv, export_parquet, export_mot, export_coco):
        with pytest.raises(DataError, match="line 6"):
            export(ResultReader(result), out)
    assert out.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gate.jsonl", "t.csv"]
