"""`streampose doctor`: what the cameras of a configuration really deliver, and whether this machine can hold it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from streampose.cli.run import ConfigPath, Settings, read_config

if TYPE_CHECKING:
    from streampose.config import CameraConfig
    from streampose.doctor import Findings, Tap
    from streampose.sources.base import Source

Seconds = Annotated[float, typer.Option("--seconds", min=1.0, help="How long each camera is watched.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")]
NoModels = Annotated[bool, typer.Option("--no-models", help="Only the streams: no networks, no people, no load.")]


def doctor(
    config: ConfigPath,
    seconds: Seconds = 8.0,
    as_json: AsJson = False,
    no_models: NoModels = False,
    settings: Settings = None,
) -> None:
    """Open each camera of CONFIG for some seconds and report. Exit 0: well; 1: something is wrong; 3: one cannot be read."""
    from streampose.doctor import Patient, examine, exit_code, overload, total_load

    loaded, _ = read_config(config, settings)
    patients = [
        Patient(name, partial(_open, camera), camera.skip != "none", loaded.detect.every, loaded.pose.every)
        for name, camera in loaded.cameras.items()
    ]
    if no_models:
        findings = examine(patients, seconds)
    else:
        from streampose.build_models import load_models

        models = load_models(loaded)
        findings = examine(
            patients,
            seconds,
            detector=models.detectors[1.0],
            estimator=models.pose,
            pose_input_px=models.pose.manifest.input.height,
            threshold=loaded.detect.threshold,
        )
    if as_json:
        whole = {"load": total_load(findings), "problems": overload(findings)}
        print(json.dumps({"cameras": [found.as_dict() for found in findings], **whole}, indent=2))
    else:
        print(table(findings))
    raise typer.Exit(exit_code(findings))


def _open(camera: CameraConfig, tap: Tap) -> Source:
    from streampose.build import source_options
    from streampose.sources.open import open_source

    return open_source(camera.analysed_url, **{**source_options(camera), "threads": 1}, tap=tap)


def table(findings: Sequence[Findings]) -> str:
    """The findings, a column a camera, and under it what is wrong."""
    from streampose.doctor import overload, total_load

    columns = [dict(_rows(found)) for found in findings]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    widths = [
        max(len(found.name), *(len(text) for text in column.values()))
        for found, column in zip(findings, columns, strict=True)
    ]
    side = max(len(label) for label in labels)
    lines = ["  ".join([" " * side, *(f.name.rjust(w) for f, w in zip(findings, widths, strict=True))])]
    for label in labels:
        cells = (column.get(label, "-").rjust(width) for column, width in zip(columns, widths, strict=True))
        lines.append("  ".join([label.ljust(side), *cells]))
    load = total_load(findings)
    if load is not None:
        lines.append(f"\nthe networks would be busy {100 * load:.0f} % of the time with {len(findings)} camera(s)")
    problems = [f"{found.name}: {problem}" for found in findings for problem in found.problems]
    lines += [*problems, *overload(findings)] or ["nothing is wrong"]
    return "\n".join(lines)


def _rows(found: Findings) -> list[tuple[str, str]]:
    """Label and text of everything that is known of one camera."""
    if found.error is not None:
        return [("reachable", "no")]
    rows = [
        ("reachable", f"yes, {found.open_s or 0.0:.1f} s"),
        ("codec", found.codec or "-"),
        ("size", f"{found.width}x{found.height}"),
        ("announced fps", _text(found.nominal_fps, ".4g")),
        ("received fps", _text(found.fps, ".2f") + (f" of {_text(found.sent_fps, '.2f')}" if found.skips else "")),
        ("jitter ms", _text(found.jitter_ms, ".1f")),
        ("key frame every", _text(found.gop, "g")),
        ("B-frames", "yes" if found.bframes else "no"),
        ("kbit/s", _text(found.kbps, ".0f")),
        (
            "clock drift ppm",
            "-" if found.drift_ppm is None else f"{found.drift_ppm:+.0f} ± {found.drift_sigma_ppm:.0f}",
        ),
        ("wall clock", found.wall_source),
        ("wall - arrival ms", _text(found.wall_offset_ms, "+.0f")),
        ("loss %", f"{100 * found.loss:.1f}"),
        ("decode ms", _text(found.decode_ms, ".1f")),
    ]
    if found.detect_ms is not None:
        heights = "nobody seen" if found.people_px is None else "{} / {} / {}".format(*found.people_px)
        rows += [
            ("people a frame", _text(found.people, ".1f")),
            ("people px 10/50/90 %", heights),
            ("pose wants px", _text(found.needed_px, "d")),
            ("detect ms", _text(found.detect_ms, ".0f")),
            ("pose ms a person", _text(found.pose_ms, ".0f")),
            ("load %", "-" if found.load is None else f"{100 * found.load:.0f}"),
            ("holdable fps", _text(found.holdable_fps, ".1f")),
        ]
    return rows


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
