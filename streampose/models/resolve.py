"""From what a user calls a model (a name, a manifest, a checkpoint of a known layout) to its manifest and weights.

Looks only on this machine; `streampose models fetch` is the one verb that downloads.
"""

from __future__ import annotations

import difflib
import json
import os
import pickle
import re
from pathlib import Path
from typing import Literal

from streampose.errors import ModelError
from streampose.models import cache
from streampose.models import manifest as manifests
from streampose.models.manifest import InputSpec, Manifest, OutputSpec, sha256_of

Task = Literal["pose", "detect"]
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
FOREIGN = (".onnx", ".xml")
SUFFIXES = (*FOREIGN, ".yaml", ".yml", ".safetensors", ".pth", ".pt")
"""What ends the name of a file; a name of a model may have a dot, too."""
SKELETON = ".skeleton.yaml"
"""What ends the name of a skeleton's file that `models export` lays beside a manifest."""
COCO = {17: "coco17", 133: "wholebody133"}
OTHER_SETS = re.compile(
    r"(?<![a-z0-9])(h36m|human36m|posetrack|ap-?10k|animalpose|macaque|mpii|crowdpose|aic|jhmdb|exlpose|h3wb)(?![a-z])"
)
"""Data sets with joints of their own, or the same in another order, as their names stand in those of checkpoints."""
PUBLISHED = "a published checkpoint"
SIMCC_MANIFEST = (
    "name, task, architecture, weights, sha256, input (width, height, mean, std), output (kind: heatmap or simcc)"
)


def weight_folders() -> list[Path]:
    """Where models are looked for by name: STREAMPOSE_WEIGHTS, ./weights, those that ship, then those fetched."""
    named = os.environ.get("STREAMPOSE_WEIGHTS")
    folders = [Path(named)] if named else []
    folders += [Path("weights"), shipped_folder(), fetched_folder()]
    return list(dict.fromkeys(folder.resolve() for folder in folders))


def shipped_folder() -> Path:
    """Where the models lie that come with the program: installed beside its modules, in a checkout beside the package."""
    package = Path(__file__).parents[1]
    installed = package / "weights"
    return installed if installed.is_dir() else package.parent / "weights"


def fetched_folder() -> Path:
    """Where `streampose models fetch` puts what it got."""
    return cache.cache_folder() / "models"


def local_models() -> dict[str, Path]:
    """Name to manifest of every model on this machine, the first folder winning."""
    found: dict[str, Path] = {}
    for folder in weight_folders():
        for path in sorted(folder.glob("*.yaml")):
            if not path.name.endswith(SKELETON):
                found.setdefault(path.stem, path)
    return found


def is_name(ref: str | Path) -> bool:
    """Whether `ref` is the name of a model, which may have a dot; not a file, though a folder may be called the same."""
    return Path(ref).suffix not in SUFFIXES and "/" not in str(ref) and not os.path.isfile(ref)


def resolve(ref: str | Path, task: Task, *, trust: bool = False, refined: bool = True) -> tuple[Manifest, Path]:
    """Manifest and weights of `ref`, verified by sha256; its refiner too, but without `refined`.

    `ref` is a name, a manifest (.yaml), weights with a manifest beside (.safetensors, .onnx, .xml), or a published
    checkpoint (.pth of HRNet for pose, .pt of ultralytics for detect). A skeleton's file comes with its whole path: it is
    looked for from the manifest, then from the working directory. Raises ModelError saying what to do.
    """
    path = Path(ref)
    if is_name(ref):
        path = _by_name(str(ref))
    if path.suffix in (".yaml", ".yml"):
        found = manifests.load(path, refined=refined)
    elif not os.path.isfile(path):
        raise ModelError(
            f"{path}: no such model file, or its folder may not be entered; `streampose models list` shows what there is"
        )
    elif (beside := path.with_suffix(".yaml")).is_file():
        found = manifests.load(beside, refined=refined)
        if found[1].resolve() != path.resolve():
            raise ModelError(f"{beside}: is the manifest of {found[0].weights}, not of {path.name}")
    elif path.suffix in (*FOREIGN, ".safetensors"):
        raise ModelError(f"{path}: needs its manifest, {beside.name}, beside it: {SIMCC_MANIFEST}; see docs/models.md")
    elif task == "detect":
        found = describe_detector(path, trust=trust), path
    else:
        found = describe_pose(path), path
    manifest, weights = found
    skeleton, here = (folder / manifest.output.skeleton for folder in (weights.parent, Path()))
    if skeleton.suffix in (".yaml", ".yml"):
        if os.path.isfile(here) and not os.path.isfile(skeleton):
            skeleton = here
        output = manifest.output.model_copy(update={"skeleton": str(skeleton.resolve())})
        manifest = manifest.model_copy(update={"output": output})
    if manifest.task != task:
        raise ModelError(f"{path}: is a {manifest.task} model; a {task} model is wanted here")
    if manifest.architecture.get("builder") == "ultralytics-pt":
        # What a manifest says of its own pickle is nobody's word, but where `fetch` wrote it after checking the file.
        vouched = manifest.architecture.get("trust") is True and weights.resolve().parent == fetched_folder().resolve()
        manifest = manifest.model_copy(update={"architecture": {**manifest.architecture, "trust": trust or vouched}})
    return manifest, weights


def resolve_any(ref: str | Path, *, trust: bool = False) -> tuple[Manifest, Path]:
    """The same for a model of whichever task. Only what is no plain file of tensors can be a detector's `.pt`."""
    try:
        return resolve(ref, "pose", trust=trust)
    except ModelError as error:
        if "is a detect model" not in str(error) and not isinstance(error.__cause__, pickle.UnpicklingError):
            raise
    return resolve(ref, "detect", trust=trust)


def _by_name(name: str) -> Path:
    known = local_models()
    if name in known:
        return known[name]
    from streampose.models.catalogue import catalogue

    if name in catalogue():
        raise ModelError(f"{name}: not on this machine; get it with `streampose models fetch {name}`")
    near = difflib.get_close_matches(name, [*known, *catalogue()], 1)
    hint = f"did you mean {near[0]}?" if near else "`streampose models list` shows what there is"
    raise ModelError(f"{name}: no model of this name in {', '.join(map(str, weight_folders()))}; {hint}")


def describe_detector(path: Path, *, trust: bool = False) -> Manifest:
    """The manifest of an ultralytics `.pt`; kept in the cache, so that a later start need not unpickle the file."""
    entry = cache.entry_path("manifest", {"weights": sha256_of(path), "export": cache.EXPORT_VERSION}, ".json")
    if (kept := cache.read(entry)) is not None:
        return Manifest.model_validate_json(kept).model_copy(update={"name": path.stem, "weights": path.name})
    from streampose.detect.checkpoint import describe_checkpoint

    manifest = describe_checkpoint(path, trust=trust)
    cache.write(entry, manifest.model_dump_json().encode())
    return manifest


def describe_pose(path: Path) -> Manifest:
    """The manifest of a published HRNet or Lite-HRNet checkpoint, from its tensors and, for the input, its name.

    The input is the size in the file's name (256x192, 384x288 …, height first) or 256x192; DARK and UDP are known by the
    name too. Raises ModelError where the tensors are of no network that we know.
    """
    digest = sha256_of(path)
    entry = cache.entry_path("architecture", {"weights": digest, "export": cache.EXPORT_VERSION}, ".json")
    if (kept := cache.read(entry)) is not None:
        architecture = json.loads(kept)
    else:
        from streampose.models.inspect import pose_architecture

        architecture = pose_architecture(path)
        cache.write(entry, json.dumps(architecture).encode())
    height, width = size_in_name(path.name) or (256, 192)
    return Manifest(
        name=path.stem,
        task="pose",
        architecture=architecture,
        weights=path.name,
        sha256=digest,
        input=InputSpec(width=width, height=height, **IMAGENET),
        output=published_output(path.name, width, height, int(architecture["joints"])),
        licence="that of its publisher",
        origin=PUBLISHED,
    )


def size_in_name(name: str) -> tuple[int, int] | None:
    """The "256x192" in a file's name as (height, width); None where there is none that a network can have."""
    for first, second in re.findall(r"(?<!\d)(\d{2,4})x(\d{2,4})(?!\d)", name):
        height, width = int(first), int(second)
        if height % 32 == 0 and width % 32 == 0:
            return height, width
    return None


def published_output(name: str, width: int, height: int, joints: int) -> OutputSpec:
    """Where a heatmap's cells lie, how it is decoded, and what its joints are, by what is written in the name of a published
    checkpoint.

    Joints are COCO's where their number is and the name says no other data set; who has as many may have others.
    Plain ones: cell c at pixel 4c, quarter offset, flip test with a shift of one cell. DARK: the same with DARK's step.
    UDP (Huang et al., CVPR 2020): the first and last cells lie on the first and last pixels of a row, so a mirrored
    heatmap needs no shift. Both blur 11 cells, or 17 of a 384x288 network, whose Gaussians have a sigma of 3 cells for 2
    (MMPose's configurations, `modulate_kernel`).
    """
    skeleton = f"{joints} joints" if OTHER_SETS.search(name.lower()) else COCO.get(joints, f"{joints} joints")
    blur = 17 if (width, height) == (288, 384) else 0
    if "udp" in name.lower():
        across, down = ((side - 1) / (side / 4 - 1) for side in (width, height))
        return OutputSpec(
            kind="heatmap", skeleton=skeleton, stride=across, stride_y=down, decode="dark", blur=blur, flip_shift=0
        )
    decode: Literal["dark", "quarter"] = "dark" if "dark" in name.lower() else "quarter"
    return OutputSpec(
        kind="heatmap", skeleton=skeleton, decode=decode, blur=blur if decode == "dark" else 0, flip_shift=1
    )
