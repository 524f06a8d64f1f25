"""The recipe of a refiner's training, a YAML file as a typed model; every fault is one line with its key."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from streampose.errors import ConfigError
from streampose.train.pose_config import SetsRecipe
from streampose.train.ranges import HeightOrNone, Seed
from streampose.train.run_folder import look_up
from streampose.typed_yaml import read_model


class RefinerRecipe(SetsRecipe):
    """All of it. Everybody is shown to the network once for each of `heights`, in a box that is not quite theirs."""

    model: Path = Field(description="name or manifest of the pose model to refine")
    sources: tuple[str, ...] = Field((), description="people of these sources only; of all where there is none")
    heights: tuple[HeightOrNone, ...] = Field(
        (0,), min_length=1, description="pixels, as a far camera sees them; 0: as they are"
    )
    shift: float = Field(0.03, ge=0, description="by so much of its sides a box lies off (standard deviation)")
    scale: float = Field(0.06, ge=0, description="so much too wide or high it is (of the logarithm)")
    detector: str | None = Field(None, description="detector in whose boxes the pictures are looked at once more")
    threshold: float = Field(0.05, gt=0, lt=1, description="its least score")
    found_counts: int = Field(1, gt=0, description="how often what is seen in its boxes is learnt from in a pass")
    hidden: int = Field(256, gt=0, description="units in each of the two hidden layers")
    passes: int = Field(12, gt=0, description="how often every answer is learnt from")
    batch: int = Field(256, gt=0)
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    seed: Seed = 0
    device: str = "auto"
    runtime: str = "auto"
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "auto"

    @property
    def found_model(self) -> str | Path:
        """Where `model` lies, or its name."""
        return self._named(self.model)

    @property
    def found_detector(self) -> str | Path:
        """The same of `detector`."""
        return self._named(Path(self.detector or ""))

    def _named(self, model: Path) -> str | Path:
        found = look_up(model, self.root)
        return found if found.is_file() else str(model)


def read_refiner_recipe(path: str | Path) -> RefinerRecipe:
    """Read a recipe; raises ConfigError with the key and what would be right."""
    return read_model(Path(path), RefinerRecipe, ConfigError, "recipe", "configs/train/ has some")
