"""The folder of one training run: checkpoints written beside and renamed, a metrics file, and a plot of it.

`last.pt` holds all that training needs to go on from its step; `metrics.jsonl` has one JSON object a line, each with
`step`, and null where nothing was there to be measured; `curves.png` is drawn from it. After a kill the lines beyond the
checkpoint's step are cut, so that a resumed run writes the curve that an unbroken one would have.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from streampose.errors import DataError, SinkError, UsageError, words_of
from streampose.evaluate.set_files import archive_of
from streampose.models.resolve import Task, is_name, resolve
from streampose.sinks.lock_file import hold, let_go
from streampose.sinks.paths import cannot_write, written_elsewhere


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what shall be `path`: a file of the same ending beside it, which takes its place when the block ends
    well and is gone when it does not. Raises SinkError, in one line."""
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        with writing(path):
            yield part
            os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around writing `path`: what the disk refuses is a SinkError, in one line."""
    try:
        yield
    except OSError as error:
        raise SinkError(f"{path}: cannot be written ({words_of(error)})") from error


def read_checkpoint(path: Path, **kinds: type) -> dict[str, Any]:
    """The dict in a checkpoint file, with a whole number as `step` and values of these `kinds` under their names.

    Nothing in the file is executed. Raises DataError, in one line, where it is damaged or holds something else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's version: the one line below says all
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError as error:
        raise DataError(f"{path}: not a whole checkpoint, or one that holds more than tensors and numbers") from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a whole checkpoint ({words_of(error, 100)})") from error
    for name, kind in {"step": int, **kinds}.items():
        if not isinstance(state, dict) or not isinstance(state.get(name), kind):
            raise DataError(f"{path}: not a checkpoint of this kind of training: it has no good `{name}`")
    return dict(state)


def look_up(path: Path, root: Path) -> Path:
    """Where a file that a recipe names lies: under `root`, or, where it is only there, in the working directory."""
    under = root / path
    here, there = (archive_of(each)[0].exists() for each in (path, under))
    return path if here and not there else under


def look_up_weights(path: Path, root: Path, task: Task) -> Path:
    """The same for the file of weights, which may be named as a model of this machine, too. Raises ModelError."""
    under = root / path
    if os.path.isfile(under):
        return under
    if is_name(path):
        return resolve(path, task, refined=False)[1]
    return path if os.path.isfile(path) else under


def finite(value: Any) -> Any:
    """`value`, or None where it is NaN or infinite: nobody was there to be measured, and JSON has no such numbers."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps({name: finite(value) for name, value in values.items()}, allow_nan=False) + "\n"


class RunFolder:
    """Checkpoints, metrics and curves under `path`; made where it is missing, and locked until the end of a with-block, or
    as long as this lives. Raises SinkError, also where another run has it locked."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"{self.path}: cannot make the run's folder ({words_of(error)})") from error
        self._unlock = self._locked(self.path / "training.lock")
        self.metrics_file = self.path / "metrics.jsonl"
        self.last = self.path / "last.pt"

    def _locked(self, path: Path) -> Callable[[], object]:
        """Lock the folder by the file `path`; gives what deletes and unlocks that, once."""
        try:
            fd = hold(path)
        except OSError as error:
            raise cannot_write(path, error) from error
        if fd is None:
            raise written_elsewhere(path)
        unlock = weakref.finalize(self, let_go, path.absolute(), fd)

        def leave() -> None:
            """In a process that makes samples: it outlives by seconds the training that was killed, which has the file."""
            if unlock.detach():
                os.close(fd)

        if sys.platform != "win32":
            os.register_at_fork(after_in_child=leave)
        return unlock

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._unlock()

    def save(self, state: dict[str, Any], name: str = "last.pt") -> None:
        """Write a checkpoint; the file under its final name is always whole."""
        part = self.path / (name + ".part")
        try:
            with part.open("wb") as file:
                # torch's own; ultralytics puts one that tries again in the place of torch.save.
                torch.serialization.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path / name)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                part.unlink()
            # torch has its own words for a full disk, with the system's behind them.
            fault = error if isinstance(error, OSError) else error.__context__
            told = fault if isinstance(fault, OSError) else error
            stays = "; the one before stays" if (self.path / name).exists() else ""
            raise SinkError(f"{self.path / name}: cannot write the checkpoint ({words_of(told)}){stays}") from error

    def load(self, **kinds: type) -> dict[str, Any]:
        """Read `last.pt`, which holds `step` and values of these `kinds` under their names.

        Raises DataError, in one line, where there is nothing to resume, or no checkpoint of such a training.
        """
        if not self.last.is_file():
            raise DataError(f"{self.last}: no checkpoint to resume from; start without --resume")
        return read_checkpoint(self.last, **kinds)

    def same_recipe(self, made: Mapping[str, Any], mine: Mapping[str, Any], keys: Sequence[str]) -> None:
        """Raise UsageError where the checkpoint was made with a recipe that has another value of one of `keys`."""
        for key in keys:
            if key in made and made[key] != mine[key]:
                raise UsageError(f"{self.last}: was made with another `{key}`; give this recipe its own `out`")

    @contextmanager
    def restoring(self, step: int) -> Iterator[None]:
        """Around taking the checkpoint of `step` over: what does not fit is a DataError in one line; what did fit cuts the
        metrics after that step."""
        try:
            yield
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(f"{self.last}: does not fit this recipe's network ({reason})") from error
        self._write_lines([line for line in self.read_metrics() if line["step"] <= step])

    def refuse_another_run(self, result: str = "best.pt") -> None:
        """Raise UsageError where a run has left a checkpoint or its `result`: without --resume another would write over
        them."""
        if self.last.exists():
            raise UsageError(f"{self.path} holds a run already; go on with --resume, or name another `out`")
        if (self.path / result).exists():
            raise UsageError(f"{self.path} holds the {result} of a run; move it away, or name another `out`")

    def start_fresh(self) -> None:
        """Forget the metrics of a run that was ended before its first checkpoint."""
        with writing(self.metrics_file):
            self.metrics_file.unlink(missing_ok=True)

    def log(self, **values: Any) -> None:
        """Append one line to the metrics."""
        with writing(self.metrics_file), self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(_line(values))

    def read_metrics(self) -> list[dict[str, Any]]:
        """All whole lines so far."""
        if not self.metrics_file.is_file():
            return []
        lines = []
        for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
            try:
                values = json.loads(line)
            except ValueError:
                break  # a line cut short by a kill: what follows it was never written
            if not isinstance(values, dict) or not isinstance(values.get("step"), int):
                raise DataError(f"{self.metrics_file}: not a training's metrics: {line:.60}")
            lines.append(values)
        return lines

    def _write_lines(self, lines: Sequence[dict[str, Any]]) -> None:
        with replacing(self.metrics_file) as part:
            part.write_text("".join(map(_line, lines)), encoding="utf-8")

    def plot(self, losses: Sequence[str], scores: Sequence[str], title: str) -> None:
        """Draw `curves.png`: the named losses left, the named scores (fractions) right, against the step."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        lines = self.read_metrics()
        figure, axes = pyplot.subplots(1, 2, figsize=(12, 4.2), constrained_layout=True)
        for axis, names in zip(axes, (losses, scores), strict=True):
            for name in names:
                points = [(line["step"], line[name]) for line in lines if finite(line.get(name)) is not None]
                if points:
                    axis.plot(*zip(*points, strict=True), marker="." if len(points) < 60 else "", label=name)
            axis.set_xlabel("step")
            axis.grid(alpha=0.3)
            if axis.has_data():
                axis.legend(fontsize=8)
        figure.suptitle(title, parse_math=False)
        try:
            with replacing(self.path / "curves.png") as part:
                figure.savefig(part, dpi=90)
        finally:
            pyplot.close(figure)
