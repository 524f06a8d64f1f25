"""`test:people`: figures that walk, cross and wave, with the truth known for every instant.

`test:people?fps=15&seconds=20&people=4&size=1280x720&seed=1&live=1`. Each picture carries its number and time as a bar
code, which has room for 2**24 pictures (six days at 30 fps): more are refused. With `live=1` it comes at its time, as from
a camera. The same words give the same pictures everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from streampose.errors import PermanentSourceError
from streampose.messages import Array, Image, SourceInfo
from streampose.sources import figures
from streampose.sources.barcode import NUMBER_BITS, code_size, draw_code
from streampose.sources.base import Corrupt, Picture, SourceKind, check_live
from streampose.sources.figures import Figure
from streampose.sources.paint import draw_figure, scenery

LONGEST_S = 30 * 86400.0  # of a pattern: its bar code has no room for more than 49 days
MOST_PICTURES = 1 << NUMBER_BITS  # of a pattern: each has a number in its bar code
NAP_S = 0.05  # how long a paced source sleeps before it looks at `stopped` again


@dataclass(frozen=True, slots=True)
class PatternOptions:
    """What stands behind `test:people?`."""

    fps: Fraction = Fraction(15)
    seconds: float = 20.0
    people: int = 4
    width: int = 1280
    height: int = 720
    seed: int = 1
    live: bool = False

    @property
    def frame_count(self) -> int:
        return max(1, round(self.seconds * self.fps))

    @classmethod
    def parse(cls, url: str) -> PatternOptions:
        """Read `test:people?key=value&...`. Raises PermanentSourceError that names the word which is wrong."""
        pattern, _, query = url.removeprefix("test:").partition("?")
        if pattern != "people":
            raise PermanentSourceError(
                f"{url}: there is no test pattern {pattern!r}; there is test:people", kind="usage"
            )
        words = dict(parse_qsl(query, keep_blank_values=True))
        width, height = words.pop("size", f"{cls().width}x{cls().height}").lower().partition("x")[::2]
        known = {"fps": Fraction, "seconds": float, "people": int, "seed": int}
        try:
            live = bool(_number(int, "live", words.pop("live", "0")))
            if unknown := set(words) - set(known):
                raise ValueError(f"{', '.join(sorted(unknown))} is not known; known are {', '.join(known)}, size, live")
            values: dict[str, Any] = {key: _number(known[key], key, value) for key, value in words.items()}
            across, down = _number(int, "size", width), _number(int, "size", height)
            options = cls(width=across, height=down, live=live, **values)
        except ValueError as error:
            raise PermanentSourceError(f"{url}: {error}", kind="usage") from None
        least = code_size()
        if not (0 < options.fps <= 1000 and 0 < options.seconds <= LONGEST_S and 0 <= options.people <= 100):
            raise PermanentSourceError(f"{url}: fps, seconds and people must be positive and sensible", kind="usage")
        if options.frame_count > MOST_PICTURES:
            raise PermanentSourceError(
                f"{url}: {options.frame_count} pictures (fps × seconds), but their bar code counts no more than "
                f"{MOST_PICTURES}",
                kind="usage",
            )
        if options.seed < 0:
            raise PermanentSourceError(f"{url}: seed must be 0 or more", kind="usage")
        if not (least[0] <= options.width <= 8192 and least[1] <= options.height <= 8192):
            raise PermanentSourceError(f"{url}: size must be between {least[0]}x{least[1]} and 8192x8192", kind="usage")
        return options


def _number(kind: Callable[[str], Any], key: str, text: str) -> Any:
    try:
        return kind(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{key}: a number is wanted, not {text!r}") from None


class SyntheticSource:
    """The pattern as a source. `figures` are its people; `truth` says where they are."""

    def __init__(self, options: PatternOptions | None = None) -> None:
        self.options = options or PatternOptions()
        o = self.options
        self.figures: tuple[Figure, ...] = figures.cast_figures(o.people, o.width, o.height, o.seed)
        self._background: Image | None = None

    def open(self, live_only: bool = False) -> SourceInfo:
        o = self.options
        self._background = scenery(o.width, o.height, o.seed)
        info = SourceInfo(
            url="test:people",
            kind="synthetic",
            live=o.live,
            width=o.width,
            height=o.height,
            nominal_fps=float(o.fps),
            duration_s=o.seconds,
            frame_count=o.frame_count,
        )
        check_live(info, live_only)
        return info

    def frames(self, stopped: Callable[[], bool]) -> Iterator[Picture | Corrupt]:
        """Every picture of the pattern; live ones not before their time."""
        live, step = self.options.live, 1 / self.options.fps
        began_s, began_wall_s = time.monotonic(), time.time()
        for number in range(self.options.frame_count):
            time_s = float(number * step)
            while live and not stopped() and (early_s := began_s + time_s - time.monotonic()) > 0:
                time.sleep(min(early_s, NAP_S))
            if stopped():
                return
            yield Picture(
                image=self.draw(number),
                pts=number,
                time_base=step,
                time_s=time_s,
                wall_s=began_wall_s + time_s if live else None,
                wall_source="arrival" if live else "none",
                arrival_s=time.monotonic(),
                wall_uncertainty_s=0.001 if live else None,
                captured_s=began_s + time_s if live else None,
            )

    def close(self) -> None:
        self._background = None

    def draw(self, number: int) -> Image:
        """Picture `number` (H, W, 3) BGR uint8."""
        if self._background is None:
            self._background = scenery(self.options.width, self.options.height, self.options.seed)
        image = self._background.copy()
        time_s = float(number / self.options.fps)
        for figure in sorted(self.figures, key=lambda one: one.ground_px):
            draw_figure(image, figure, figure.pose(time_s))
        draw_code(image, number, time_s)
        return image

    def truth(self, time_s: float) -> tuple[npt.NDArray[np.int64], Array, Array]:
        """Who is where at `time_s`: ids (N,), boxes (N, 4) float32 xyxy, keypoints (N, 17, 3) float32 x, y, visible.

        `visible` is 1 inside the picture and 0 outside; who hides behind whom does not count.
        """
        poses = [figure.pose(time_s) for figure in self.figures]
        ids = np.array([figure.id for figure in self.figures], np.int64)
        boxes = [figures.figure_box(pose, figure.height_px) for figure, pose in zip(self.figures, poses, strict=True)]
        keypoints = np.array([pose[:, :2] for pose in poses], np.float32).reshape(-1, 17, 2)
        size = np.array([self.options.width, self.options.height], np.float32)
        inside = ((keypoints >= -0.5) & (keypoints < size - 0.5)).all(axis=2, keepdims=True)
        return (
            ids,
            np.array(boxes, np.float32).reshape(-1, 4),
            np.concatenate([keypoints, inside], axis=2, dtype=np.float32),
        )


SYNTHETIC = SourceKind(
    takes=lambda address: address.startswith("test:"),
    make=lambda address, *_: SyntheticSource(PatternOptions.parse(address)),
    live=lambda address: PatternOptions.parse(address).live,
    no_packets="a test pattern has no stream to record",
)
