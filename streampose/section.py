"""What every section of the configuration has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from streampose.units import Duration

Positive: TypeAlias = Annotated[Duration, Field(gt=0)]
"""A duration that must last: with none of it nothing would be analysed, or kept."""


class Section(BaseModel):
    """A section of the configuration: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_set(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: item for key, item in value.items() if item is not None or key not in cls.model_fields}

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """To Python true is 1; who writes it where a number belongs means something else."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float}.intersection(get_args(kind) or (kind,)):
            raise ValueError("a number is wanted")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_a_name(cls, value: object) -> object:
        """Texts name files, addresses and users: the system takes them without NUL, and with no half of a character, but for
        the bytes of a file's name that are not UTF-8."""
        if isinstance(value, str):
            try:
                possible = b"\0" not in value.encode(errors="surrogateescape")
            except UnicodeEncodeError:
                possible = False
            if not possible:
                raise ValueError("holds a character that no name can (NUL, or half of one)")
        return value
