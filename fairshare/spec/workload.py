"""What a tenant asks for: when requests come, how long they are, how they are sampled."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fairshare.spec.base import PositiveFloat, PositiveSeconds, Seconds, Spec

MAX_TOKENS = 1_000_000
MAX_RATE = 1e6
Rate = Annotated[float, Field(gt=0, le=MAX_RATE, allow_inf_nan=False)]


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


class SyntheticPrompts(Spec):
    """Random prompts of exact length in tokens."""

    kind: Literal["synthetic"] = "synthetic"
    tokens: Length


class JsonlPrompts(Spec):
    """Prompts of a file: one JSON object a line with ``prompt`` and, optionally, ``max_tokens``."""

    kind: Literal["jsonl"] = "jsonl"
    path: str
    """File of prompts; relative paths are relative to the scenario's file."""


class ShareGptPrompts(Spec):
    """The first human turn of each conversation of a ShareGPT JSON file."""

    kind: Literal["sharegpt"] = "sharegpt"
    path: str
    """The JSON file; relative paths are relative to the scenario's file."""


Prompts = Annotated[SyntheticPrompts | JsonlPrompts | ShareGptPrompts, Field(discriminator="kind")]


class _Rate(Spec):
    rate_per_s: Rate | None = None
    """Requests per second (give this or rate_per_min)."""
    rate_per_min: Rate | None = None
    """Requests per minute (give this or rate_per_s)."""

    @model_validator(mode="after")
    def _one_rate(self) -> Self:
        if (self.rate_per_s is None) == (self.rate_per_min is None):
            raise ValueError("give one of rate_per_s and rate_per_min")
        return self

    @property
    def per_s(self) -> float:
        """Requests per second."""
        # The validator saw to it that one of them is given; neither can be 0.
        return self.rate_per_s or (self.rate_per_min or 0.0) / 60


class ClosedLoop(Spec):
    """N requests in flight at all times: the next is sent when one ends."""

    kind: Literal["closed"] = "closed"
    concurrency: int | None = Field(None, ge=1, le=100_000)
    """Fixed number in flight; without it, ``--concurrency`` says."""
    think_time_s: Seconds = 0.0
    """Pause between an answer and the next request of the same client."""


class PoissonArrivals(_Rate):
    """Independent arrivals: exponential gaps."""

    kind: Literal["poisson"] = "poisson"


class GammaArrivals(_Rate):
    """Gamma-distributed gaps; burstiness 1 is Poisson, below 1 burstier (as in vLLM)."""

    kind: Literal["gamma"] = "gamma"
    burstiness: float = Field(1.0, ge=1e-3, le=1e6, allow_inf_nan=False)
    """Shape of the gamma distribution: 1 / (coefficient of variation squared)."""


class ConstantArrivals(_Rate):
    """Equal gaps; the first request after one gap's share of the tenant's own phase."""

    kind: Literal["constant"] = "constant"


class RampArrivals(Spec):
    """Poisson arrivals whose rate rises (or falls) linearly over the measured window."""

    kind: Literal["ramp"] = "ramp"
    from_per_s: float = Field(ge=0, le=MAX_RATE, allow_inf_nan=False)
    to_per_s: float = Field(ge=0, le=MAX_RATE, allow_inf_nan=False)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.from_per_s == 0 and self.to_per_s == 0:
            raise ValueError("from_per_s and to_per_s are both 0: nothing would be sent")
        return self


class TraceArrivals(Spec):
    """Replays an Azure LLM inference trace: its arrival times, prompt and output lengths."""

    kind: Literal["azure-trace"] = "azure-trace"
    path: str
    """CSV with TIMESTAMP, ContextTokens, GeneratedTokens; relative to the scenario's file."""
    time_scale: PositiveFloat = 1.0
    """2 plays twice as fast."""


Arrival = Annotated[
    ClosedLoop | PoissonArrivals | GammaArrivals | ConstantArrivals | RampArrivals | TraceArrivals,
    Field(discriminator="kind"),
]


class Sampling(Spec):
    """Sampling parameters, sent as they are."""

    temperature: float = Field(0.0, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    ignore_eos: bool = True
    """Produce exactly the drawn output length (where the server's protocol can be told so)."""


class Slo(Spec):
    """Limits that a request must keep, all of them, to count as served."""

    ttft_s: PositiveSeconds | None = None
    tpot_s: PositiveSeconds | None = None
    e2e_s: PositiveSeconds | None = None
