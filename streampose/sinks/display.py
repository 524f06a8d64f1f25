"""A window with the newest result of every camera, where there is a display; nothing, and no failure, where there is none.

OpenCV's windows belong to the main thread. Sinks only leave their newest result here; the main loop calls `poll`.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from streampose.errors import words_of
from streampose.messages import Control, End, Image, PoseResult
from streampose.sinks.draw import DrawOptions, DrawSkeleton, draw_people
from streampose.sinks.record import fit

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
    """The display's end for one camera; made by `Display.sink`. Keeps the newest result only."""

    name = "display"

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self.newest: PoseResult | None = None
        self.ended = False

    def write(self, message: PoseResult | Control) -> None:
        if isinstance(message, PoseResult):
            self.newest = message
        elif isinstance(message, End):
            self.ended = True

    def close(self) -> None:
        self.ended = True

    def outputs(self) -> tuple[str, ...]:
        return ()


class Display:
    """One window for all cameras, tiled. Made, polled and closed in the main thread.

    `size` (width, height) bounds the window. A result older than `stale_s` seconds is shown greyed with its age: a
    picture that stands still must not look alive.
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
        self._sinks: list[DisplaySink] = []
        self._shown: dict[str, tuple[PoseResult, bool, Image]] = {}
        self._open = False

    def sink(self, camera: str) -> DisplaySink:
        """The sink to hang on one camera."""
        made = DisplaySink(camera)
        self._sinks.append(made)
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
        key = cv2.waitKey(max(1, round(timeout_s * 1000)))
        if key >= 0 and key & 0xFF in _END_KEYS:
            return False
        return bool(cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1)

    def close(self) -> None:
        """Close the window; may be called twice."""
        if self._open:
            self._open = False
            cv2.destroyWindow(self._title)
            cv2.waitKey(1)

    def _refresh(self) -> bool:
        """Draw the results that are new or have become stale; whether anything changed."""
        changed = False
        for sink in self._sinks:
            result = sink.newest
            if result is None:
                continue
            age_s = time.monotonic() - result.frame.arrival_s
            stale = not sink.ended and age_s > self._stale_s
            known = self._shown.get(sink.camera)
            if known is not None and known[0] is result and known[1] == stale:
                continue
            image = draw_people(result.frame.image, result.people, self._skeleton, self._drawing)
            self._shown[sink.camera] = (result, stale, mark_stale(image, age_s) if stale else image)
            changed = True
        return changed

    def _compose(self) -> Image:
        names = [sink.camera for sink in self._sinks if sink.camera in self._shown]
        return tile([self._shown[name][2] for name in names], names, self._size)


def mark_stale(image: Image, age_s: float) -> Image:
    """A copy of `image` without colours, saying that nothing came for so long."""
    grey = np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8) // 2
    scale = max(0.5, image.shape[0] / 800)
    place = (round(20 * scale), image.shape[0] - round(20 * scale))
    text = f"no picture for {age_s:.0f} s or more"
    cv2.putText(grey, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), max(1, round(scale)), cv2.LINE_AA)
    return grey


def tile(images: Sequence[Image], names: Sequence[str], size: tuple[int, int]) -> Image:
    """One picture of at most `size` (width, height) with all `images` in a grid, each under its name.

    One image alone is shown whole, without a name, and never enlarged.
    """
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
