"""The recipe of a detector's training: a YAML file as a typed model; what is wrong with it ends in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from streampose.errors import ConfigError
from streampose.models.manifest import sha256_of
from streampose.train.detector_augment import AugmentOptions
from streampose.train.ranges import Amount, Seed, Strict, Threads
from streampose.train.run_folder import look_up, look_up_weights
from streampose.typed_yaml import read_model

Side = Annotated[int, Field(gt=0)]


def _file_stem(name: str) -> str:
    if not name or name.startswith(".") or not name.isprintable() or set(name) & set('/\\:*?"<>|'):
        raise ValueError("a plain file name without its ending is wanted, such as my_cameras")
    if name.lower() == "last":
        raise ValueError("the run keeps its last weights under that name; take another, such as my_cameras")
    return name


Stem = Annotated[str, AfterValidator(_file_stem)]


class DataOptions(Strict):
    """What is trained on and what is kept for measuring."""

    root: str = Field("data", description="the folder in which the sets lie")
    sets: list[str] = Field(
        min_length=1, description="COCO-format sets: zips, folders with annotations.json, or COCO's JSON"
    )
    images: str | None = Field(None, description="folder of a JSON's pictures, where they do not lie beside it")
    held_out: int = Field(300, ge=0, description="so many pictures with the highest ids are measured on")
    held_out_source: str = Field("", description="pictures of this source only; of all sets where it is empty")
    held_out_share: float = Field(0.2, gt=0, le=1, description="at most this part of them is held out")
    held_out_sources: list[str] = Field(default_factory=list, description="whole sources kept as unseen cameras")
    licences: dict[str, str] = Field(default_factory=dict, description="of each source, for the manifest")
    weights: dict[str, Amount] = Field(
        default_factory=dict, description="how often a source's picture is drawn; else 1"
    )
    guess_sources: list[str] = Field(default_factory=list, description="labels incomplete: the start completes them")
    guess_sure: float = Field(0.55, gt=0, le=1, description="a guess of this score becomes a label")
    guess_doubt: float = Field(0.1, gt=0, le=1, description="a guess of this score becomes a region to ignore")
    guess_background: float = Field(0.3, ge=0, le=1, description="how far the rest of such a picture is background")
    crowd_doubt: float = Field(
        0.25, gt=0, le=1, description="with 10 or more people labelled, such guesses are ignored"
    )

    def found(self, name: str) -> Path:
        """Where a file or folder lies: under `root`, or, where it is only there, in the working directory."""
        return look_up(Path(name), Path(self.root))


class Recipe(Strict):
    """All of it; `streampose train detector RECIPE.yaml`."""

    name: Stem = Field(description="the model's, and the stem of its files in `out`")
    file: str = Field("", exclude=True, description="the recipe's own file name; filled in when it is read")
    out: str = Field(description="folder of the run: checkpoints, metrics, and the best weights with their manifest")
    licence: str = Field("AGPL-3.0", description="of the weights that are made; those of ultralytics pass on theirs")
    origin: str = ""
    architecture: dict[str, Any] = Field(
        default_factory=lambda: {"builder": "ultralytics", "config": "yolov8n.yaml", "tower_classes": 80}
    )
    init: str | None = Field(
        None,
        description="safetensors, an ultralytics .pt or a model's name to start from; else from nothing",
    )
    trust: bool = Field(False, description="open a pickled .pt of unknown origin as the start (it can run code)")
    data: DataOptions
    augment: AugmentOptions = AugmentOptions()
    canvases: list[tuple[Side, Side]] = Field(
        default=[(640, 480), (512, 512), (480, 640)],
        min_length=1,
        description="width, height of a batch, multiples of 32",
    )
    steps: int = Field(gt=0)
    batch: int = Field(8, gt=0)
    lr: float = Field(2e-4, gt=0)
    final_lr: float = Field(0.02, ge=0, le=1, description="the cosine ends at this share of lr")
    warmup_steps: int = Field(150, ge=0)
    weight_decay: float = Field(5e-4, ge=0)
    ema: float = Field(0.998, ge=0, lt=1)
    start_share: float = Field(0.0, ge=0, lt=1, description="share of the start's weights in what is measured and kept")
    teacher_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="of the loss: towards what the start says of the view, its mirror image and twice its size",
    )
    clip_norm: float = Field(10.0, gt=0)
    freeze_batch_norm: bool = Field(True, description="keep the start's statistics; scale and shift still learn")
    size: int = Field(640, gt=0, description="long side of the pictures that are measured on")
    evaluate_every: int = Field(600, gt=0)
    keep: Literal["best", "last"] = Field(
        "best", description="which weights are kept: of the best AP50 of what is held out, or the last"
    )
    evaluate_unseen: int = Field(120, ge=0, description="so many pictures of the unseen cameras at each evaluation")
    checkpoint_every: int = Field(100, gt=0, description="so many steps from one checkpoint to the next, at most")
    checkpoint_s: float = Field(60.0, gt=0, description="and so many seconds")
    threads: Threads | None = None
    workers: int = Field(1, ge=0, description="processes that make samples; 0 makes them in this one")
    device: str = "auto"
    precision: Literal["auto", "float32", "bf16"] = Field("auto", description="auto times a few steps of each")
    seed: Seed = 0

    def start_file(self) -> Path | None:
        """Where `init` lies: under the data's `root`, else in the working directory, else as a model of its name."""
        return None if self.init is None else look_up_weights(Path(self.init), Path(self.data.root), "detect")

    def start_digest(self) -> str:
        """SHA-256 of the file of `init`, "" without one. Raises ModelError where it cannot be read."""
        file = self.start_file()
        return "" if file is None else sha256_of(file)


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe; raises ConfigError that names the key."""
    recipe = read_model(Path(path), Recipe, ConfigError, "recipe", "configs/train/ has some")
    if "rtdetr" in str(recipe.architecture.get("config")):
        raise ConfigError(
            f"{path}: architecture.config: an RT-DETR has another loss; name a YOLO, such as yolo26n.yaml"
        )
    for width, height in recipe.canvases:
        if width % 32 or height % 32:
            raise ConfigError(f"{path}: canvases: {width}x{height} is not made of multiples of 32")
    return recipe.model_copy(update={"file": Path(path).name})
