"""Exporting a model for another program, with a record of how far it is from torch kept beside the file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose import __version__
from streampose.detect.base import BoxOutput
from streampose.errors import ModelError, UsageError, words_of
from streampose.models import manifest as manifests
from streampose.models.manifest import Manifest, OutputSpec, sha256_of
from streampose.models.open import open_runtime
from streampose.models.resolve import FOREIGN, SKELETON
from streampose.pose.skeleton import load_skeleton
from streampose.registry import DETECTORS, load
from streampose.runtime.base import Runtime
from streampose.runtime.select import choose, require

SUFFIXES = {"openvino": ".xml", "onnx": ".onnx", "torchscript": ".torchscript"}
TOLERANCE = 1e-4
"""Greatest difference from torch, relative to the greatest heatmap, box or score, that an fp32 export may have."""
CELL = 4
"""Pixels of the input for each cell that a network of ours gives: HRNets halve it twice."""
LEAST_SCORE = 0.01
"""Scores of pictures without people are so small that the rounding of a sigmoid would count; they are held to this."""


def export(
    manifest: Manifest, weights: Path, runtime: str, out: Path, size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Write the model for `runtime` (openvino, onnx, torchscript) into folder `out`; give the parity record.

    The file is called MODEL-RUNTIME, with -WIDTHxHEIGHT before it where `size` (width, height) is not the manifest's.
    Beside it lie a manifest with all that it names (a refiner, a skeleton's file), so that the folder serves on every
    machine, and the record as `.parity.json`. Raises ModelError where the result differs from torch by more than TOLERANCE,
    and keeps nothing then.
    """
    if runtime not in SUFFIXES:
        raise UsageError(f"--runtime {runtime}: one of {', '.join(SUFFIXES)} is wanted")
    if weights.suffix in FOREIGN:
        raise ModelError(f"{weights}: is exported already; torch weights are wanted")
    require("torch" if runtime == "torchscript" else runtime)
    width, height = size or (manifest.input.width, manifest.input.height)
    name = "-".join([manifest.name, *([f"{width}x{height}"] if size else []), runtime])
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as scratch:
            made = _write(manifest, weights, runtime, Path(scratch) / name, width, height)
            described = _describe(manifest, made, name, width, height)
            record = _parity(manifest, weights, described, made, runtime, (width, height))
            for part, found in record["differences"].items():
                if not found["relative"] <= TOLERANCE:  # also where it is not a number
                    raise ModelError(
                        f"{manifest.name}: as {runtime} its {part} differ from torch's by {found['relative']:.1e} of the "
                        f"greatest, more than {TOLERANCE:.0e}; not kept"
                    )
            (Path(scratch) / f"{name}.parity.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            if runtime != "torchscript":
                manifests.save(
                    _with_companions(described, weights.parent, Path(scratch)), Path(scratch) / f"{name}.yaml"
                )
            for path in sorted(Path(scratch).iterdir()):
                os.replace(path, out / path.name)
    except OSError as error:
        file = out / f"{name}{SUFFIXES[runtime]}"
        raise ModelError(f"{file}: cannot be written ({words_of(error)})") from error
    return record


def _write(manifest: Manifest, weights: Path, runtime: str, stem: Path, width: int, height: int) -> Path:
    from streampose.models import convert
    from streampose.models.networks import network_of

    network = network_of(manifest, weights)
    path = stem.with_name(stem.name + SUFFIXES[runtime])
    if runtime == "openvino":
        from streampose.runtime.openvino_runtime import write_ir

        model = convert.to_openvino(network, manifest.input, width, height)
        write_ir(model, path, stem.with_name(stem.name + ".bin"))
    elif runtime == "onnx":
        path.write_bytes(convert.to_onnx(network, manifest.input, width, height))
    else:
        path.write_bytes(convert.to_torchscript(network, manifest.input, width, height))
    return path


def _describe(manifest: Manifest, made: Path, name: str, width: int, height: int) -> Manifest:
    return manifest.model_copy(
        update={
            "name": name,
            "weights": made.name,
            "sha256": sha256_of(made),
            "sha256_bin": sha256_of(made.with_suffix(".bin")) if made.suffix == ".xml" else None,
            "input": manifest.input.model_copy(update={"width": width, "height": height}),
            "output": output_at(manifest, width, height),
            "origin": f"{manifest.name}, sha256 {manifest.sha256}, exported by streampose {__version__}",
        }
    )


def _with_companions(described: Manifest, source: Path, out: Path) -> Manifest:
    """The manifest with the files that it names besides its weights, copied from folder `source` into `out`."""
    if described.refiner is not None:
        refiner = f"{described.name}.refiner.safetensors"
        shutil.copyfile(source / described.refiner, out / refiner)
        described = described.model_copy(update={"refiner": refiner})
    own = source / described.output.skeleton
    if own.suffix in (".yaml", ".yml"):
        load_skeleton(str(own))  # what is none is said here, not where the export is used
        skeleton = f"{described.name}{SKELETON}"
        shutil.copyfile(own, out / skeleton)
        output = described.output.model_copy(update={"skeleton": skeleton})
        described = described.model_copy(update={"output": output})
    return described


def output_at(manifest: Manifest, width: int, height: int) -> OutputSpec:
    """What the manifest says of its output, for an input of `width` x `height` pixels.

    The last cell of a heatmap keeps its place before the last pixel. So plain strides stay, and UDP's, of which the first
    and the last cell lie on the first and the last pixel, change. A shift is a part of the body, so it grows with the
    input. Blur is a matter of what it was trained with.
    """
    output, size = manifest.output, (manifest.input.width, manifest.input.height)
    if output.shift is not None:
        across, down = width / size[0], height / size[1]
        shift = tuple((across * x, down * y) for x, y in output.shift)
        output = output.model_copy(update={"shift": shift})
    if output.kind != "heatmap":
        return output
    strides = []
    for before, now, stride in zip(size, (width, height), output.strides, strict=True):
        last = stride * (before // CELL - 1)
        strides.append((now - before + last) / (now // CELL - 1))
    across, down = strides
    return output.model_copy(update={"stride": across, "stride_y": None if across == down else down})


def _parity(
    manifest: Manifest, weights: Path, described: Manifest, made: Path, runtime: str, size: tuple[int, int]
) -> dict[str, Any]:
    """How far the exported file is from torch in fp32 on the CPU, on pictures made from a seed."""
    pictures = parity_pictures(*size)
    reference = open_runtime(
        manifest, weights, choose("cpu", "torch", "fp32", threads=1), size=size, batch_sizes=(len(pictures),)
    )
    wanted = reference(pictures)[0]
    if runtime == "torchscript":
        import torch

        with torch.inference_mode():
            got = torch.jit.load(str(made))(torch.from_numpy(pictures)).numpy()
    else:
        choice = choose("cpu", runtime, "fp32")
        other: Runtime = open_runtime(described, made, choice, size=size, batch_sizes=(len(pictures),))
        got = other(pictures)[0]
    found = differences(wanted, got, manifest.output.kind)
    return {
        "model": manifest.name,
        "sha256": manifest.sha256,
        "runtime": runtime,
        "precision": "fp32",
        "pictures": len(pictures),
        "size": list(size),
        "differences": found,
        "max_relative_difference": max(each["relative"] for each in found.values()),
        "versions": _versions(),
    }


def differences(
    wanted: npt.NDArray[np.float32], got: npt.NDArray[np.float32], kind: str
) -> dict[str, dict[str, float]]:
    """How far the outputs `got` of a network of that kind are from `wanted`: for each part the greatest difference, "max",
    and its share of the part's greatest value, "relative"; boxes are hundreds of pixels, and would hide any score.

    Rows of end-to-end detectors are in the order of scores, so those of nearly equal ones may change places: each is held
    against the one nearest to it.
    """
    boxes: BoxOutput | None = load(DETECTORS, kind) if kind in DETECTORS else None
    if boxes is not None:
        wanted, got = boxes.rows(wanted), boxes.rows(got)
    parts = {"heatmaps": slice(None)} if boxes is None else {"boxes": slice(4), "scores": slice(4, 5)}
    least = {"scores": LEAST_SCORE}
    greatest = {part: max(float(np.abs(wanted[..., at]).max()), least.get(part, 0.0)) for part, at in parts.items()}
    if boxes is not None and boxes.ranked:
        rows, others = wanted[:, :, None], got[:, None]
        apart = [np.abs(others[..., at] - rows[..., at]).max(3) / greatest[part] for part, at in parts.items()]
        got = np.take_along_axis(got, np.max(apart, axis=0).argmin(2)[..., None], axis=1)
    found = {part: float(np.abs(got[..., at] - wanted[..., at]).max()) for part, at in parts.items()}
    return {part: {"max": value, "relative": value / greatest[part]} for part, value in found.items()}


def parity_pictures(width: int, height: int, count: int = 2) -> npt.NDArray[np.uint8]:
    """(count, height, width, 3) uint8 pictures made from a seed: smooth shapes under noise, as photographs are."""
    rng = np.random.default_rng(7)
    coarse = rng.normal(128, 60, (count, 8, 6, 3))
    rows = np.linspace(0, 7, height).round().astype(int)
    columns = np.linspace(0, 5, width).round().astype(int)
    pictures = coarse[:, rows][:, :, columns] + rng.normal(0, 12, (count, height, width, 3))
    return pictures.clip(0, 255).astype(np.uint8)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"streampose": __version__}
    for package in ("torch", "openvino", "onnxruntime", "onnx"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
