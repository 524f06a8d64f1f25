"""What a model file is, said in facts: kind, network, input, output, size, hash, and whether it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streampose.errors import ModelError
from streampose.models import manifest as manifests
from streampose.models.catalogue import catalogue
from streampose.models.manifest import Manifest, sha256_of
from streampose.models.open import open_runtime
from streampose.models.resolve import FOREIGN, resolve_any
from streampose.runtime.select import choose


def check_file(path: Path, *, trust: bool = False) -> dict[str, Any]:
    """Facts about the model in `path`, in the order in which they are read; it is run once to see that it does.

    Raises ModelError, in one line, where it is no model, fits no preset, or does not run.
    """
    manifest, weights = resolve_any(path, trust=trust)
    digest = sha256_of(weights)
    published = [name for name, known in catalogue().items() if known.sha256 and digest.startswith(known.sha256)]
    spec, output = manifest.input, manifest.output
    facts: dict[str, Any] = {
        "file": str(weights),
        "sha256": digest,
        "published as": ", ".join(published) or "no model of the catalogue",
        "task": manifest.task,
        "network": ", ".join(f"{key} {value}" for key, value in manifest.architecture.items()) or "as in the file",
        "input": f"{spec.width}x{spec.height} {spec.channels}, mean {list(spec.mean)}, std {list(spec.std)}",
        "output": output.kind,
        "licence": manifest.licence,
    }
    if output.kind == "heatmap":
        facts["decoding"] = (
            f"{output.decode}; heatmap cell c lies at input pixel {output.stride:.4g} c + {output.offset:g}"
        )
    if weights.suffix not in FOREIGN:
        cost = _cost(manifest, weights)
        facts |= {"parameters": f"{cost['parameters_m']} M", "cost": f"{cost['gmacs']} GMAC for one input"}
    facts["gives"] = _run(manifest, weights)
    return facts


def record_cost(path: Path, *, trust: bool = False) -> Path:
    """Compute what the model in `path` costs and write it into its manifest, where `models list` reads it.

    Gives the manifest's path. Raises ModelError where there is no manifest, or no torch network to count.
    """
    manifest, weights = resolve_any(path, trust=trust)
    target = path if path.suffix in (".yaml", ".yml") else path.with_suffix(".yaml")
    if weights.suffix in FOREIGN or not target.is_file():
        raise ModelError(f"{path}: cost is counted for torch weights that have a manifest beside them")
    measured = {**manifest.measured, **_cost(manifest, weights)}
    try:
        manifests.save(manifest.model_copy(update={"measured": measured}), target)
    except OSError as error:
        raise ModelError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target


def _cost(manifest: Manifest, weights: Path) -> dict[str, float]:
    from streampose.models.inspect import cost_of
    from streampose.models.networks import network_of

    return cost_of(network_of(manifest, weights), manifest.input.width, manifest.input.height)


def _run(manifest: Manifest, weights: Path) -> str:
    import numpy as np

    from streampose.models.open import offers

    choice = choose("cpu", "auto", "fp32", offers=offers(weights))
    runtime = open_runtime(manifest, weights, choice, batch_sizes=(1,))
    outputs = runtime(np.zeros((1, manifest.input.height, manifest.input.width, 3), np.uint8))
    runtime.close()
    return f"{', '.join(str(each.shape) for each in outputs)} by {runtime.name}"
