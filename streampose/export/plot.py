"""A person's joint paths over time as a picture: raw against smoothed, how sure the filter is, and what was not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.errors import SinkError
from streampose.export.output import is_written_through, whole
from streampose.export.track_series import Floats, TrackSeries

_SMOOTH, _RAW, _GAP = "#1f6fb4", "#e07b00", "#c9c9c9"
_LEAST_PAUSE_S = 0.05


def plot_track(series: TrackSeries, out: Path, title: str = "") -> Path:
    """Draw x and y of every joint over camera time and write a PNG (or what `out`'s ending says); gives the file written.

    Dots are raw measurements, the line is filtered, dotted where the joint coasted; the band is plus and minus two
    standard deviations; grey is time that was not analysed. The line is broken where the person was not in the result.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if out.is_dir():
        raise SinkError(f"{out}: this is a folder; name a file in it, such as {out / 'plot.png'}")
    if not (out.suffix or is_written_through(out)):
        out = out.with_name(f"{out.name}.png")
    rows = len(series.joints)
    figure = Figure(figsize=(12, 0.9 + 1.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 2, sharex=True, squeeze=False)
    for row, joint in enumerate(series.joints):
        for axis, word in enumerate("xy"):
            panel = axes[row][axis]
            _draw_joint(panel, series, row, axis)
            panel.set_ylabel(f"{joint.replace('_', ' ')}\n{word} (px)" if axis == 0 else f"{word} (px)")
            if axis == 1:
                panel.invert_yaxis()  # y runs down in images: up in the plot is up in the picture
    for panel in axes[-1]:
        panel.set_xlabel("time (s)")
        panel.locator_params(axis="x", nbins=6)  # seconds of a day are long
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False, fontsize=9)
    figure.suptitle(title or f"person {series.id}", x=0.01, ha="left", fontsize=11)
    try:
        with whole(out) as part:
            figure.savefig(part, dpi=120, format=out.suffix.removeprefix(".") or "png")
    except ValueError as error:
        raise SinkError(f"{out}: no picture of that kind can be written; name a .png") from error
    return out


def _draw_joint(panel: Any, series: TrackSeries, joint: int, axis: int) -> None:
    times, pieces = series.times_s, split(series.times_s, series.step_s)
    value = series.points[:, joint, axis]
    first_s, last_s = _span(times)
    near = series.gaps[(series.gaps[:, 1] > first_s) & (series.gaps[:, 0] < last_s)]
    for number, (start, end) in enumerate(near):
        panel.axvspan(start, end, color=_GAP, alpha=0.6, lw=0, label=None if number else "not analysed")
    band = 2 * series.std[:, joint]
    for number, piece in enumerate(pieces):
        named = number == 0
        panel.fill_between(
            times[piece], value[piece] - band[piece], value[piece] + band[piece],
            color=_SMOOTH, alpha=0.18, lw=0, label="±2 std" if named else None,
        )  # fmt: skip
        held = series.measured[piece, joint]
        panel.plot(times[piece], value[piece], ":", color=_SMOOTH, lw=1.2, label="coasted" if named else None)
        panel.plot(times[piece], np.where(held, value[piece], np.nan), color=_SMOOTH, lw=1.6,
                   label="smoothed" if named else None)  # fmt: skip
    panel.plot(times, series.raw[:, joint, axis], ".", color=_RAW, ms=3, alpha=0.8, label="raw", zorder=1.5)
    panel.set_xlim(first_s, last_s)
    _limit(panel, value, series.raw[:, joint, axis])
    panel.grid(alpha=0.25, lw=0.5)
    panel.spines[["top", "right"]].set_visible(False)


def _span(times_s: Floats) -> tuple[float, float]:
    """The person's time with a margin, in which what came before and after can be seen."""
    margin = max(_LEAST_PAUSE_S, 0.05 * float(times_s[-1] - times_s[0]))
    return float(times_s[0]) - margin, float(times_s[-1]) + margin


def _limit(panel: Any, value: Floats, raw: Floats) -> None:
    """Limits that hold the path, not a lone wild measurement or the wide band of a joint nobody sees."""
    known = raw[np.isfinite(raw)]
    inner = np.percentile(known, [3, 97]) if known.size else np.empty(0)
    low, high = (float(f(np.concatenate([value, inner]))) for f in (np.min, np.max))
    margin = max(2.0, 0.12 * (high - low))
    panel.set_ylim(low - margin, high + margin)


def split(times_s: Floats, step_s: float) -> list[npt.NDArray[np.intp]]:
    """Indices of the stretches of `times_s` without a pause; a pause is longer than two and a half steps."""
    limit = max(2.5 * step_s, _LEAST_PAUSE_S)
    return np.split(np.arange(len(times_s)), np.flatnonzero(np.diff(times_s) > limit) + 1)
