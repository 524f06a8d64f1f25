"""The tidy table of `csv_table` as Parquet, in row groups of some minutes, so that a week fits in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streampose.errors import UsageError
from streampose.export.csv_table import COLUMNS, rows
from streampose.export.output import whole
from streampose.export.reader import ResultReader

_ROWS_PER_GROUP = 100_000


def export_parquet(reader: ResultReader, out: Path) -> Path:
    """Write the table to `out`; gives it. Raises UsageError where pyarrow is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError('Parquet needs pyarrow: pip install "streampose[parquet]"') from None
    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    with whole(out) as part, pyarrow.parquet.ParquetWriter(part, schema, compression="zstd") as writer:
        for group in _groups(reader):
            columns = zip(*group, strict=True)
            arrays = [pyarrow.array(values, kind) for values, kind in zip(columns, schema.types, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
    return out


def _groups(reader: ResultReader) -> Iterator[list[tuple[Any, ...]]]:
    waiting: list[tuple[Any, ...]] = []
    for frame in reader.frames():
        waiting.extend(rows(reader, frame))
        if len(waiting) >= _ROWS_PER_GROUP:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
