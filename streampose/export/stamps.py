"""Whether the times of a record are those of the source's stamps, as `sources/clock.py` makes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from streampose.export.spans import Floats
from streampose.sources.clock import MIN_STEP_S, STUTTER_S

_STAMP_S = 0.05  # a time further than this from its stamp is another picture's
_STAMP_SHARE = 0.01  # absurd stamps are bridged by the clock; so many may be, and in any segment a single one:
# only the picture after it tells an absurd stamp from a clock that was set
_HELD_S = (
    MIN_STEP_S + 2e-6
)  # no later than this after the one before it, a picture waits until the stamps have caught up
_PERIOD_S = 2**32 / 90000  # of RTP's counter; those of MPEG-TS and FLV are two and ninety of it

Places = npt.NDArray[np.intp]


@dataclass(slots=True)
class _Frames:
    """So many frames whose time is their stamp plus `offset_s`, and where the first of them is."""

    offset_s: float
    count: int
    first: int


def check_stamps(
    camera: str, times: Floats, stamps: Floats, segments: Sequence[tuple[int, int]], indices: npt.NDArray[np.int64]
) -> Iterator[str]:
    """A line for each segment whose times are not those of its stamps. Arrays (N,), seconds, NaN for no stamp;
    `segments`: the place of the first frame of each, and its number.

    A frame's time is its stamp plus a constant, whole counter periods aside. Stamps that do not rise, or are set back by
    less than STUTTER_S, are bridged and tell no time; behind them, or where frames are missing that may have been such, the
    constant may be larger.
    """
    for (start, segment), (end, _) in pairwise([*segments, (len(times), 0)]):
        there, here = stamps[start:end], times[start:end]
        chosen = np.flatnonzero(_telling(here, there))
        breaks = np.flatnonzero(~_rises(there) | (np.diff(indices[start:end]) > 1)) + 1
        false = list(_false(chosen, here[chosen] - there[chosen], breaks))
        count = sum(frames.count for frames in false)
        if count > max(1.0, _STAMP_SHARE * len(chosen)):
            first = start + min(frames.first for frames in false)
            yield (
                f"{camera}: segment {segment}: the times of {count} of {end - start} frames are not those of "
                f"their stamps, first frame {indices[first]} at {times[first]:.3f} s"
            )


def _rises(stamps: Floats) -> npt.NDArray[np.bool_]:
    """For each stamp but the first whether it is after the one before it."""
    return np.diff(stamps) > 0


def _telling(times: Floats, stamps: Floats) -> npt.NDArray[np.bool_]:
    """Which frames have the time of their own stamp."""
    telling = np.isfinite(stamps)
    if not telling.any():
        return telling
    place = int(telling.argmax())
    for broken in np.flatnonzero(~_rises(stamps)) + 1:
        if broken <= place:
            continue
        place, believed_s = int(broken), stamps[broken - 1]
        while place < len(stamps) and not (stamps[place] > believed_s or stamps[place] <= believed_s - STUTTER_S):
            telling[place] = False
            place += 1
    telling[1:] &= np.diff(times) > _HELD_S
    return telling


def _false(chosen: Places, offsets_s: Floats, breaks: Places) -> Iterator[_Frames]:
    """Few of the frames `chosen`, without which the offset is constant up to the next of `breaks` and never falls."""
    kept: list[_Frames] = []
    starts = np.unique(np.concatenate([[0], np.searchsorted(chosen, breaks)]))
    for start, end in zip(starts, [*starts[1:], len(chosen)], strict=True):
        if start == end:
            continue
        run_s = offsets_s[start:end]
        offset_s = float(np.partition(run_s, len(run_s) // 2)[len(run_s) // 2])
        off = np.flatnonzero(np.abs(run_s - offset_s) > _STAMP_S)
        if len(off):
            yield _Frames(offset_s, len(off), int(chosen[start + off[0]]))
        frames = _Frames(offset_s, int(end - start) - len(off), int(chosen[start]))
        while kept and _rise(kept[-1].offset_s, offset_s) < -_STAMP_S and kept[-1].count <= frames.count:
            yield kept.pop()
        rise_s = _rise(kept[-1].offset_s, offset_s) if kept else np.inf
        if rise_s > _STAMP_S:
            kept.append(frames)
        elif rise_s < -_STAMP_S:
            yield frames
        else:
            kept[-1].count += frames.count


def _rise(from_s: float, to_s: float) -> float:
    return to_s - from_s - _PERIOD_S * round((to_s - from_s) / _PERIOD_S)
