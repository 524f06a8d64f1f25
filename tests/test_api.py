"""The Python API: which pictures come back under which keys, what a Watcher honours, and misuse in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import streampose
from streampose.errors import ConfigError, PermanentSourceError, StreamposeError, UsageError

SMALL = ("detect.size=320",)


@pytest.fixture
def folders(tmp_path: Path, short_clip: Path) -> Path:
    """Folders `a/yard` and `b/yard` with a picture of one name, and one that is none."""
    frame = next(streampose.open_source(str(short_clip)))
    for name in ("a/yard/one.jpg", "b/yard/one.jpg", "b/yard/two.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), frame.image[::2, ::2] if name.startswith("b") else frame.image)
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return tmp_path


def test_no_picture_is_lost_to_another_of_its_name_or_to_one_that_is_torn(
    folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a, b, torn = folders / "a" / "yard", folders / "b" / "yard", folders / "torn.jpg"
    found = streampose.annotate_images(torn, a, b, b / "two.jpg", settings=SMALL)
    assert set(found) == {str(a / "one.jpg"), str(b / "one.jpg"), "two.jpg"}
    large, small = found[str(a / "one.jpg")], found[str(b / "one.jpg")]
    assert large["bounding_box"][:, 2].max() > 384
    assert (small["bounding_box"][:, 2] <= 384).all(), "people of the smaller picture, under its own key"
    boxes, points = large["bounding_box"], large["key_points"]
    assert (boxes.shape, points.shape) == ((len(points), 4), (len(boxes), 17, 3))
    inside = (points[..., 0].mean(axis=1) > boxes[:, 0]) & (points[..., 0].mean(axis=1) < boxes[:, 2])
    assert inside.all()
    (said,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert said.startswith(f"{torn} is not a picture that can be decoded")


def test_where_no_picture_can_be_read_the_file_is_named(folders: Path) -> None:
    with pytest.raises(PermanentSourceError, match=r"torn\.jpg is not a picture that can be decoded"):
        streampose.annotate_images(folders / "torn.jpg", settings=SMALL)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda f: streampose.annotate_images(), UsageError, "name a picture or a folder"),
        (lambda f: streampose.annotate_images(Path(__file__)), UsageError, "no picture and no folder of them"),
        (lambda f: streampose.annotate_images(f / "none.jpg"), PermanentSourceError, "none.jpg does not exist"),
        (lambda f: streampose.annotate_images("rtsp://me:secret@cam/1"), UsageError, r"rtsp://\*\*\*@cam/1: no file or"),
        (lambda f: streampose.annotate_images(f, settings="detect.size=320"), UsageError, "settings: texts such as"),
        (lambda f: streampose.annotate_images(f, settings=("sinks=[]",)), UsageError, "settings: sinks cannot be set"),
        (lambda f: streampose.annotate_images(f, settings=(f"sinks.0.jsonl.path={f}/x",)), UsageError, "sinks cannot be"),
        (lambda f: next(streampose.open_source(f, skip="x")), PermanentSourceError, "skip: 'x' is not known; known"),
        (lambda f: next(streampose.open_source("test:people", transport=1)), PermanentSourceError, "transport: 1 is"),
        (lambda f: streampose.Watcher(["detect.size=320"]), UsageError, "settings: texts such as"),  # type: ignore[arg-type]
        (lambda f: streampose.Watcher("smooth.offline=true"), ConfigError, "smooth.offline: a Watcher sees each frame"),
        (lambda f: streampose.Watcher("cameras.camera.max_age=1"), UsageError, "settings: cameras cannot be set for a W"),
        (lambda f: streampose.Watcher("sinks=[{jsonl: {}}]"), UsageError, "settings: sinks cannot be set for a Watcher"),
        (lambda f: streampose.Watcher("detect.model=${NOPE}"), ConfigError, "detect.model: the environment variable NOPE"),
        (lambda f: streampose.annotate_images(f, settings=("pose.model=${NOPE}",)), ConfigError, "pose.model: the environ"),
    ],
)  # fmt: skip
def test_misuse_is_one_line(
    call: Callable[[Path], Any], error: type[StreamposeError], words: str, folders: Path
) -> None:
    with pytest.raises(error, match=words) as caught:
        call(folders / "a" / "yard")
    assert "\n" not in str(caught.value)
    assert not (folders / "a" / "yard" / "x").exists()


def test_a_watcher_detects_as_rarely_as_it_is_told(short_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = streampose.Watcher(*SMALL, "detect.every=3", "track.confirm_after=1")
    asked: list[int] = []
    detector = watch._detector

    def counted(images: list[Any]) -> Any:
        asked.append(index)
        return detector(images)

    monkeypatch.setattr(watch, "_detector", counted)
    for index, frame in zip(range(5), streampose.open_source(str(short_clip)), strict=False):  # noqa: B007
        assert watch(frame), "between detections the tracks carry their people"
    assert asked == [0, 3]


def test_a_setting_may_come_from_the_environment(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the settings alone: a folder may be called like a variable."""
    monkeypatch.setenv("LEAST", "0.99")
    odd = folders / "${NOPE}"
    odd.mkdir()
    (folders / "a" / "yard" / "one.jpg").rename(odd / "${THERE}.jpg")
    found = streampose.annotate_images(odd, odd / "${THERE}.jpg", settings=SMALL)
    assert [len(people["bounding_box"]) > 0 for people in found.values()] == [True]
    nobody = streampose.annotate_images(odd, settings=(*SMALL, "detect.threshold=${LEAST}"))
    assert [len(people["bounding_box"]) for people in nobody.values()] == [0]


def test_a_watcher_takes_a_second_recording_for_a_new_source(short_clip: Path) -> None:
    """Nobody is followed into it, though its times begin again near 0; ids go on."""
    watch = streampose.Watcher(*SMALL)
    runs: list[list[tuple[streampose.Person, ...]]] = []
    for _ in range(2):
        frames = zip(range(8), streampose.open_source(str(short_clip)), strict=False)
        runs.append([watch(frame) for _, frame in frames])
    first, second = ([[(p.state, p.box.tolist()) for p in people] for people in run] for run in runs)
    assert first == second
    assert "confirmed" in {state for state, _ in second[-1]}
    old, new = ({person.id for people in run for person in people} for run in runs)
    assert old
    assert min(new) > max(old)


def test_a_watcher_knows_people_again_by_their_clothes(short_clip: Path) -> None:
    """After five seconds, when the place alone says nothing any more."""
    frame = next(streampose.open_source(str(short_clip)))
    dark, other_clothes = np.zeros_like(frame.image), frame.image // 2 + 120
    for again, known in ((frame.image, True), (other_clothes, False)):
        watch = streampose.Watcher(*SMALL, "track.confirm_after=1")
        images = [frame.image, *[dark] * 25, again]
        seen = [watch(replace(frame, index=n, time_s=n / 5, image=image)) for n, image in enumerate(images)]
        before, after = ({person.id for person in seen[n] if person.state == "confirmed"} for n in (0, -1))
        assert before
        assert after
        assert bool(before & after) == known


def test_a_watcher_takes_pictures_one_by_one(folders: Path, short_clip: Path) -> None:
    """As annotate_images does: everybody in them is sure, nobody is followed, and the recording after them begins anew."""
    yard = folders / "b" / "yard"
    cv2.imwrite(str(yard / "zero.jpg"), np.zeros((288, 384, 3), np.uint8))
    settings = (*SMALL, "detect.every=2")
    alone = streampose.annotate_images(yard, settings=settings)
    watch = streampose.Watcher(*settings)
    found = {frame.file: watch(frame) for frame in streampose.open_source(str(yard))}
    assert {name: len(people) for name, people in found.items()} == {
        name: len(people["bounding_box"]) for name, people in alone.items()
    }
    assert [len(people) > 0 for people in found.values()] == [True, True, False]
    ids = [person.id for people in found.values() for person in people]
    assert ids == list(range(1, len(ids) + 1))
    for name, people in found.items():
        assert {person.state for person in people} <= {"confirmed"}
        points = [person.keypoints for person in people]
        np.testing.assert_allclose(points, list(alone[str(name)]["key_points"]), atol=0.006)  # a record has 2 decimals
    recorded = watch(next(streampose.open_source(str(short_clip))))
    assert {person.state for person in recorded} == {"tentative"}
    assert min(person.id for person in recorded) > len(ids)


@pytest.mark.parametrize("new", ["", "camera", "size"])
def test_a_watcher_takes_the_next_clip_for_a_new_source_though_it_got_one_frame_of_each(
    new: str, short_clip: Path
) -> None:
    """Also where its camera or size alone tells, and where it is the very same frame."""
    watch = streampose.Watcher(*SMALL, "detect.every=9", "track.confirm_after=1")
    frame = next(streampose.open_source(str(short_clip)))
    changes: dict[str, dict[str, Any]] = {
        "": {},
        "camera": {"index": 1, "camera": "yard"},
        "size": {"index": 1, "image": frame.image[::2, ::2].copy()},
    }
    first, second = (watch(f) for f in (frame, replace(frame, **changes[new])))
    assert first
    assert second, "looked for anew in the first frame of a source"
    assert not {person.id for person in first} & {person.id for person in second}


@pytest.mark.skipif(sys.platform == "win32", reason="has no limits of a process")
def test_pictures_are_not_lost_where_temporary_files_cannot_be_written(folders: Path) -> None:
    program = f"""
import resource, signal, streampose
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
streampose.annotate_images({str(folders / "a" / "yard")!r}, settings={SMALL!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
streampose.annotate_images({str(folders / "a" / "yard")!r}, {str(folders / "b" / "yard")!r}, settings={SMALL!r})
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=280)
    assert ended.returncode == 1
    assert "SinkError" in ended.stderr.splitlines()[-1]


def test_a_type_checker_sees_what_there_is_and_nothing_else(tmp_path: Path) -> None:
    program = """
from contextlib import closing
from pathlib import Path
import streampose
with closing(streampose.open_source(Path("gate.mp4"))) as frames:
    for frame in frames:
        print(frame.index)
streampose.Wacher()
"""
    (tmp_path / "user.py").write_text(program)
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(tmp_path / "user.py")],
        env={**os.environ, "MYPYPATH": str(Path(streampose.__file__).parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    said = [line for line in ended.stdout.splitlines() if "user.py" in line]
    assert len(said) == 1, ended.stdout
    assert 'Module has no attribute "Wacher"' in said[0]
