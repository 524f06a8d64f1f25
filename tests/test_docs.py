"""Documentation that cannot drift: the README's loop runs, its verbs exist, pages made from code are up to date."""

from __future__ import annotations

import configparser
import contextlib
import io
import re
import signal
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from streampose.cli.main import app
from streampose.cli.reference import SECTIONS, page
from streampose.errors import ConfigError
from streampose.registry import SINKS, load
from streampose.section import Section

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_opens_with_a_loop_that_runs(short_clip: Path) -> None:
    found = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    loop = found[1]
    assert len([line for line in loop.splitlines() if line.strip()]) <= 8
    assert "samples/cctv.mp4" in loop
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(loop.replace("samples/cctv.mp4", str(short_clip)), "README.md", "exec"), {})
    printed = out.getvalue()
    assert re.search(r"^19 \d+ \[\[", printed, re.MULTILINE), "people in the last of the twenty frames"


def test_the_configuration_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == page(), (
        "run: streampose reference > docs/configuration.md"
    )


@pytest.mark.parametrize(("name", "section"), [*SECTIONS, *((f"- {name}:", load(SINKS, name)) for name in SINKS)])
def test_the_defaults_of_the_configuration_page_can_be_written(name: str, section: type[Section]) -> None:
    table = page().partition(f" {name}\n")[2].partition("\n#")[0]
    shown = {
        key: yaml.safe_load(text) for key, text in re.findall(r"^\| `(\w+)` \|[^|]*\| `(.*?)` \|", table, re.MULTILINE)
    }
    required = {key: "a.mp4" for key, field in section.model_fields.items() if field.is_required()}
    assert shown
    assert section.model_validate({**required, **shown}) == section.model_validate(required)
    assert set(section.model_fields) - set(shown) - set(required) == {
        key for key, field in section.model_fields.items() if field.default is None
    }


def test_every_verb_is_in_the_readme_and_has_help() -> None:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        if not command.hidden:
            assert f"streampose {name}" in README, name
            assert command.help, name


def test_every_verb_of_the_readme_exists() -> None:
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    for text in [path.read_text() for path in PAGES]:
        assert set(re.findall(r"`streampose ([a-z]+)", text)) <= known


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_unit_for_systemd_names_the_exit_codes_of_the_command() -> None:
    """What a signal ends is no failure, and a wrong configuration is not tried again."""
    unit = (ROOT / "docs" / "live.md").read_text().partition("```ini\n")[2].partition("```")[0]
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(unit)
    service = parser["Service"]
    assert service["SuccessExitStatus"].split() == [str(128 + number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert service["RestartPreventExitStatus"] == str(ConfigError("").exit_code)
    assert "streampose run " in service["ExecStart"]


def test_every_shipped_sample_and_weight_is_described() -> None:
    samples = (ROOT / "samples" / "README.md").read_text()
    assert all(clip.name in samples for clip in (ROOT / "samples").glob("*.mp4"))
    for weights in (ROOT / "weights").glob("*.safetensors"):
        model = weights.with_name(weights.name.split(".")[0])  # a refiner lies beside its network
        assert weights.name in model.with_suffix(".yaml").read_text()
        assert model.with_suffix(".md").is_file()
