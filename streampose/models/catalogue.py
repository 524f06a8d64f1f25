"""The models we know of, as data: where each is published, how it is verified, what it costs and scores."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

FILE = Path(__file__).with_name("catalogue.yaml")


class KnownModel(BaseModel):
    """A published model. `sha256` may be a prefix, as its publisher writes it into the file's name; of a pose network,
    `network` and `joints` are its architecture, which a file must have.

    `size` is [width, height] of the input in pixels; `parameters_m` in millions, `gmacs` in 10^9 for one picture;
    `ap` is the published average precision on COCO val2017 in per cent, `ap_of` says of what and where it is from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    network: str = ""
    joints: int = 0
    url: str
    sha256: str = Field(pattern="^[0-9a-f]{8,64}$|^$")
    size: tuple[int, int]
    parameters_m: float | None = None
    gmacs: float | None = None
    licence: str
    ap: float | None = None
    ap_of: str = ""
    note: str = ""

    @property
    def file_name(self) -> str:
        """What the file is called at its publisher, and here."""
        return self.url.rsplit("/", 1)[-1]


@lru_cache(maxsize=1)
def catalogue() -> dict[str, KnownModel]:
    """Name to known model, in the order of the file."""
    raw = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {str(name): KnownModel.model_validate(entry) for name, entry in raw.items()}
