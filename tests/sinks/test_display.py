"""The window: shown on a display that is really there (Xvfb), and quietly absent where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_results import make_info, make_result

from streampose.messages import Break, Counts, End
from streampose.sinks.display import Display, DisplaySink, greyed, no_display, tile
from streampose.sinks.draw import DrawSkeleton
from streampose.sinks.memory import MemorySink

NO_DISPLAY = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}


@pytest.fixture(scope="module")
def xvfb() -> Iterator[dict[str, str]]:
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (apt-get install xvfb)")
    read_end, write_end = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write_end], stderr=subprocess.DEVNULL)
    os.close(write_end)
    with os.fdopen(read_end) as ready:
        number = ready.readline().strip()
    if not number:
        server.wait()
        pytest.skip("Xvfb does not start here")
    yield {**NO_DISPLAY, "DISPLAY": f":{number}", "QT_QPA_PLATFORM": "xcb"}
    server.terminate()
    server.wait()


def test_without_a_display_it_says_so() -> None:
    assert no_display(NO_DISPLAY) == "no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"


def test_a_display_that_is_not_there_does_not_end_the_process() -> None:
    reason = no_display({**NO_DISPLAY, "DISPLAY": ":4711"})
    assert reason is not None
    assert "cannot be opened" in reason


SHOW = """
import sys, time
sys.path.insert(0, {here!r})
import cv2, numpy as np
from made_results import make_person, make_result
from streampose.messages import Counts, End
from streampose.pose.skeleton import load_skeleton
from streampose.sinks.display import Display
from streampose.sinks.draw import DrawSkeleton
from dataclasses import replace
coco = load_skeleton("coco17")
display = Display(DrawSkeleton(coco.sides, coco.edges), size=(640, 480))
sinks = [display.sink(name) for name in ("gate", "yard")]
print(display.poll(0.01))
for index in range(20):
    for sink in sinks:
        result = make_result(index, people=[make_person(1)], size=(320, 240), camera=sink.camera)
        sink.write(replace(result, frame=replace(result.frame, arrival_s=time.monotonic())))
    assert display.poll(0.02)
sinks[0].write(End("gate", Counts()))
print(display.poll(0.02))
key = sys.argv[1]
if key == "close":
    cv2.destroyAllWindows()
    cv2.waitKey(1)
else:
    cv2.waitKeyEx = lambda wait: int(key, 16)
print(display.poll(0.01))
display.close()
display.close()
"""


@pytest.mark.parametrize(
    ("key", "goes_on"),
    [("1b", False), ("71", False), ("100051", False), ("close", False), ("ff51", True), ("ff52", True)],
    ids=["Esc", "q", "Q with Num Lock", "close", "left arrow", "up arrow"],
)
def test_a_window_shows_and_ends_when_asked(xvfb: dict[str, str], key: str, goes_on: bool) -> None:
    assert no_display(xvfb) is None
    code = SHOW.format(here=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code, key], env=xvfb, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", str(goes_on)]


def test_only_the_newest_is_kept() -> None:
    sink = DisplaySink("gate")
    for index in range(3):
        sink.write(make_result(index))
    assert sink.newest is not None
    assert sink.newest.frame.index == 2
    sink.write(End("gate", Counts()))
    assert sink.ended
    assert sink.outputs() == ()


def feed(sink: DisplaySink, red: int, *, live: bool = True) -> None:
    """A result that has just come, all of one colour."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[..., 2] = red
    result = make_result(0, image=image, camera=sink.camera)
    sink.write(Break(sink.camera, 0, make_info(live=live)))
    sink.write(replace(result, frame=replace(result.frame, arrival_s=time.monotonic())))


def end(sink: DisplaySink, error: str | None = None) -> None:
    sink.write(End(sink.camera, Counts(), error))
    sink.close()


def test_a_camera_that_begins_anew_has_one_tile_in_its_place(skeleton: DrawSkeleton) -> None:
    display = Display(skeleton, size=(320, 120), stale_s=1e9)
    gate, yard = display.sink("gate"), display.sink("yard")
    feed(gate, 200)
    feed(yard, 100)
    assert display._refresh()
    end(gate)
    again = display.sink("gate")
    assert display._refresh(), "what was there is not shown as if it were now"
    assert display._compose()[..., 2].max() < 200
    feed(again, 250)
    assert display._refresh()
    shown = display._compose()
    assert [shown[60, 80, 2], shown[60, 240, 2]] == [250, 100]
    assert not any(display._refresh() for _ in range(4)), "nothing is drawn again while nothing comes"
    assert gate.newest is None, "the run remembers its sinks; they remember no pictures"


def test_a_camera_that_was_taken_out_is_shown_no_more(skeleton: DrawSkeleton) -> None:
    display = Display(skeleton, size=(320, 120), stale_s=1e9)
    gate, yard = display.sink("gate"), display.sink("yard")
    feed(gate, 200)
    feed(yard, 100)
    display._refresh()
    end(gate)
    assert display._refresh()
    assert display._compose().shape == (120, 160, 3), "the other one alone"
    end(yard)
    assert display._refresh()
    assert not display._compose().any()
    assert not display._refresh()
    assert gate.newest is None
    assert yard.newest is None


@pytest.mark.parametrize(("live", "error"), [(False, None), (True, "no such scheme"), (False, "torn")])
def test_a_recording_that_ended_and_a_camera_that_failed_do_not_look_alive(
    live: bool, error: str | None, skeleton: DrawSkeleton
) -> None:
    display = Display(skeleton, stale_s=1e9)
    sink = display.sink("gate")
    feed(sink, 250, live=live)
    display._refresh()
    assert display._compose()[..., 0].max() == 0
    feed(sink, 200, live=live)
    end(sink, error)
    assert display._refresh(), "the last one was never drawn before"
    shown = display._compose()
    assert (shown[..., 0] == shown[..., 2]).all(), "no colour is left"
    assert shown.max() > 200, "and a text stands there"
    assert not display._refresh()
    assert sink.newest is None


def test_tiles_show_every_camera_whole() -> None:
    images = [np.full((90 + number, 160, 3), 40 + 40 * number, np.uint8) for number in range(5)]
    out = tile(images, [f"c{number}" for number in range(5)], (900, 600))
    assert out.shape == (600, 900, 3)
    assert {40, 80, 120, 160, 200} <= set(np.unique(out).tolist())
    alone = tile(images[:1], ["c0"], (900, 600))
    assert alone.shape == (90, 160, 3)
    big = tile([np.zeros((2160, 3840, 3), np.uint8)], ["x"], (1280, 720))
    assert big.shape == (720, 1280, 3)


def test_a_picture_that_stands_still_does_not_look_alive() -> None:
    image = np.zeros((120, 400, 3), np.uint8)
    image[..., 2] = 200
    out = greyed(image, "no picture for 7 s or more")
    assert (out[:60, :, 0] == out[:60, :, 2]).all(), "no colour is left"
    assert out.max() > 200, "and a text stands there"
    assert image[..., 2].min() == 200


def test_memory_keeps_everything_in_order() -> None:
    sink = MemorySink()
    messages = [make_result(0), make_result(1), End("gate", Counts(decoded=2))]
    for message in messages:
        sink.write(message)
    sink.close()
    assert sink.messages == messages
    assert [result.frame.index for result in sink.results] == [0, 1]
    assert sink.end is not None
    assert sink.closed
    assert replace(sink.end, error="x").error == "x"
