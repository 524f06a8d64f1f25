"""Is a camera that delivers pictures still seeing anything? Frozen, dark, bright, covered, defocused, moved, no signal.

Pure: pictures and times in, changes of state out. Every fifth of a second the picture is sampled at some 160 × 90 points,
each with the pixels one and four to its right and four below it; the small distances are what tells focus from blur, which
a scaled-down picture cannot. A condition must hold for some seconds before it is said, and nothing be wrong for one before
it is taken back. Focus and view are compared with what this camera usually shows, the others with fixed limits; but noise
is fine detail, too, so a picture whose edges are sharp is in focus, however much of its usual detail is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from streampose.messages import Array, Image

Blindness: TypeAlias = Literal["frozen", "dark", "bright", "covered", "defocused", "moved", "no_signal"]

EVERY_S = 0.2  # a look a fifth of a second is enough for conditions of seconds
POINTS = 160 * 90  # sampling points
REACH = 4  # pixels; the longer of the two distances
CLEAR_S = 1.0  # every condition must be absent for so long
HOLD_S: dict[Blindness, float] = {
    "no_signal": 2.0, "dark": 3.0, "bright": 3.0, "covered": 3.0, "frozen": 20.0, "defocused": 4.0, "moved": 4.0,
}  # fmt: skip
"""How long each condition must hold before it is said; the order is that of precedence."""

DARK_LEVEL, DARK_MEAN = 48.0, 20.0  # grey levels: not even a lamp above the first, and hardly anything on average
BRIGHT_LEVEL = 225.0  # nearly everything at or above this
STRUCTURE_STEP = 6.0  # grey levels over REACH pixels: what is less is no edge
COVERED_EDGES = 0.01  # part of the points with an edge that something in front of the lens leaves over
FLAT_STEP = 2.0  # grey levels over REACH pixels that a drawn card does not reach between its edges
CARD_FLAT = 0.9  # part of the points of a card that lie in flat colour
SATURATED = 60.0  # difference of colour channels that sunlit walls do not have over the whole picture
STILL_STEP = 3.0  # grey levels; sensor noise exceeds it somewhere, coding a still picture anew does not
STILL_PART = 0.005  # part of the points that may change in a frozen picture (a running clock)
USUAL_TAU_S = 30.0  # memory of what the camera usually shows
WARM_S = 5.0  # so much must have been seen before anything is unusual
FOCUS_LOST = 0.25  # of the usual fine detail
EDGE_STEP = 16.0  # grey levels over REACH pixels: an edge that noise does not make
SHARP_EDGE = 0.11  # squared step over one pixel by that over REACH: 1/4 of edges that jump, 1/16 of slopes
TILES = (6, 8)  # down and across: lettering laid over the picture is sharp in a few of them, whatever the focus
TILE_EDGES = 5  # so many points at least tell of a tile
SHARP_TILES = 0.25  # part of the tiles that are sharp where the picture is
VIEW_KEPT = 0.3  # correlation of edges with the usual ones below which it is another view
VIEW_STEADY = 0.5  # ... where it usually is above this
VIEW_LOST = 0.1  # of the usual correlation; a view that is only out of focus keeps more
ACCEPT_S = 60.0  # a new view that stays for so long is the usual one


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One sampled picture: `grey` (h, w) float32, `edges` (2, h, w) float32 grey steps to the right and down over REACH
    pixels, `beside` (h, w) float32 those to the next pixel on the right, `detail` their mean square over the variance of
    the picture, `colour` the mean difference between the strongest and the weakest colour channel."""

    grey: Array
    edges: Array
    beside: Array
    detail: float
    colour: float


def look(image: Image) -> Look | None:
    """Sample `image` (H, W, 3) BGR uint8; None where it is too small to say anything of it."""
    height, width = image.shape[:2]
    if height <= 4 * REACH or width <= 4 * REACH:
        return None
    step = max(1, int((height * width / POINTS) ** 0.5))
    rows, columns = slice(0, height - REACH, step), slice(0, width - REACH, step)
    blue, green, red = (image[rows, columns, channel].astype(np.float32) for channel in range(3))
    beside = image[rows, 1 : width - REACH + 1 : step, 1] - green
    edges = np.empty((2, *green.shape), np.float32)
    np.subtract(image[rows, REACH:width:step, 1], green, out=edges[0])
    np.subtract(image[REACH:height:step, columns, 1], green, out=edges[1])
    colour = np.maximum(np.maximum(blue, green), red) - np.minimum(np.minimum(blue, green), red)
    detail = float(np.mean(beside * beside)) / max(float(green.var()), 1.0)
    return Look(green, edges, beside, detail, float(colour.mean()))


def sharp_part(seen: Look) -> float:
    """Part of the picture, 0..1, in whose tiles the edges are sharp."""
    across = seen.edges[0]
    (down, right), (height, width) = TILES, across.shape
    strong = np.abs(across) > EDGE_STEP

    def summed(values: Array) -> Array:
        tiled = values[: height // down * down, : width // right * right]
        sums: Array = tiled.reshape(down, height // down, right, width // right).sum(axis=(1, 3), dtype=np.float32)
        return sums

    edges, fine, coarse = summed(strong), summed(np.square(seen.beside) * strong), summed(np.square(across) * strong)
    return float(np.mean((edges >= TILE_EDGES) & (fine > SHARP_EDGE * coarse)))


def plain_blindness(seen: Look, still: bool) -> Blindness | None:
    """What one picture alone shows; `still`: it does not differ from the one before."""
    shares = np.cumsum(np.bincount(seen.grey.astype(np.uint8).ravel(), minlength=256)) / seen.grey.size
    low, high = np.searchsorted(shares, (0.05, 0.995))
    mean = float(seen.grey.mean())
    steps = np.abs(seen.edges).max(axis=0)
    flat = float(np.mean(steps <= FLAT_STEP))
    if still and flat >= CARD_FLAT and (seen.colour >= SATURATED or (flat < 0.999 and high - mean > 100.0)):
        return "no_signal"
    if mean < DARK_MEAN and high < DARK_LEVEL:
        return "dark"
    if low >= BRIGHT_LEVEL:
        return "bright"
    if float(np.mean(steps > STRUCTURE_STEP)) < COVERED_EDGES:
        return "covered"
    return None


class _Usual:
    """What this camera usually shows: its edges, how well they are met again, and its fine detail."""

    def __init__(self) -> None:
        self.edges: Array | None = None
        self.detail = 0.0
        self.match = 0.0
        self.seen_s = 0.0

    def correlation(self, edges: Array) -> float:
        """Normalised correlation of `edges` with the usual ones, -1..1; 1 where there are none yet."""
        if self.edges is None:
            return 1.0
        clipped = np.clip(edges, -32.0, 32.0)
        norm = float(np.sqrt(np.sum(clipped * clipped) * np.sum(self.edges * self.edges)))
        return float(np.sum(clipped * self.edges)) / norm if norm > 0 else 0.0

    def learn(self, seen: Look, match: float, passed_s: float) -> None:
        """Take a picture for usual; the first seconds count fully, later ones by USUAL_TAU_S."""
        self.seen_s += passed_s
        weight = max(passed_s / USUAL_TAU_S, min(1.0, passed_s / max(self.seen_s, 1e-9)))
        edges = np.clip(seen.edges, -32.0, 32.0)
        if self.edges is None:
            self.edges, self.detail, self.match = edges, seen.detail, match
        else:
            self.edges += weight * (edges - self.edges)
            self.detail += weight * (seen.detail - self.detail)
            self.match += weight * (match - self.match)


class Watch:
    """Looks at the pictures of one camera and says when it goes blind and when it sees again."""

    def __init__(self, hold_s: dict[Blindness, float] | None = None) -> None:
        self._hold_s: dict[Blindness, float] = {**HOLD_S, **(hold_s or {})}
        self.state: Blindness | None = None
        self._usual = _Usual()
        self._last: Look | None = None
        self._last_s = 0.0
        self._since_s: dict[Blindness, float] = {}
        self._absent_s: float | None = None
        self._still: Array | None = None  # the picture since which nothing moved
        self._moving: npt.NDArray[np.bool_] | None = None  # where it did all the same
        self._still_since_s = 0.0

    def reset(self) -> None:
        """The stream began anew: nothing stands still any more, unless it did and goes on to. What is usual stays, so a
        camera that was turned while it was away is found out."""
        if self.state != "frozen":
            self._still = None
        self._since_s.clear()
        self._last = None

    def see(self, image: Image, time_s: float) -> list[tuple[Blindness | Literal["seeing"], str]]:
        """Take the picture (H, W, 3) BGR uint8 of `time_s`; the changes of state with their reasons, oldest first."""
        if self._last is not None and time_s - self._last_s < EVERY_S:
            return []
        seen = look(image)
        if seen is None:
            return []
        if self._last is not None and self._last.grey.shape != seen.grey.shape:
            self.reset()
        if self._usual.edges is not None and self._usual.edges.shape != seen.edges.shape:
            self._usual = _Usual()
        passed_s = min(time_s - self._last_s, 1.0) if self._last is not None else EVERY_S
        found = self._judge(seen, time_s, passed_s)
        self._last, self._last_s = seen, time_s
        return self._decide(found, time_s)

    def _judge(self, seen: Look, time_s: float, passed_s: float) -> dict[Blindness, str]:
        """Every condition that this picture shows, and in what figures."""
        found: dict[Blindness, str] = {}
        still = self._last is not None and _changed(self._last.grey, seen.grey).mean() <= STILL_PART
        plain = plain_blindness(seen, bool(still))
        if plain is not None:
            found[plain] = f"mean grey {seen.grey.mean():.0f}, contrast {seen.grey.std():.0f}"
        if self._stands_still(seen, time_s):
            found["frozen"] = f"nothing changed since {time_s - self._still_since_s:.0f} s"
        if plain is not None:
            return found
        match = self._usual.correlation(seen.edges)
        if self._usual.seen_s >= WARM_S:
            same = match >= VIEW_LOST * self._usual.match
            if same and seen.detail < FOCUS_LOST * self._usual.detail and sharp_part(seen) < SHARP_TILES:
                found["defocused"] = f"{100 * seen.detail / self._usual.detail:.0f} % of the usual detail"
            elif self._usual.match >= VIEW_STEADY and match < VIEW_KEPT:
                found["moved"] = f"{100 * max(match, 0.0):.0f} % of the usual view"
        if not found or self._accepts(time_s):
            self._usual.learn(seen, match, passed_s)
        return found

    def _accepts(self, time_s: float) -> bool:
        """Whether what was unusual has lasted so long that it is the view now."""
        since_s = min((self._since_s[state] for state in ("moved",) if state in self._since_s), default=time_s)
        if self.state != "moved" or time_s - since_s < ACCEPT_S:
            return False
        self._usual = _Usual()
        return True

    def _stands_still(self, seen: Look, time_s: float) -> bool:
        """Whether all but a few fixed points have been the same for as long as `frozen` holds."""
        if self._still is not None and self._moving is not None and self._still.shape == seen.grey.shape:
            self._moving |= _changed(self._still, seen.grey)
            if float(self._moving.mean()) <= STILL_PART:
                return time_s - self._still_since_s >= self._hold_s["frozen"]
        self._still, self._moving = seen.grey, np.zeros(seen.grey.shape, np.bool_)
        self._still_since_s = time_s
        return False

    def _decide(self, found: dict[Blindness, str], time_s: float) -> list[tuple[Blindness | Literal["seeing"], str]]:
        self._since_s = {state: self._since_s.get(state, time_s) for state in found}
        for state in self._hold_s:
            held_s = self._hold_s[state] if state != "frozen" else 0.0  # frozen has kept its own time
            if state in found and time_s - self._since_s[state] >= held_s:
                self._absent_s = None
                if state == self.state:
                    return []
                self.state = state
                return [(state, found[state])]
        if self.state is None or found:
            self._absent_s = None
            return []
        self._absent_s = time_s if self._absent_s is None else self._absent_s
        if time_s - self._absent_s < CLEAR_S:
            return []
        before, self.state, self._absent_s = self.state, None, None
        return [("seeing", f"no longer {before.replace('_', ' ')}")]


def _changed(before: Array, now: Array) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(now - before) > STILL_STEP, np.bool_)
