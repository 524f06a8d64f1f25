"""`streampose run` and `streampose check`: the main job, and whether a configuration would do it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[Path, typer.Argument(help="A YAML configuration, such as configs/cctv.yaml.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as --set detect.threshold=0.5; repeatable."),
]


def run(config: ConfigPath, settings: Settings = None) -> None:
    """Watch the cameras of CONFIG until they end (recordings) or Ctrl-C (cameras)."""
    from streampose.cli.execute import execute
    from streampose.config_file import load

    execute(lambda: load(config, settings or []))


def check(config: ConfigPath, settings: Settings = None) -> None:
    """Validate CONFIG and say what it would do; open nothing."""
    import yaml

    from streampose.build import describe
    from streampose.config_file import load

    loaded = load(config, settings or [])
    lines = describe(loaded)
    print(yaml.safe_dump(loaded.public(), sort_keys=False, allow_unicode=True), end="")
    print("\n".join(f"# {line}" for line in lines))
