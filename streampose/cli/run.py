"""`streampose run` and `streampose check`: the main job, and whether a configuration would do it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from streampose.config import Config

ConfigPath = Annotated[Path, typer.Argument(help="A YAML configuration, such as configs/cctv.yaml.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as --set detect.threshold=0.5; repeatable."),
]


def run(config: ConfigPath, settings: Settings = None) -> None:
    """Watch the cameras of CONFIG until they end (recordings) or Ctrl-C (cameras)."""
    if hasattr(
        signal, "SIGHUP"
    ):  # asks for a reload, which is too early until `Signals` hears it, and no reason to end
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from streampose.cli.execute import execute

    execute(lambda: read_config(config, settings)[0])


def check(config: ConfigPath, settings: Settings = None) -> None:
    """Validate CONFIG and say what it would do; open nothing."""
    import yaml

    loaded, lines = read_config(config, settings)
    print(yaml.safe_dump(loaded.public(), sort_keys=False, allow_unicode=True), end="")
    print("\n".join(f"# {line}" for line in lines))


def read_config(path: Path, settings: list[str] | None) -> tuple[Config, list[str]]:
    """The configuration of a file and what it would do; raises ConfigError that names the file, also where every key is
    right by itself and the whole cannot be done."""
    from streampose.build import describe
    from streampose.config_file import load
    from streampose.errors import ConfigError

    loaded = load(path, settings or [])
    try:
        return loaded, describe(loaded)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
