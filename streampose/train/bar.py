"""The progress bar of a training: its name, how far it is, the time taken and left, a note."""

from __future__ import annotations

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def bar_of(name: str) -> Progress:
    """A bar called `name`; its tasks have a `note`."""
    columns = (TextColumn(name), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
