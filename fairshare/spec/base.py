"""The common base of everything a user writes, and the quantities they write it in."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from fairshare.units import parse_bytes, parse_duration_s, parse_fraction


class Spec(BaseModel):
    """Frozen, and refusing what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class MisplacedError(ValueError):
    """A validator's complaint about something further down: ``at`` is the way to it."""

    def __init__(self, message: str, *at: str | int) -> None:
        super().__init__(message)
        self.at = at


def _quantity(number: dict[str, Any], units: str) -> WithJsonSchema:
    """For editors: a plain number, or text with a unit; what the text says is for loading."""
    text = {"type": "string", "pattern": rf"^\s*\d+(\.\d+)?\s*({units})?\s*$"}
    return WithJsonSchema({"anyOf": [number, text]})


_SECONDS_UNITS = "ms|s|m|min|h|d"
_BYTES_UNITS = "[KMGTkmgt]?i?[Bb]?"
# A month: longer is a slip of the unit, and nanoseconds of it still fit 64 bits many times over.
_MAX_S = 31 * 86400.0
Seconds = Annotated[
    float,
    BeforeValidator(parse_duration_s),
    Field(ge=0, le=_MAX_S, allow_inf_nan=False),
    _quantity({"type": "number", "minimum": 0, "maximum": _MAX_S}, _SECONDS_UNITS),
]
PositiveSeconds = Annotated[
    float,
    BeforeValidator(parse_duration_s),
    Field(gt=0, le=_MAX_S, allow_inf_nan=False),
    _quantity({"type": "number", "exclusiveMinimum": 0, "maximum": _MAX_S}, _SECONDS_UNITS),
]
Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    Field(gt=0, lt=2**63),
    _quantity({"type": "integer", "exclusiveMinimum": 0}, _BYTES_UNITS),
]
Share = Annotated[
    float,
    BeforeValidator(parse_fraction),
    Field(gt=0, le=1),
    _quantity({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "%"),
]
PositiveFloat = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,47}$")]
