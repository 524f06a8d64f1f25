"""The manifest of a network: a YAML beside its weights that says all a caller must know to run it right.

Input size, channel order, normalisation, pixel convention and skeleton belong here, never to the code that calls the
network. `load` verifies the weights' sha256, `save` writes beside and renames, so that a half-written file is never
taken for a whole one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)

from streampose.errors import ModelError, words_of
from streampose.registry import DETECTORS
from streampose.typed_yaml import read_model

HRNET_MULTIPLE = 32
"""An HRNet halves its input five times and adds the results up again, so both sides must be multiples of this."""

_EXTERNAL_DATA = re.compile(rb"\x6a[\x80-\xff]*.\x0a\x08location\x12([\x80-\xff]*.)", re.DOTALL)
"""TensorProto.external_data (onnx.proto, field 13) as protobuf writes the entry of its file, up to the length of the name.
The library that would read it is not needed where OpenVINO runs the model, and takes long to load."""

Positive = Annotated[FiniteFloat, Field(gt=0)]
if TYPE_CHECKING:
    OutputKind: TypeAlias = str
else:
    OutputKind = Literal[("heatmap", "simcc", *DETECTORS)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpec(_Strict):
    """What the network eats: `width` x `height` pixels, channels in order, (x - mean) / std on the 0..255 scale."""

    width: int = Field(gt=0)
    height: int = Field(gt=0)
    channels: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.0, 0.0, 0.0)
    std: tuple[Positive, Positive, Positive] = (255.0, 255.0, 255.0)
    box_scale: Positive = Field(1.25, description="pose: the crop is the box, at the input's aspect, times this")


class OutputSpec(_Strict):
    """What it gives: pose heatmaps or SimCC vectors, or detector boxes.

    Heatmap cell c lies at input pixel `stride * c + offset`, down the rows at `stride_y * c + offset`. `peak` is the
    height of a sure point. `decode` is the sub-pixel step: quarter (Newell 2016, as published with HRNet), dark (Zhang
    2020), or none.
    """

    kind: OutputKind
    skeleton: str = "coco17"
    stride: Positive = 4.0
    stride_y: Positive | None = Field(None, description="heatmap: of the rows, where it is another, as with UDP")
    offset: FiniteFloat = 0.0
    peak: Positive = 1.0
    decode: Literal["quarter", "dark", "none"] = "dark"
    blur: int = Field(0, description="dark: size in cells of the Gaussian blur before the logarithm; 0 takes 11")
    simcc_split: Positive = 2.0
    person: int = Field(0, ge=0, description="boxes: which of the classes people are, counted from 0")
    flip_shift: int | None = Field(
        None,
        description="heatmap: cells by which that of a plainly mirrored crop, turned back, goes right, as published; "
        "None: the mirror image is laid onto the cells (pose/flip.py)",
    )
    shift: tuple[tuple[FiniteFloat, FiniteFloat], ...] | None = Field(
        None, description="x, y of each joint, added in input pixels: from where the network puts it to where labels do"
    )

    @field_validator("blur")
    @classmethod
    def _has_a_middle(cls, blur: int) -> int:
        if blur != 0 and (blur < 3 or blur % 2 == 0):
            raise ValueError(f"{blur}: an odd size from 3 on is wanted, or 0 for 11")
        return blur

    @property
    def strides(self) -> tuple[float, float]:
        """`stride` along x and along y, in input pixels a cell."""
        return self.stride, self.stride_y or self.stride


class Manifest(_Strict):
    """All of it. `architecture` names the builder and its arguments; `facts` is free text for people and tables."""

    name: str
    task: Literal["pose", "detect"]
    architecture: dict[str, Any]
    weights: str = Field(description="file name, beside the manifest")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    sha256_bin: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of an .xml's .bin, an .onnx's data file"
    )
    input: InputSpec
    output: OutputSpec
    refiner: str | None = Field(None, description="pose: file of what refines the key points, beside the manifest")
    sha256_refiner: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    licence: str
    origin: str = ""
    training: dict[str, Any] = Field(default_factory=dict, description="data with licences, recipe, samples, machine")
    measured: dict[str, Any] = Field(default_factory=dict, description="figures, each with the command that makes it")

    @field_validator("input")
    @classmethod
    def _fits_the_network(cls, spec: InputSpec, info: ValidationInfo) -> InputSpec:
        return fit_hrnet(spec) if "network" in info.data.get("architecture", {}) else spec

    @model_validator(mode="after")
    def _refiner_has_its_hash(self) -> Self:
        if (self.refiner is None) != (self.sha256_refiner is None):
            raise ValueError("refiner and sha256_refiner: both or neither")
        if self.refiner is not None and self.task != "pose":
            raise ValueError("refiner: is for key points; a detector has none")
        return self


def fit_hrnet(spec: InputSpec) -> InputSpec:
    """`spec`, if an HRNet can take it; raises ValueError with the nearest size that it can."""
    width, height = (max(round(side / HRNET_MULTIPLE), 1) * HRNET_MULTIPLE for side in (spec.width, spec.height))
    if (width, height) != (spec.width, spec.height):
        raise ValueError(
            f"{spec.width}x{spec.height}: an HRNet's sides are multiples of {HRNET_MULTIPLE}; {width}x{height} is nearest"
        )
    return spec


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's content; raises ModelError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({words_of(error)})") from error
    return digest.hexdigest()


def load(path: str | Path, *, verify: bool = True, refined: bool = True) -> tuple[Manifest, Path]:
    """Read a manifest and the path of its weights; raises ModelError where either is missing or does not fit.

    Without `refined` nobody asks for its refiner: what became of that file does not matter.
    """
    path = Path(path)
    hint = "`streampose models list` shows what there is"
    manifest = read_model(path, Manifest, ModelError, "model manifest", hint)
    weights = path.parent / manifest.weights
    _check(weights, manifest.sha256, path, verify)
    data = onnx_data(weights) if weights.suffix == ".onnx" else []
    if len(data) > 1 or (data and manifest.sha256_bin is None):
        raise ModelError(
            f"{weights}: some of it is in {', '.join(file.name for file in data[:3])}, of which {path.name} has no hash; "
            "save the model as one file, or as one and its data, with the sha256 of the data as sha256_bin"
        )
    if manifest.sha256_bin is not None:
        _check(data[0] if data else weights.with_suffix(".bin"), manifest.sha256_bin, path, verify)
    if refined and manifest.refiner is not None and manifest.sha256_refiner is not None:
        _check(path.parent / manifest.refiner, manifest.sha256_refiner, path, verify)
    return manifest, weights


def _check(file: Path, wanted: str, manifest: Path, verify: bool) -> None:
    """Raise ModelError where `file` is not there, or has another sha256 than its manifest says."""
    if not file.is_file():
        raise ModelError(f"{file}: the weights that {manifest.name} names are missing; restore the file")
    if verify and (found := sha256_of(file)) != wanted:
        raise ModelError(f"{file}: sha256 is {found[:12]}…, {manifest.name} says {wanted[:12]}…; restore the file")


def onnx_data(path: Path) -> list[Path]:
    """The files in which an ONNX model keeps tensors outside itself, sorted; raises ModelError where it cannot be read."""
    try:
        content, names = path.read_bytes(), set()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({words_of(error)})") from error
    for found in _EXTERNAL_DATA.finditer(content):
        length = sum((byte & 127) << 7 * place for place, byte in enumerate(found[1]))
        names.add(os.fsdecode(content[found.end() : found.end() + length]))
    return sorted(path.parent / name for name in names)


def save(manifest: Manifest, path: str | Path) -> None:
    """Write a manifest: beside, then renamed."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    unused = {name for name in ("sha256_bin", "refiner", "sha256_refiner") if getattr(manifest, name) is None}
    text = yaml.safe_dump(
        manifest.model_dump(mode="json", exclude=unused), sort_keys=False, allow_unicode=True, width=110
    )
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
