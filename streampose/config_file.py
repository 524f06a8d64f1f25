"""Reading a configuration file: YAML, `${VAR}`, `--set key=value`; every fault is one `ConfigError`.

`${VAR}` and `${VAR:-default}` come from the environment, `${file:PATH}` from a file (for passwords); `$${` is a plain `${`.
An unset variable without a default is an error that names the key, never an empty string. YAML's anchors and merge keys
(`<<: *gate`) work, and top-level keys that begin with `x-` are only there to hold them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import yaml

from streampose.config import Config, validate
from streampose.errors import ConfigError, words_of
from streampose.registry import SINKS

_VARIABLE = re.compile(r"\$\$\{|\$\{(?:(file):([^}]+)|([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?)\}")


def expand(value: Any, path: str = "") -> Any:
    """Replace `${VAR}`, `${VAR:-default}`, `${file:PATH}` and `$${` in every text of a parsed YAML; errors name the key."""
    if isinstance(value, Mapping):
        return {key: expand(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, f"{path}[{position}]") for position, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        if match[1]:
            try:
                return Path(match[2]).read_text(encoding="utf-8-sig").strip()
            except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a NUL in the name
                raise ConfigError(
                    f"{path}: cannot read the secret file {match[2]}: {error.__class__.__name__}"
                ) from None
        found = os.environ.get(match[3])
        if found:
            return found
        if match[4] is None:
            raise ConfigError(
                f"{path}: the environment variable {match[3]} is not set; set it or write ${{{match[3]}:-default}}"
            )
        return match[4]

    if "${" in _VARIABLE.sub(" ", value) or any("${" in (match[4] or "") for match in _VARIABLE.finditer(value)):
        raise ConfigError(
            f"{path}: a ${{ that does not end, or stands within another; "
            "${VAR}, ${VAR:-default} and ${file:PATH} can be written, one beside the other, and $${ for ${ itself"
        )
    return _VARIABLE.sub(replace, value)


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> None:
    """Apply `key.path=value` settings to parsed YAML, in order; values are YAML. List items are addressed by number,
    sinks also by their name (`sinks.record.crf=28`); null takes an item out of its list (`sinks.display=null`)."""
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {key.partition('://')[0]}: write key=value, such as --set detect.threshold=0.5")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that cannot be
            if text.lstrip().startswith(("[", "{")):  # the text stays out of the message: it may hold a password
                where = f" from character {mark.index + 1} on" if (mark := getattr(error, "problem_mark", None)) else ""
                raise ConfigError(
                    f"--set {key}: a list or mapping that is not YAML{where}; quote texts with braces, brackets or commas "
                    f"in it, such as {{path: 'out/{{camera}}.jsonl'}}, or the whole if it is a text"
                ) from None
            value = text
        except RecursionError:
            raise ConfigError(f"--set {key}: nested too deep") from None
        parts = key.strip().split(".")
        if parts[0] == "sinks" and len(parts) > 1 and data.get("sinks") is None:
            data["sinks"] = [
                {name: {}} for name, _ in Config.model_fields["sinks"].get_default(call_default_factory=True)
            ]
        if parts[0] in SINKS:
            raise ConfigError(f"--set {override}: {parts[0]} is a sink; write sinks.{override}")
        node: Any = data
        name, parts = _first_name(node, parts)
        while parts:
            node = _step(node, name, key)
            name, parts = _first_name(node, parts)
        if not isinstance(node, list):
            node[name] = value
            continue
        place, named = _place(node, name, key)
        if value is None:
            del node[place]
        else:
            node[place] = {name: value} if named else value


def _first_name(node: Any, parts: list[str]) -> tuple[str, list[str]]:
    """The name in `node` with which `parts` begin, and the parts behind it: names of cameras may hold dots, so it is the
    longest that is there, else the first part."""
    there = (count for count in range(len(parts), 1, -1) if isinstance(node, dict) and ".".join(parts[:count]) in node)
    count = next(there, 1)
    return ".".join(parts[:count]), parts[count:]


def _step(node: Any, part: Any, key: str) -> Any:
    """What lies under `part` of a mapping or list; made where it is empty."""
    holder, at = node, part
    if isinstance(node, list):
        place, named = _place(node, part, key)
        if named:
            node[place] = dict(node[place]) if isinstance(node[place], dict) else {part: None}
        holder, at = (node[place], part) if named else (node, place)
    elif part not in node:
        node[part] = None
    if holder[at] is None:
        holder[at] = {}
    if not isinstance(holder[at], dict | list):
        raise ConfigError(f'--set {key}: "{part}" is a value, it has no keys')
    holder[at] = copy(holder[at])  # YAML's aliases are one object in several places, and one of them is meant
    return holder[at]


def _place(items: list[Any], part: str, key: str) -> tuple[int, bool]:
    """Where in a list `part` is, and whether it is the name of what stands there rather than its number."""
    for place, item in enumerate(items):
        if item == part or (isinstance(item, dict) and part in item):
            return place, True
    if part.isdecimal() and int(part) < len(items):
        return int(part), False
    raise ConfigError(f'--set {key}: there is no "{part}" in the list of {len(items)}')


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, which YAML silently lets the last one win, and says where a date or number
    stands that cannot be."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue  # construct_mapping puts in what it names, where the mapping itself has no such key
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f'the key "{key}" stands twice', key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read, expand, override and validate a configuration file."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration; configs/cctv.yaml is one to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error.__class__.__name__})") from None
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        problem = getattr(error, "problem", None) or words_of(error)
        raise ConfigError(f"{path}:{line} not YAML: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deep") from None
    if not isinstance(data, dict):
        found = "empty" if data is None else type(data).__name__
        raise ConfigError(f"{path}: a mapping with `cameras:` is wanted, this is {found}")
    data = {key: value for key, value in data.items() if not str(key).startswith("x-")}
    apply_overrides(data, overrides)
    try:
        data = expand(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return validate(data, str(path))
