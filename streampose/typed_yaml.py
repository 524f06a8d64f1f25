"""YAML files as typed models: reading one, and what is wrong with it as one line that names file and key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from streampose.errors import StreamposeError, words_of
from streampose.redact import redact_url

M = TypeVar("M", bound=BaseModel)

WANTED = {
    **dict.fromkeys(("string_type", "path_type"), "a text is wanted, in quotes where YAML takes it for something else"),
    "tuple_type": "a list is wanted, such as [a, b]",
    "too_short": "empty; at least one is wanted",
    **dict.fromkeys(("dict_type", "model_type"), "a mapping is wanted, keys with values"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false is wanted"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number is wanted"),
    "int_parsing_size": "a smaller number is wanted",
    **dict.fromkeys(("float_type", "float_parsing"), "a number is wanted"),
}
"""What is said in place of pydantic's words, by its kinds of errors."""


def read_yaml(path: Path, fault: type[StreamposeError], kind: str, hint: str) -> Any:
    """What a YAML file holds; raises `fault` where it cannot be read, or is none: it is no `kind`, and `hint` says where
    there are some."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise fault(f"{path}: no such {kind}; {hint}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no UTF-8, or a date that cannot be
        raise fault(f"{path}: not a {kind} ({words_of(error)})") from error
    except RecursionError:
        raise fault(f"{path}: not a {kind} (nested too deep)") from None


def read_model(path: Path, model: type[M], fault: type[StreamposeError], kind: str, hint: str) -> M:
    """A YAML file as `model`; raises `fault` as `read_yaml` does, and for the first key that does not fit."""
    try:
        return model.model_validate(read_yaml(path, fault, kind, hint))
    except ValidationError as error:
        raise fault(f"{path}: {explain(error, model)}") from error


def nearest(word: str, known: Mapping[str, object] | Sequence[str]) -> str:
    """The end of a line about an unknown `word`: the known one that is like it, or all of them."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; known are {', '.join(known)}" if known else ""


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first error of a validation, as `key.path: what is wrong, what would be right`. An unknown key goes before a
    missing one, which it may be with a letter wrong."""
    first = min(error.errors(), key=lambda found: (found["type"] == "missing", found["type"] != "extra_forbidden"))
    kind, location = first["type"], [redact_url(str(part)) for part in first["loc"]]
    path = ".".join(location)
    if kind in ("extra_forbidden", "invalid_key"):
        return f"{path}: unknown key{nearest(location[-1], _fields_at(model, location[:-1]))}"
    if location[-1:] == ["[key]"]:
        return f"{'.'.join(location[:-2])}: {first['input']} is no text to YAML; write the name in quotes"
    if kind == "missing":
        return f"{path}: missing; it must be given"
    message = WANTED.get(kind, first["msg"].removeprefix("Value error, "))
    if kind == "value_error" and not location:
        return message
    given = first.get("input")
    secret = any(word in path for word in ("url", "password", "user")) or "://" in str(given)
    shown = "" if secret or isinstance(given, dict | list | tuple) else f" (given: {given!r})"
    return f"{path + ': ' if path else ''}{message[0].lower() + message[1:]}{shown}"


def _fields_at(model: type[BaseModel], location: Sequence[str]) -> Sequence[str]:
    """The keys of what lies at `location`; of a mapping or list of sections each name leads to a section."""
    current: Any = model
    for part in location:
        current = current.model_fields[part].annotation if hasattr(current, "model_fields") else _section_in(current)
        if get_origin(current) in (Union, UnionType):
            current = _section_in(current)
    return list(current.model_fields) if hasattr(current, "model_fields") else []


def _section_in(annotation: Any) -> Any:
    return next((part for part in get_args(annotation) if hasattr(part, "model_fields")), None)
