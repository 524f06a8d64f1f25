"""A window with the newest result of every camera, where there is a display; nothing, and no failure, where there is none.

OpenCV's windows belong to the main thread. Sinks only leave their newest result here; the main loop calls `poll`.
"""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from streampose.errors import words_of
from streampose.messages import Break, Control, End, Image, PoseResult
from streampose.sinks.base import Background, Given, SinkConfig
from streampose.sinks.draw import DrawOptions, DrawSkeleton, draw_people
from streampose.sinks.record import fit

log = logging.getLogger(__name__)
_PROBE = "import cv2; cv2.namedWindow('streampose'); cv2.waitKey(1); cv2.destroyAllWindows()"
_END_KEYS = (27, ord("q"), ord("Q"))


def no_display(environment: Mapping[str, str] | None = None, timeout_s: float = 15.0) -> str | None:
    """Why no window can be shown, in a few words, or None where one can.

    The window toolkit inside OpenCV ends the whole process where the display does not answer or its libraries are
    missing, so a process of its own tries first.
    """
    variables = os.environ if environment is None else environment
    if sys.platform.startswith("linux") and not (variables.get("DISPLAY") or variables.get("WAYLAND_DISPLAY")):
        return "no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE], env=dict(variables), capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"the display did not answer in {timeout_s:g} s"
    except OSError as error:
        return f"the display could not be tried ({words_of(error)})"
    if probe.returncode == 0:
        return None
    return f"a window cannot be opened (display {variables.get('DISPLAY') or variables.get('WAYLAND_DISPLAY')!r})"


class DisplaySink:
    """The display's end for one camera; made by `Display.sink`. Keeps the newest result only, and none once the
    display has seen that it is the last.

    `ended`: no more come. `gone`: the camera was taken out, or the run ends, for a live one does not end by itself without
    an error.
    """

    name = "display"
    newest_only = True

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self.newest: PoseResult | None = None
        self.ended = False
        self.gone = False
        self._live = False

    def write(self, message: PoseResult | Control) -> None:
        if isinstance(message, PoseResult):
            self.newest = message
        elif isinstance(message, Break):
            self._live = message.info.live
        elif isinstance(message, End):
            self.gone = self._live and message.error is None
            self.ended = True

    def close(self) -> None:
        self.ended = True

    def outputs(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class _Tile:
    """What is shown of one camera: `image`, drawn from `result`, of which a tile that is never drawn again keeps none."""

    image: Image
    result: PoseResult | None = None
    stale: bool = False


class Display:
    """One window for all cameras, tiled. Made, polled and closed in the main thread.

    `size` (width, height) bounds the window. A picture that stands still must not look alive: a result older than `stale_s`
    seconds is shown greyed with its age, the last one of a recording that ended or a camera that failed as `ended`. A camera
    that was taken out is shown no more.
    """

    def __init__(
        self,
        skeleton: DrawSkeleton,
        drawing: DrawOptions | None = None,
        *,
        size: tuple[int, int] = (1280, 720),
        stale_s: float = 3.0,
        title: str = "streampose",
    ) -> None:
        self._skeleton = skeleton
        self._drawing = drawing or DrawOptions()
        self._size = size
        self._stale_s = stale_s
        self._title = title
        self._sinks: dict[str, DisplaySink] = {}
        self._shown: dict[str, _Tile] = {}
        self._changed = False
        self._open = False

    def sink(self, camera: str) -> DisplaySink:
        """The sink to hang on one camera; it takes the place of an earlier one of that name."""
        if camera in self._sinks:
            self._draw(camera)
        made = self._sinks[camera] = DisplaySink(camera)
        return made

    def poll(self, timeout_s: float) -> bool:
        """Show what is new and look at the keys for about `timeout_s`; False once the user asks for the end.

        Esc, q and the window's close button ask for it.
        """
        if self._refresh():
            cv2.imshow(self._title, self._compose())
            self._open = True
        if not self._open:
            time.sleep(timeout_s)
            return True
        key = cv2.waitKeyEx(max(1, round(timeout_s * 1000)))
        if key & 0xFFFF in _END_KEYS:  # above are modifiers; of the low byte alone the left arrow, 0xff51, is a Q
            return False
        return bool(cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1)

    def close(self) -> None:
        """Close the window; may be called twice."""
        if self._open:
            self._open = False
            cv2.destroyWindow(self._title)
            cv2.waitKey(1)

    def _refresh(self) -> bool:
        """Draw the results that are new, have become stale or were the last; whether anything changed."""
        for camera in self._sinks:
            self._draw(camera)
        changed, self._changed = self._changed, False
        return changed

    def _draw(self, camera: str) -> None:
        sink, shown = self._sinks[camera], self._shown.get(camera)
        if sink.ended:
            self._draw_last(sink, shown)
            return
        result = sink.newest
        if result is None:
            return
        age_s = time.monotonic() - result.frame.arrival_s
        stale = age_s > self._stale_s
        if shown is not None and shown.result is result and shown.stale == stale:
            return
        image = self._draw_people(result)
        image = greyed(image, f"no picture for {age_s:.0f} s or more") if stale else image
        self._shown[camera] = _Tile(image, result, stale)
        self._changed = True

    def _draw_last(self, sink: DisplaySink, shown: _Tile | None) -> None:
        """What stays of a camera that ended; its pictures are let go of, since the run remembers its sinks to the end."""
        result, sink.newest = sink.newest or (None if shown is None else shown.result), None
        if sink.gone:
            self._changed |= self._shown.pop(sink.camera, None) is not None
        elif result is not None:
            self._shown[sink.camera] = _Tile(greyed(self._draw_people(result), "ended"))
            self._changed = True

    def _draw_people(self, result: PoseResult) -> Image:
        return draw_people(result.frame.image, result.people, self._skeleton, self._drawing)

    def _compose(self) -> Image:
        names = [camera for camera in self._sinks if camera in self._shown]
        return tile([self._shown[name].image for name in names], names, self._size)


def greyed(image: Image, words: str) -> Image:
    """A copy of `image` without colours that says why."""
    grey = np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8) // 2
    scale = max(0.5, image.shape[0] / 800)
    place = (round(20 * scale), image.shape[0] - round(20 * scale))
    cv2.putText(grey, words, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), max(1, round(scale)), cv2.LINE_AA)
    return grey


def tile(images: Sequence[Image], names: Sequence[str], size: tuple[int, int]) -> Image:
    """One picture of at most `size` (width, height) with all `images` in a grid, each under its name.

    One image alone is shown whole, without a name, and never enlarged; without any the picture is black.
    """
    if not images:
        return np.zeros((size[1], size[0], 3), np.uint8)
    if len(images) == 1:
        height, width = images[0].shape[:2]
        scale = min(1.0, size[0] / width, size[1] / height)
        return fit(images[0], (max(1, round(width * scale)), max(1, round(height * scale))))
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    cell = (size[0] // columns, size[1] // rows)
    canvas = np.zeros((cell[1] * rows, cell[0] * columns, 3), np.uint8)
    for number, (image, name) in enumerate(zip(images, names, strict=True)):
        left, top = number % columns * cell[0], number // columns * cell[1]
        canvas[top : top + cell[1], left : left + cell[0]] = fit(image, cell)
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(
                canvas, name, (left + 8, top + 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, thickness, cv2.LINE_AA
            )
    return canvas


class DisplayConfig(SinkConfig):
    """A window, where there is a display."""

    background: Background = "image"

    def window(self, skeleton: Callable[[], DrawSkeleton]) -> Display | None:
        """See `SinkConfig`; where there is no display one line says why."""
        reason = no_display()
        if reason is None:
            return Display(skeleton(), DrawOptions(background=self.background))
        log.info("display: %s; everything else goes on", reason)
        return None

    def sink(self, given: Given) -> DisplaySink | None:
        return None if given.display is None else given.display.sink(given.camera)
