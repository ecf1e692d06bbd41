"""Sweeps that look for an answer: the highest load that is served, or how to split the device."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from fairshare.spec.base import Spec

KNEE_RUNS = 5
"""Windows that a point of a knee gets at most, where nobody says ``num_runs``."""


class KneeSearch(Spec):
    """Per scenario and mode, the highest load at which every tenant's SLO is met."""

    kind: Literal["knee"] = "knee"
    attainment: float = Field(0.9, ge=0.01, le=0.999)
    """Fraction of each tenant's requests that must be within its SLO."""
    resolution: float = Field(0.1, ge=0.01, le=1)
    """The search ends when the load that is served and the next one that is not are so near."""


class ShareSweep(Spec):
    """Every mode that gives tenants shares, at every split of the device between them."""

    kind: Literal["shares"] = "shares"
    step: int = Field(10, ge=1, le=50)
    """Shares are multiples of so many percent."""

    @field_validator("step")
    @classmethod
    def _divides(cls, step: int) -> int:
        if 100 % step:
            raise ValueError(f"{step} % does not divide 100 %: take 1, 2, 4, 5, 10, 20, 25 or 50")
        return step


Search = Annotated[KneeSearch | ShareSweep, Field(discriminator="kind")]
