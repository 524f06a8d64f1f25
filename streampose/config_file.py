"""Reading a configuration file: YAML, `${VAR}`, `--set key=value`; every fault is one `ConfigError`.

`${VAR}` and `${VAR:-default}` come from the environment, `${file:PATH}` from a file (for passwords). An unset variable
without a default is an error that names the key, never an empty string.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from streampose.config import Config, validate
from streampose.errors import ConfigError

_VARIABLE = re.compile(r"\$\{(?:(file):([^}]+)|([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?)\}")


def expand(value: Any, path: str = "") -> Any:
    """Replace `${VAR}`, `${VAR:-default}` and `${file:PATH}` in every text of a parsed YAML; errors name the key."""
    if isinstance(value, Mapping):
        return {key: expand(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, f"{path}[{position}]") for position, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            try:
                return Path(match[2]).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
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

    return _VARIABLE.sub(replace, value)


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> None:
    """Apply `key.path=value` settings to parsed YAML, in order; values are YAML. List items are addressed by number,
    sinks also by their name (`sinks.record.crf=28`)."""
    for override in overrides:
        key, mark, text = override.partition("=")
        if not mark or not key.strip():
            raise ConfigError(f"--set {override}: write key=value, such as --set detect.threshold=0.5")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        parts = key.strip().split(".")
        node: Any = data
        for part in parts[:-1]:
            node = _step(node, part, key)
        if isinstance(node, list):
            if not parts[-1].isdigit() or int(parts[-1]) >= len(node):
                raise ConfigError(f"--set {key}: the list has {len(node)} items; write a number below that")
            node[int(parts[-1])] = value
        else:
            node[parts[-1]] = value


def _step(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list):
        for item in node:
            if isinstance(item, dict) and part in item:
                if item[part] is None:
                    item[part] = {}
                return item[part]
        if part.isdigit() and int(part) < len(node):
            return node[int(part)]
        raise ConfigError(f'--set {key}: there is no "{part}" in the list')
    if node.get(part) is None:
        node[part] = {}
    if not isinstance(node[part], dict | list):
        raise ConfigError(f'--set {key}: "{part}" is a value, it has no keys')
    return node[part]


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, which YAML silently lets the last one win."""


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f'the key "{key}" stands twice', key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read, expand, override and validate a configuration file."""
    path = Path(path)
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration; configs/cctv.yaml is one to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error.__class__.__name__})") from None
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        raise ConfigError(f"{path}:{line} not YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a mapping with `cameras:` is wanted, this is {type(data).__name__}")
    apply_overrides(data, overrides)
    return validate(expand(data), str(path))
