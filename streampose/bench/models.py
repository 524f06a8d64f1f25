"""Times the networks: milliseconds a picture by runtime, precision and batch, each against torch fp32 in the same run.

All set-ups take turns, call by call, so that whatever else the machine does falls on all of them alike. The least wall
time is what an idle machine would give; the least CPU time (of all threads) says the same where the machine is busy.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from streampose.bench.machine import describe_machine
from streampose.errors import ConfigError, ModelError, UsageError
from streampose.models.export import parity_pictures
from streampose.models.manifest import InputSpec, Manifest, OutputSpec, save, sha256_of
from streampose.models.open import fixed_size, offers, open_runtime
from streampose.models.resolve import resolve
from streampose.registry import RUNTIMES
from streampose.runtime.base import Runtime
from streampose.runtime.select import PRECISIONS, Choice, choose, cpu_multiplies_bf16, lacking

CPU_SETUPS = ("torch:fp32", "openvino:fp32", "openvino:bf16", "openvino:int8", "onnx:fp32")
GPU_SETUPS = ("torch:fp32", "torch:fp16", "onnx:fp32")
Say = Callable[[str], None]


def setups_of(device: str) -> tuple[str, ...]:
    """What is timed on `device` where nothing else is asked for."""
    runtime = device.partition(":")[0]
    if runtime in RUNTIMES:
        return tuple(f"{runtime}:{precision}" for precision in PRECISIONS if precision != "int8")
    return CPU_SETUPS if device == "cpu" else GPU_SETUPS


@dataclass(frozen=True, slots=True)
class BenchModelsOptions:
    """`poses` and `detectors` are model references; `presets` are NETWORK@WIDTHxHEIGHT, run with random weights (the time
    does not depend on them). `setups` are RUNTIME:PRECISION; None: those of `device`, which is as in `choose`, that can be
    had. `detector_size` is not that of a detector which takes one alone, `trust` opens a detector's pickle, `seconds` is
    the time spent on each model."""

    poses: Sequence[str] = ()
    detectors: Sequence[str] = ()
    presets: Sequence[str] = ()
    detector_size: tuple[int, int] = (640, 384)
    trust: bool = False
    setups: Sequence[str] | None = None
    batches: Sequence[int] = (1, 4)
    threads: int | None = None
    device: str = "cpu"
    seconds: float = 30.0


@dataclass(slots=True)
class _Entry:
    """One compiled network at one batch size, with the times of its calls in seconds."""

    model: str
    size: tuple[int, int]
    setup: str
    batch: int
    run: Callable[[], object]
    ready_s: float
    got: str
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)


def bench_models(options: BenchModelsOptions, say: Say = lambda line: None) -> dict[str, Any]:
    """Machine, options and one row for each model, set-up and batch; rows carry ratios to torch:fp32 where it ran.

    Set-ups that this machine has not, and of the default ones those that do not run, are left out and named in `left_out`.
    Raises ModelError, also where nothing is left, ConfigError, UsageError.
    """
    left_out: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="streampose-bench-") as scratch:
        subjects = list(_subjects(options, Path(scratch)))  # fetched ones lie in the user's cache
        with _own_cache(Path(scratch)):
            for manifest, weights in subjects:
                say(manifest.name)
                entries, runtimes = _prepare(manifest, weights, options, left_out)
                _take_turns(entries, options.seconds)
                rows += _rows(entries)
                for runtime in runtimes:
                    runtime.close()
    if not rows:
        reasons = "; ".join(f"{setup}: {reason}" for setup, reason in left_out.items())
        raise ModelError(f"nothing can be timed here: {reasons or 'no model is named'}")
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(options).items()}
    return {"machine": describe_machine(options.device), "options": plain, "left_out": left_out, "rows": rows}


@contextmanager
def _own_cache(folder: Path) -> Iterator[None]:
    """Compiled networks of a benchmark go into its own folder: first starts are first, and the user's cache stays small."""
    before = os.environ.get("STREAMPOSE_CACHE")
    os.environ["STREAMPOSE_CACHE"] = str(folder / "cache")
    try:
        yield
    finally:
        os.environ.pop("STREAMPOSE_CACHE") if before is None else os.environ.update(STREAMPOSE_CACHE=before)


def _subjects(options: BenchModelsOptions, scratch: Path) -> Iterator[tuple[Manifest, Path]]:
    for ref in options.poses:
        yield resolve(ref, "pose")
    for preset in options.presets:
        yield random_model(preset, scratch)
    for ref in options.detectors:
        yield resolve(ref, "detect", trust=options.trust)


def random_model(preset: str, folder: Path) -> tuple[Manifest, Path]:
    """Manifest and weights, drawn at random, of `preset`, NETWORK@WIDTHxHEIGHT."""
    import torch
    from safetensors.torch import save_file

    from streampose.pose.network import build_pose_network

    network, _, size = preset.partition("@")
    width, _, height = size.partition("x")
    sides = [int(side) if side.isdecimal() else 0 for side in (width, height)]
    if not all(sides) or any(side % 32 for side in sides):
        raise UsageError(f"--preset {preset}: NETWORK@WIDTHxHEIGHT is wanted, such as hrnet_w32@192x256")
    torch.manual_seed(0)
    weights = folder / f"{network}-{size}.safetensors"
    save_file(build_pose_network({"network": network, "joints": 17}).state_dict(), weights)
    manifest = Manifest(
        name=f"{network} (random weights)",
        task="pose",
        architecture={"network": network, "joints": 17},
        weights=weights.name,
        sha256=sha256_of(weights),
        input=InputSpec(width=int(width), height=int(height)),
        output=OutputSpec(kind="heatmap"),
        licence="none",
    )
    save(manifest, weights.with_suffix(".yaml"))
    return manifest, weights


def _prepare(
    manifest: Manifest, weights: Path, options: BenchModelsOptions, left_out: dict[str, str]
) -> tuple[list[_Entry], list[Runtime]]:
    """Everything compiled and run once."""
    entries: list[_Entry] = []
    runtimes: list[Runtime] = []
    for setup in setups_of(options.device) if options.setups is None else options.setups:
        choice = _choice(setup, weights, options, left_out)
        if choice is None:
            continue
        try:
            for batch in options.batches if manifest.task == "pose" else (1,):
                entries.append(_ready(manifest, weights, setup, choice, batch, options, runtimes))
        except ModelError as error:
            if options.setups is not None:
                raise
            left_out[f"{setup} of {weights.name}"] = str(error)
    return entries, runtimes


def _ready(
    manifest: Manifest,
    weights: Path,
    setup: str,
    choice: Choice,
    batch: int,
    options: BenchModelsOptions,
    runtimes: list[Runtime],
) -> _Entry:
    """The network compiled for batches of `batch` and run once; its runtime is added to `runtimes`."""
    spec = manifest.input
    size = (spec.width, spec.height)
    if manifest.task == "detect":
        size = fixed_size(weights, choice.runtime) or options.detector_size
    pictures = parity_pictures(*size, batch)
    start_s = time.perf_counter()
    runtime = open_runtime(manifest, weights, choice, size=size, batch_sizes=(batch,))
    runtimes.append(runtime)
    runtime(pictures)
    ready_s = time.perf_counter() - start_s
    got = f"{runtime.device} {runtime.precision}"
    return _Entry(manifest.name, size, setup, batch, lambda: runtime(pictures), ready_s, got)


def _choice(setup: str, weights: Path, options: BenchModelsOptions, left_out: dict[str, str]) -> Choice | None:
    from importlib.util import find_spec

    runtime, _, precision = setup.partition(":")
    if runtime not in RUNTIMES or precision not in PRECISIONS:
        raise UsageError(
            f"--setup {setup}: RUNTIME:PRECISION of {', '.join(RUNTIMES)} and {', '.join(PRECISIONS)} is wanted"
        )
    if missing := lacking(runtime):
        left_out[setup] = f"lacks {' and '.join(missing)}"
    elif precision == "int8" and find_spec("nncf") is None:
        left_out[setup] = "nncf is not installed"
    elif precision == "bf16" and options.device.lower().endswith("cpu") and not cpu_multiplies_bf16(runtime):
        left_out[setup] = f"{runtime} does not multiply bf16 on this CPU"
    elif runtime not in offers(weights):
        left_out[f"{setup} of {weights.name}"] = "cannot run this file"
    else:
        try:
            return choose(options.device, runtime, precision, threads=options.threads, offers=offers(weights))
        except ConfigError as error:
            if options.setups is not None:
                raise
            left_out[setup] = str(error)
    return None


def _take_turns(entries: Sequence[_Entry], seconds: float) -> None:
    """Call all in turn until the time is over, at least five times each."""
    end_s = time.perf_counter() + seconds
    rounds = 0
    while entries and (rounds < 5 or time.perf_counter() < end_s):
        for entry in entries:
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            entry.run()
            entry.wall_s.append(time.perf_counter() - wall_s)
            entry.cpu_s.append(time.process_time() - cpu_s)
        rounds += 1


def _rows(entries: Sequence[_Entry]) -> list[dict[str, Any]]:
    rows = []
    for entry in entries:
        base = next((e for e in entries if e.setup == "torch:fp32" and e.batch == entry.batch), None)
        per_ms = 1000 / entry.batch
        rows.append(
            {
                "model": entry.model,
                "size": list(entry.size),
                "setup": entry.setup,
                "got": entry.got,
                "batch": entry.batch,
                "calls": len(entry.wall_s),
                "ready_s": round(entry.ready_s, 2),
                "wall_ms_min": round(min(entry.wall_s) * per_ms, 2),
                "wall_ms_median": round(statistics.median(entry.wall_s) * per_ms, 2),
                "cpu_ms_min": round(min(entry.cpu_s) * per_ms, 2),
                "wall_to_torch": None if base is None else round(min(entry.wall_s) / min(base.wall_s), 3),
                "cpu_to_torch": None if base is None else round(min(entry.cpu_s) / min(base.cpu_s), 3),
            }
        )
    return rows
