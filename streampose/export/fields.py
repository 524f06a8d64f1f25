"""What the fields of a record must hold for those who read it: a small part of the schema, checked line by line.

`streampose/schema/result.schema.json` says all; here is what the readers build on, so that a damaged or made-up line is
one clear error and no crash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Record = dict[str, Any]
Rule: TypeAlias = tuple[Callable[[Any], bool], str]
"""Whether a value is right, and the words that go before "wanted"."""

_MOST = 1e15  # pixels, seconds: also keeps infinity and whatever is no number out
_MOST_COUNT = 2**63
STATES = frozenset({"tentative", "confirmed", "coasting"})
JOINT_STATES = frozenset({"measured", "coasted", "rejected"})


def is_number(value: Any) -> bool:
    """A finite number that is no truth value."""
    return type(value) in (int, float) and -_MOST < value < _MOST


def _is_integer(value: Any) -> bool:
    return type(value) is int and -_MOST_COUNT < value < _MOST_COUNT


def _is_base(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_integer(part) and part > 0 for part in value)


def _or_null(rule: Rule) -> Rule:
    return lambda value: value is None or rule[0](value), rule[1]


_NUMBER: Rule = is_number, "a number is"
_INTEGER: Rule = _is_integer, "a whole number is"
_COUNT: Rule = lambda value: _is_integer(value) and value >= 0, "a count is"
_TEXT: Rule = lambda value: isinstance(value, str), "a text is"
_LIST: Rule = lambda value: isinstance(value, list), "a list is"
_COUNTS: Rule = (
    lambda value: isinstance(value, dict) and all(_COUNT[0](count) for count in value.values()),
    "an object of counts is",
)
_NAMES: Rule = (
    lambda value: isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value),
    "a list of names is",
)

_NEEDED: Mapping[str, Mapping[str, Rule]] = {
    "header": {"camera": _TEXT, "keypoints": _NAMES},
    "frame": {"index": _COUNT, "time": _NUMBER, "width": _COUNT, "height": _COUNT, "people": _LIST},
    "gap": {"cause": _TEXT, "start": _NUMBER, "end": _NUMBER},
    "missed": {"sink": _TEXT, "start": _NUMBER, "end": _NUMBER},
    "footer": {},
}
_ALLOWED: Mapping[str, Mapping[str, Rule]] = {
    "header": {"run": _TEXT, "part": _COUNT},
    "frame": {
        "segment": _COUNT,
        "pts": _or_null(_INTEGER),
        "time_base": _or_null((_is_base, "two whole numbers are")),
        "wall": _or_null(_TEXT),
        "file": _or_null(_TEXT),
    },
    "gap": {"frames": _or_null(_COUNT), "wall_start": _or_null(_TEXT), "wall_end": _or_null(_TEXT)},
    "missed": {},
    "footer": {
        "written": _COUNT,
        "written_here": _COUNT,
        "decoded": _or_null(_COUNT),
        "corrupt": _or_null(_COUNT),
        "dropped": _COUNTS,
        "gaps": _COUNT,
        "watched_s": _NUMBER,
        "gap_s": _NUMBER,
        "longest_gap_s": _NUMBER,
        "coverage": _NUMBER,
    },
}


def fault_of(record: Record, joints: int) -> str | None:
    """What is wrong with a record, None where nothing is; kinds not known here are let through. `joints` is how many
    points a person has."""
    kind = record["type"]
    for name, rule in _NEEDED.get(kind, {}).items():
        if name not in record:
            return f'{kind} has no "{name}"; not a whole result'
        if (fault := _fault(record, name, rule)) is not None:
            return fault
    for name, rule in _ALLOWED.get(kind, {}).items():
        if name in record and (fault := _fault(record, name, rule)) is not None:
            return fault
    for position, person in enumerate(record["people"] if kind == "frame" else ()):
        if (fault := _fault_of_person(person, f"people[{position}]", joints)) is not None:
            return fault
    return None


def _fault(record: Record, name: str, rule: Rule) -> str | None:
    return None if rule[0](record[name]) else f"{name}: {rule[1]} wanted, not {_shown(record[name])}"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}…"


def _fault_of_person(person: Any, where: str, joints: int) -> str | None:
    if not isinstance(person, dict):
        return f"{where}: an object is wanted"
    rules: Mapping[str, Rule] = {
        "id": _COUNT,
        "state": (lambda value: isinstance(value, str) and value in STATES, f"one of {', '.join(sorted(STATES))} is"),
        "score": _NUMBER,
        "box": (lambda value: _has_numbers(value, 4), "4 numbers are"),
        "keypoints": (lambda value: _has_points(value, joints), f"{joints} points [x, y, score] are"),
        "raw": (lambda value: value is None or _has_points(value, joints), f"{joints} points [x, y, score] are"),
        "std": (lambda value: _has_numbers(value, joints, null=True), f"{joints} numbers are"),
        "joint_state": (
            lambda value: _has_words(value, joints),
            f"{joints} words of {', '.join(sorted(JOINT_STATES))} are",
        ),
    }
    for name, rule in rules.items():
        if name not in person:
            return f'{where} has no "{name}"; not a whole result'
        if (fault := _fault(person, name, rule)) is not None:
            return f"{where}.{fault}"
    return None


def _has_numbers(value: Any, length: int, *, null: bool = False) -> bool:
    return isinstance(value, list) and len(value) == length and all((null and x is None) or is_number(x) for x in value)


def _has_points(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(_has_numbers(point, 3) for point in value)


def _has_words(value: Any, length: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == length
        and all(isinstance(w, str) and w in JOINT_STATES for w in value)
    )
