"""The test pattern: its truth, its repeatability, its bar code, its pace."""

from __future__ import annotations

import threading
import time
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampose.errors import PermanentSourceError
from streampose.sources import figures
from streampose.sources.barcode import code_size, draw_code, read_code
from streampose.sources.base import Picture
from streampose.sources.paint import scenery
from streampose.sources.synthetic import PatternOptions, SyntheticSource
from tests.clocks import OwnTime


def source(words: str = "") -> SyntheticSource:
    return SyntheticSource(PatternOptions.parse(f"test:people{words}"))


def test_the_words_are_read() -> None:
    options = PatternOptions.parse("test:people?fps=12.5&seconds=3&people=2&size=640x360&seed=9&live=1")
    assert options == PatternOptions(Fraction(25, 2), 3.0, 2, 640, 360, 9, True)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("test:cats", "no test pattern"), ("test:people?fps=x", "fps: a number is wanted, not 'x'"),
        ("test:people?speed=3", "speed is not known"),
        ("test:people?size=10x10", "size must be"), ("test:people?fps=0", "positive"), ("test:people?people=-1", "positive"),
        ("test:people?size=640", "size: a number is wanted, not ''"),
        ("test:people?fps=1/0", "fps: a number is wanted, not '1/0'"), ("test:people?seconds=inf", "sensible"),
        ("test:people?seed=-1", "seed must be 0 or more"),
        ("test:people?fps=30&seconds=600000&live=1", "18000000 pictures .fps × seconds., but their bar code"),
    ],
)  # fmt: skip
def test_wrong_words_are_one_line(url: str, says: str) -> None:
    with pytest.raises(PermanentSourceError, match=says):
        PatternOptions.parse(url)


def test_the_last_picture_of_the_longest_pattern_has_its_code() -> None:
    options = PatternOptions.parse("test:people?fps=8&seconds=2097152&people=1&size=320x240")
    assert options.frame_count == 2**24
    last = options.frame_count - 1
    assert read_code(SyntheticSource(options).draw(last)) == (last, last / 8)


def test_the_same_words_give_the_same_pictures_and_another_seed_others() -> None:
    first, again, other = source("?seed=3"), source("?seed=3"), source("?seed=4")
    assert np.array_equal(first.draw(17), again.draw(17))
    assert not np.array_equal(first.draw(17), other.draw(17))


def test_every_picture_comes_at_its_time_with_its_code() -> None:
    pattern = source("?fps=10&seconds=2&people=2&size=320x240")
    info = pattern.open()
    items = list(pattern.frames(lambda: False))
    assert (info.frame_count, info.duration_s, info.live) == (20, 2.0, False)
    assert [item.time_s for item in items] == pytest.approx([n / 10 for n in range(20)])
    assert [read_code(item.image) for item in items if isinstance(item, Picture)] == [(n, n / 10) for n in range(20)]


def test_truth_is_where_the_paint_is() -> None:
    """What differs from the empty scene lies inside the boxes (shadows aside), and each limb joint is painted over."""
    pattern = source("?people=3&seed=5")
    empty = scenery(1280, 720, 5)
    for number in (0, 40, 111):
        ids, boxes, keypoints = pattern.truth(number / 15)
        changed = np.abs(pattern.draw(number).astype(int) - empty.astype(int)).max(axis=2) > 25
        width, height = code_size()
        changed[:height, :width] = False
        inside = np.zeros_like(changed)
        for (x1, y1, x2, y2), person in zip(boxes, keypoints, strict=True):
            inside[max(0, int(y1) - 1) : int(y2) + 2, max(0, int(x1) - 1) : int(x2) + 2] = True
            limbs = np.rint(person[5:, :2]).astype(int)
            assert changed[limbs[:, 1], limbs[:, 0]].mean() > 0.8
        assert (changed & ~inside).sum() < 0.1 * changed.sum()
        assert ids.tolist() == [1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), people=st.integers(0, 8), time_s=st.floats(0, 600))
def test_truth_has_its_shapes_and_boxes_hold_the_bodies(seed: int, people: int, time_s: float) -> None:
    pattern = source(f"?seed={seed}&people={people}")
    ids, boxes, keypoints = pattern.truth(time_s)
    assert (ids.shape, boxes.shape, keypoints.shape) == ((people,), (people, 4), (people, 17, 3))
    assert (boxes.dtype, keypoints.dtype) == (np.float32, np.float32)
    if people:
        assert (keypoints[:, :, :2] >= boxes[:, None, :2]).all()
        assert (keypoints[:, :, :2] <= boxes[:, None, 2:]).all()
        assert (keypoints[:, :, 2] == 1).mean() > 0.95


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 200), time_s=st.floats(0, 120))
def test_bodies_stay_bodies_and_move_like_bodies(seed: int, time_s: float) -> None:
    for figure in figures.cast_figures(4, 1280, 720, seed):
        now, soon = figure.pose(time_s), figure.pose(time_s + 1e-3)
        for upper, joint, length in (
            (figures.L_HIP, figures.L_KNEE, figures.THIGH), (figures.R_KNEE, figures.R_ANKLE, figures.SHANK),
            (figures.L_SHOULDER, figures.L_ELBOW, figures.UPPER_ARM), (figures.R_ELBOW, figures.R_WRIST, figures.FOREARM),
        ):  # fmt: skip
            measured = np.linalg.norm(now[upper] - now[joint]) / figure.height_px
            assert measured == pytest.approx(length, rel=0.15)
        speed = np.abs(soon - now).max() / 1e-3 / figure.height_px
        assert speed < 8.0  # statures a second: nothing teleports
        assert now[[figures.L_ANKLE, figures.R_ANKLE], 1].max() == pytest.approx(
            figure.ground_px - figures.FOOT_HEIGHT * figure.height_px, abs=0.5
        )


def test_walkers_cross_and_someone_waves() -> None:
    pattern = source("?people=4")
    centres = np.array([pattern.truth(t)[1][:, [0, 2]].mean(axis=1) for t in np.arange(0, 20, 0.2)])
    order = np.argsort(centres, axis=1)
    assert len(np.unique(order, axis=0)) > 1
    waver = next(n for n, figure in enumerate(pattern.figures) if figure.action == "wave")
    _, _, keypoints = pattern.truth(1.0)
    assert keypoints[waver, figures.R_WRIST, 1] < keypoints[waver, figures.R_SHOULDER, 1]


def test_live_comes_at_its_pace() -> None:
    pattern = source("?fps=50&seconds=100&people=1&size=320x240&live=1")
    assert pattern.open().live
    began_s = time.monotonic()
    with OwnTime() as own:
        seen = list(islice(pattern.frames(lambda: False), 20))
    assert own.seconds < 1.0, "not at half of its pace, in the time that this process had"
    for item in seen:
        assert isinstance(item, Picture)
        assert item.arrival_s >= began_s + item.time_s - 0.001
        assert item.wall_source == "arrival"


def test_live_hears_the_stop_while_it_waits_for_its_next_picture() -> None:
    stop = threading.Event()
    pictures = source("?fps=0.1&people=1&size=320x240&live=1").frames(stop.is_set)
    assert isinstance(next(pictures), Picture)
    threading.Timer(0.1, stop.set).start()
    with OwnTime() as own:
        assert list(pictures) == []
    assert own.seconds < 3.0


@given(number=st.integers(0, 2**24 - 1), time_ms=st.integers(0, 2**32 - 1), cell=st.integers(2, 16))
def test_a_code_reads_back(number: int, time_ms: int, cell: int) -> None:
    width, height = code_size(cell)
    image = np.full((height + 5, width + 9, 3), 77, np.uint8)
    draw_code(image, number, time_ms / 1000, cell)
    assert read_code(image, cell) == (number, time_ms / 1000)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_plain_picture_is_no_code(level: int) -> None:
    assert read_code(np.full((100, 200, 3), level, np.uint8)) is None
    assert read_code(np.zeros((10, 10, 3), np.uint8)) is None


@pytest.mark.parametrize("crf", [28, 38])
def test_codes_survive_h264(tmp_path: Path, crf: int) -> None:
    pattern = source("?people=3&size=640x360&seconds=2")
    path = tmp_path / "coded.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=15, options={"crf": str(crf), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for number in range(30):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pattern.draw(number), format="bgr24")))
        output.mux(stream.encode(None))
    with av.open(str(path)) as reader:
        codes = [read_code(frame.to_ndarray(format="bgr24")) for frame in reader.decode(video=0)]
    assert codes == [(number, round(number / 15, 3)) for number in range(30)]
