"""Numbers that several recipes have, and between which bounds a training can have them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from streampose.evaluate.reimage import HEIGHTS_PX


class Strict(BaseModel):
    """A part of a recipe: no key that is not known, no number without end."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"from the least to the most is wanted, not [{pair[0]:g}, {pair[1]:g}]")
    return pair


def _height_or_none(height: int) -> int:
    least, most = HEIGHTS_PX
    if height and not least <= height <= most:
        raise ValueError(f"0, or pixels between {least} and {most}, are wanted")
    return height


Positive = Annotated[float, Field(gt=0)]
PositivePair = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
"""From, to; both above zero."""
Amount = Annotated[float, Field(ge=0)]
AmountPair = Annotated[tuple[Amount, Amount], AfterValidator(_ordered)]
Quality = Annotated[float, Field(ge=1, le=100)]
QualityPair = Annotated[tuple[Quality, Quality], AfterValidator(_ordered)]
"""Of JPEG."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Threads = Annotated[int, Field(ge=0, le=1024)]
"""0: as many as torch takes by itself."""
Height = Annotated[int, Field(ge=HEIGHTS_PX[0], le=HEIGHTS_PX[1])]
"""Of a person as a far camera sees them, pixels."""
HeightOrNone = Annotated[int, AfterValidator(_height_or_none)]
"""0: a person as they are."""
