"""What a model file is, said in facts: kind, network, input, output, size, hash, and whether it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streampose.errors import ModelError, words_of
from streampose.models import manifest as manifests
from streampose.models.catalogue import catalogue
from streampose.models.manifest import Manifest, sha256_of
from streampose.models.open import open_runtime
from streampose.models.resolve import FOREIGN, PUBLISHED, resolve_any
from streampose.pose.refiner import load_refiner
from streampose.registry import DETECTORS
from streampose.runtime.batches import Outputs
from streampose.runtime.select import choose


def check_file(path: Path, *, trust: bool = False) -> dict[str, Any]:
    """Facts about the model in `path`, in the order in which they are read; it is run once to see that it does.

    Raises ModelError, in one line, where it is no model, fits no preset, does not run, or gives something else than its
    manifest says.
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
    if load_refiner(manifest, weights) is not None:
        facts["refiner"] = f"{manifest.refiner}, sha256 {manifest.sha256_refiner}"
    if output.kind == "heatmap":
        facts["decoding"] = (
            f"{output.decode}; heatmap cell c lies at input pixel {output.stride:.4g} c + {output.offset:g}"
            + (f", down the rows at {output.stride_y:.4g} c" if output.stride_y else "")
        )
    if weights.suffix not in FOREIGN:
        cost = _cost(manifest, weights)
        facts |= {"parameters": f"{cost['parameters_m']} M", "cost": f"{cost['gmacs']} GMAC for one input"}
    outputs, runtime = _run(manifest, weights)
    keeps_promise(manifest, outputs)
    if _is_unnamed(manifest):
        facts["key points"] = "nobody says which they are: it runs with a manifest beside it that names output.skeleton"
    elif manifest.task == "pose":
        assumed = ", assumed by their number" if manifest.origin == PUBLISHED else ""
        facts["key points"] = f"{output.skeleton}{assumed}"
    facts["gives"] = f"{', '.join(str(each.shape) for each in outputs)} by {runtime}"
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
        manifest, _ = manifests.load(target, verify=False)  # as it stands there, its skeleton's path not made absolute
        manifests.save(manifest.model_copy(update={"measured": measured}), target)
    except OSError as error:
        raise ModelError(f"{target}: cannot be written ({words_of(error)})") from error
    return target


def _cost(manifest: Manifest, weights: Path) -> dict[str, float]:
    from streampose.models.inspect import cost_of
    from streampose.models.networks import network_of

    return cost_of(network_of(manifest, weights), manifest.input.width, manifest.input.height)


def _run(manifest: Manifest, weights: Path) -> tuple[Outputs, str]:
    """What the model gives for one black picture, and the runtime that ran it."""
    import numpy as np

    from streampose.models.open import offers

    choice = choose("cpu", "auto", "fp32", offers=offers(weights))
    runtime = open_runtime(manifest, weights, choice)  # in the batches in which it will run
    outputs = runtime(np.zeros((1, manifest.input.height, manifest.input.width, 3), np.uint8))
    runtime.close()
    return outputs, runtime.name


def _is_unnamed(manifest: Manifest) -> bool:
    """Whether it is of a published checkpoint, which does not say which its joints are, with as many as we know none of."""
    return manifest.output.skeleton == f"{manifest.architecture.get('joints')} joints"


def keeps_promise(manifest: Manifest, outputs: Outputs) -> None:
    """Raise ModelError where outputs for one picture are not what the manifest says."""
    import numpy as np

    from streampose.detect.detector import check_boxes
    from streampose.pose.estimator import check_outputs
    from streampose.pose.skeleton import load_skeleton

    kind = manifest.output.kind
    if not all(np.isfinite(each).all() for each in outputs):
        raise ModelError(f"{manifest.name}: gives numbers that are NaN or infinite; its weights are damaged")
    if (manifest.task == "detect") != (kind in DETECTORS):
        raise ModelError(
            f"{manifest.name}: its manifest says task {manifest.task} and output.kind {kind}; name a kind of it"
        )
    if manifest.task == "pose":
        unnamed = _is_unnamed(manifest)
        joints = manifest.architecture["joints"] if unnamed else len(load_skeleton(manifest.output.skeleton).keypoints)
        check_outputs(outputs, manifest, joints)
    else:
        check_boxes(outputs[0], manifest)
