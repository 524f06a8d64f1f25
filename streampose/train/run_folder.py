"""The folder of one training run: checkpoints written beside and renamed, a metrics file, and a plot of it.

`last.pt` holds all that training needs to go on from its step; `metrics.jsonl` has one JSON object a line, each with
`step`; `curves.png` is drawn from it. After a kill the lines beyond the checkpoint's step are cut, so that a resumed
run writes the curve that an unbroken one would have.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from streampose.errors import DataError, SinkError


class RunFolder:
    """Checkpoints, metrics and curves under `path`; made where it is missing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"{self.path}: cannot make the run's folder ({error.strerror})") from error
        self.metrics_file = self.path / "metrics.jsonl"
        self.last = self.path / "last.pt"

    def save(self, state: dict[str, Any], name: str = "last.pt") -> None:
        """Write a checkpoint; the file under its final name is always whole."""
        part = self.path / (name + ".part")
        try:
            with part.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path / name)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise SinkError(
                f"{self.path / name}: cannot write the checkpoint ({reason}); the one before stays"
            ) from error

    def load(self) -> dict[str, Any]:
        """Read `last.pt` and cut the metrics after its step; raises DataError where there is nothing to resume."""
        if not self.last.is_file():
            raise DataError(f"{self.last}: no checkpoint to resume from; start without --resume")
        try:
            state: dict[str, Any] = torch.load(self.last, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError) as error:
            raise DataError(f"{self.last}: not a whole checkpoint ({str(error).splitlines()[0]:.100})") from error
        kept = [line for line in self.read_metrics() if line["step"] <= state["step"]]
        self._write_lines(kept)
        return state

    def start_fresh(self) -> None:
        """Forget an earlier run's metrics."""
        self.metrics_file.unlink(missing_ok=True)

    def log(self, **values: Any) -> None:
        """Append one line to the metrics."""
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """All whole lines so far."""
        if not self.metrics_file.is_file():
            return []
        lines = []
        for line in self.metrics_file.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break  # a line cut short by a kill: what follows it was never written
        return lines

    def _write_lines(self, lines: Sequence[dict[str, Any]]) -> None:
        part = self.metrics_file.with_suffix(".part")
        part.write_text("".join(json.dumps(line) + "\n" for line in lines))
        os.replace(part, self.metrics_file)

    def plot(self, losses: Sequence[str], scores: Sequence[str], title: str) -> None:
        """Draw `curves.png`: the named losses left, the named scores (fractions) right, against the step."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        lines = self.read_metrics()
        figure, axes = pyplot.subplots(1, 2, figsize=(12, 4.2), constrained_layout=True)
        for axis, names in zip(axes, (losses, scores), strict=True):
            for name in names:
                points = [(line["step"], line[name]) for line in lines if name in line]
                if points:
                    axis.plot(*zip(*points, strict=True), marker="." if len(points) < 60 else "", label=name)
            axis.set_xlabel("step")
            axis.grid(alpha=0.3)
            if axis.has_data():
                axis.legend(fontsize=8)
        figure.suptitle(title)
        part = self.path / "curves.part.png"
        figure.savefig(part, dpi=90)
        pyplot.close(figure)
        os.replace(part, self.path / "curves.png")
