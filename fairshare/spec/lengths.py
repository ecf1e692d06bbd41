"""Lengths in tokens, as a scenario says them: fixed, or drawn from a distribution."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fairshare.spec.base import PositiveFloat, Spec

MAX_TOKENS = 1_000_000


class FixedLength(Spec):
    """Always the same number of tokens."""

    kind: Literal["fixed"] = "fixed"
    tokens: int = Field(ge=1, le=MAX_TOKENS)


class UniformLength(Spec):
    """Uniform over the whole numbers from ``min`` to ``max``, both included."""

    kind: Literal["uniform"] = "uniform"
    min: int = Field(ge=1, le=MAX_TOKENS)
    max: int = Field(ge=1, le=MAX_TOKENS)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) is less than min ({self.min})")
        return self


class NormalLength(Spec):
    """Normal, rounded, and redrawn outside ``min`` to ``max``."""

    kind: Literal["normal"] = "normal"
    mean: PositiveFloat
    stddev: float = Field(ge=0, allow_inf_nan=False)
    min: int = Field(1, ge=1, le=MAX_TOKENS)
    max: int = Field(MAX_TOKENS, ge=1, le=MAX_TOKENS)

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        _check_reachable(self.mean, self.min, self.max, "mean")
        return self


class LognormalLength(Spec):
    """Lognormal with the given median and sigma of the logarithm; redrawn outside the bounds."""

    kind: Literal["lognormal"] = "lognormal"
    median: PositiveFloat
    sigma: float = Field(ge=0, le=5, allow_inf_nan=False)
    min: int = Field(1, ge=1, le=MAX_TOKENS)
    max: int = Field(MAX_TOKENS, ge=1, le=MAX_TOKENS)

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        _check_reachable(self.median, self.min, self.max, "median")
        return self


class QuantileLength(Spec):
    """Piecewise linear through measured quantiles: ``values[i]`` at probability ``at[i]``."""

    kind: Literal["quantiles"] = "quantiles"
    values: list[int] = Field(min_length=2)
    at: list[float] | None = None
    """Probabilities of the values, rising from 0 to 1; without them, equally spaced."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if any(b < a for a, b in pairwise(self.values)):
            raise ValueError("values must not fall")
        if self.values[0] < 1 or self.values[-1] > MAX_TOKENS:
            raise ValueError(f"values must lie between 1 and {MAX_TOKENS}")
        at = self.probabilities
        if len(at) != len(self.values):
            raise ValueError(f"{len(self.values)} values but {len(at)} probabilities in at")
        if at[0] != 0 or at[-1] != 1 or not all(a < b for a, b in pairwise(at)):
            raise ValueError("at must rise from 0 to 1")
        return self

    @property
    def probabilities(self) -> list[float]:
        """The probability of each value."""
        if self.at is not None:
            return self.at
        steps = len(self.values) - 1
        return [i / steps for i in range(steps + 1)]


class MixPart(Spec):
    """One part of a mixture."""

    weight: PositiveFloat
    length: SimpleLength


class MixLength(Spec):
    """A mixture, such as short, medium and long prompts."""

    kind: Literal["mix"] = "mix"
    parts: list[MixPart] = Field(min_length=1)


SimpleLength = Annotated[
    FixedLength | UniformLength | NormalLength | LognormalLength | QuantileLength,
    Field(discriminator="kind"),
]
Length = Annotated[
    FixedLength | UniformLength | NormalLength | LognormalLength | QuantileLength | MixLength,
    Field(discriminator="kind"),
]
MixPart.model_rebuild()


def _check_reachable(centre: float, low: int, high: int, name: str) -> None:
    if high < low:
        raise ValueError(f"max ({high}) is less than min ({low})")
    if not low <= centre <= high:
        raise ValueError(f"{name} ({centre:g}) lies outside min..max ({low}..{high})")
