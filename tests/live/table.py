"""One command, one table: everything that is claimed of live cameras, tried and measured here and now.

    python -m tests.live.table [--seconds 300] [--seed 1]        (make live)

Chaos and memory take half of the time, the bar codes and the overload what they need, fuzz the rest. Ends with an error
where something did not hold.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.live import chaos, fuzz, overload, truth
from tests.live.camera import missing
from tests.live.rows import Row, broken, settle, table

LEAST_CHAOS_S = 15.0
LEAST_FUZZ_S = 6.0


def parts(seconds: float, seed: int, *, busy: bool = False) -> dict[str, Callable[[], list[Row]]]:
    """What is run, in order, and how it shares the time. `busy`: the machine does other things too; cameras may be back
    after twice the time and lose more, and only the own part of an age counts."""
    chaos_s = max(LEAST_CHAOS_S, 0.5 * seconds)
    fuzz_s = max(LEAST_FUZZ_S, 0.3 * seconds)

    def chaotic() -> list[Row]:
        report = chaos.run(chaos_s, seed)
        return report.rows(2 * chaos.BACK_S, 0.1) if busy else report.rows()

    def bar_codes() -> list[Row]:
        with tempfile.TemporaryDirectory() as folder:
            return truth.run(Path(folder), 60 if seconds < 120 else 200).rows()

    def fuzzing() -> list[Row]:
        return [row for what in fuzz.WHAT for row in fuzz.run(what, seconds=fuzz_s / 2, seed=seed).rows()]

    return {
        "chaos": chaotic,
        "overload": lambda: overload.run(0.07 * seconds).rows(busy=busy),
        "bar codes": bar_codes,
        "fuzz": fuzzing,
    }


def run(seconds: float, seed: int, say: Callable[[str], None] = lambda text: None, *, busy: bool = False) -> list[Row]:
    """Every row; a part that cannot be run to its end is a row that did not hold."""
    rows: list[Row] = []
    for name, part in parts(seconds, seed, busy=busy).items():
        began_s = time.monotonic()
        try:
            rows += part()
        except AssertionError as error:
            rows.append(Row(name, "runs to its end", str(error).splitlines()[0], "BROKEN"))
        say(f"{name}: {time.monotonic() - began_s:.0f} s")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="of all of it, about")
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    if why := missing():
        raise SystemExit(why)
    settle()
    rows = run(wanted.seconds, wanted.seed, print)
    print()
    print(table(rows))
    if wrong := broken(rows):
        raise SystemExit(f"{len(wrong)} of {len(rows)} did not hold")


if __name__ == "__main__":
    main()
