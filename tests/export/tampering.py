"""What tests do to a record: change, remove or leave out its lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def edit(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    change(records)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def remove(position: int) -> Callable[[list[dict[str, Any]]], None]:
    return lambda records: records.pop(position) and None


def put(position: int, **fields: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda records: records[position].update(fields)


def without(kind: str) -> Callable[[list[dict[str, Any]]], None]:
    def change(records: list[dict[str, Any]]) -> None:
        records[:] = [record for record in records if record["type"] != kind]

    return change
