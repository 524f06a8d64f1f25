"""The recipe of a pose training, a YAML file as typed models; every fault is one line with its key."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from streampose.errors import ConfigError
from streampose.models.manifest import InputSpec, OutputSpec, fit_hrnet, sha256_of
from streampose.train.augment import AugmentSpec
from streampose.train.ranges import Height, Seed, Strict, Threads
from streampose.train.run_folder import look_up, look_up_weights
from streampose.typed_yaml import read_model


class HoldoutSpec(Strict):
    """What training never sees: the `images` of highest id of `source` (of all sets where it is empty), at most `share`
    of them, measured; all of `sources`, not measured."""

    source: str = ""
    images: int = Field(300, ge=0)
    share: float = Field(0.2, gt=0, le=1, description="at most this part of the pictures is kept")
    sources: tuple[str, ...] = ()
    people: int = Field(300, ge=1, description="at most so many people are measured while training")
    heights: tuple[Height, ...] = (96, 64, 40)


class LossSpec(Strict):
    """Squared error of heatmaps: towards the teacher's, and towards Gaussians of `sigma` cells at the labels.

    `human` and `machine` weigh labels by people and by networks (times their own score and agreement). Where people's
    label and the teacher disagree the teacher's say fades, with `doubt` cells of distance as the scale.
    """

    distil: float = Field(1.0, ge=0)
    human: float = Field(1.0, ge=0)
    machine: float = Field(0.3, ge=0)
    sigma: float = Field(2.0, gt=0)
    doubt: float = Field(2.0, gt=0)


class SetsRecipe(Strict):
    """What every recipe that learns from labelled people has: where the sets lie, and whom it never sees."""

    root: Path = Field(Path(), description="folder in which what a recipe names is looked for, before here")
    data: tuple[Path, ...] = Field(
        min_length=1, description="COCO-format sets: zips, folders with annotations.json, or COCO's JSON"
    )
    images: Path | None = Field(None, description="folder of a JSON's pictures, where they do not lie beside it")
    holdout: HoldoutSpec = HoldoutSpec()

    def found(self, path: Path) -> Path:
        """`path` of `data` or `images`: under `root`, or, where it is only there, in the working directory."""
        return look_up(path, self.root)

    @property
    def pictures(self) -> Path | None:
        """Where `images` lies."""
        return None if self.images is None else self.found(self.images)


class PoseRecipe(SetsRecipe):
    """All of a training. `samples` counts crops over the whole run; `checkpoint_s` and `measure_samples` say how often."""

    out: Path
    network: str = "litehrnet18"
    skeleton: str = "coco17"
    input: InputSpec
    output: OutputSpec
    init: Path | None = Field(None, description="checkpoint or name of a model to start from")
    teacher: Path | None = Field(None, description="the same, of this network: it sees the clean crop")
    teacher_flip: bool = Field(False, description="it sees the crop mirrored too, and the mean of both is taught")
    teacher_turns: tuple[float, ...] = Field((), description="it sees the crop turned by so many degrees too")
    teacher_ahead: bool = Field(False, description="it sees every person once, before training, not in every step")
    teacher_aligned: tuple[str, ...] = Field(
        (),
        description="what it says ahead is moved, joint by joint, by its median distance to people's labels of these",
    )
    teacher_zoom: int = Field(1, ge=1, le=4, description="its input is so many times the student's, crops are kept so")
    freeze_norms: bool = False
    samples: int = Field(gt=0)
    batch: int = Field(16, gt=0)
    lr: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_samples: int = Field(1000, ge=0)
    ema: float = Field(0.998, ge=0, lt=1)
    seed: Seed = 0
    augment: AugmentSpec = AugmentSpec()
    loss: LossSpec = LossSpec()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    layout: Literal["auto", "channels_first", "channels_last"] = "auto"
    device: str = "auto"
    threads: Threads | None = None
    measure_samples: int = Field(10000, gt=0)
    keep: Literal["best", "last"] = Field(
        "best", description="best.pt has the weights that posed the kept people best, or the last ones"
    )
    checkpoint_s: float = Field(60.0, gt=0)
    subset: int | None = Field(None, gt=0, description="train on the first people only, to rehearse or to overfit")
    measure_trained: bool = Field(False, description="measure on the people trained on, to show overfitting")

    _fits_the_network = field_validator("input")(fit_hrnet)

    @model_validator(mode="after")
    def _as_it_is_trained(self) -> Self:
        if self.input.channels != "rgb":
            raise ValueError("input.channels: bgr cannot be trained here; networks are trained, and run, on rgb")
        if self.output.kind != "heatmap":
            raise ValueError(f"output.kind: {self.output.kind} cannot be trained here; heatmap is what can")
        return self

    @model_validator(mode="after")
    def _aligned_at_its_time(self) -> Self:
        if self.teacher_aligned and not self.teacher_ahead:
            raise ValueError("teacher_aligned: needs teacher_ahead: true, the distances are those of all people")
        if self.output.shift is not None:
            raise ValueError("output.shift: is measured by --export … --align, not given to a training")
        return self

    def found_weights(self, path: Path) -> Path:
        """The same of `init` or `teacher`, which may be the name of a model, too. Raises ModelError."""
        return look_up_weights(path, self.root, "pose")

    def start_digest(self) -> str:
        """SHA-256 of the file of `init`, "" without one. Raises ModelError where it cannot be read."""
        return "" if self.init is None else sha256_of(self.found_weights(self.init))


def read_recipe(path: str | Path) -> PoseRecipe:
    """Read a recipe; raises ConfigError with the key and what would be right."""
    return read_model(Path(path), PoseRecipe, ConfigError, "recipe", "configs/train/ has some")
