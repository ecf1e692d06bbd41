"""What a tenant asks for: when requests come, how long they are, how they are sampled."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fairshare.spec.base import MisplacedError, PositiveSeconds, Seconds, Spec
from fairshare.spec.lengths import Length
from fairshare.spec.trace import Trace

MAX_RATE = 1e6
MAX_CALLS = 1000
Rate = Annotated[float, Field(gt=0, le=MAX_RATE, allow_inf_nan=False)]
RateOrNone = Annotated[float, Field(ge=0, le=MAX_RATE, allow_inf_nan=False)]
Burstiness = Annotated[float, Field(ge=1e-3, le=1e6, allow_inf_nan=False)]


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
    """Conversations of a ShareGPT JSON file: the first human turn, or all with ``history``."""

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


class Spacing(StrEnum):
    """How arrivals are spaced where their rate changes."""

    POISSON = "poisson"  # independent arrivals
    GAMMA = "gamma"  # with a burstiness
    CONSTANT = "constant"  # each one request after the one before, by the rate


class _Varying(Spec):
    spacing: Spacing = Spacing.POISSON
    """How arrivals follow each other at the rate of the moment."""
    burstiness: Burstiness = 1.0
    """With spacing gamma: 1 is Poisson, below 1 burstier (as in vLLM)."""

    @model_validator(mode="after")
    def _bursts_are_gammas(self) -> Self:
        if self.spacing is not Spacing.GAMMA and self.burstiness != 1:
            raise ValueError("burstiness needs spacing: gamma")
        return self


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
    burstiness: Burstiness = 1.0
    """Shape of the gamma distribution: 1 / (coefficient of variation squared)."""


class ConstantArrivals(_Rate):
    """Equal gaps; the first request after one gap's share of the tenant's own phase."""

    kind: Literal["constant"] = "constant"


class RampArrivals(_Varying):
    """A rate that rises (or falls) linearly over the measured window."""

    kind: Literal["ramp"] = "ramp"
    from_per_s: RateOrNone
    to_per_s: RateOrNone

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.from_per_s == 0 and self.to_per_s == 0:
            raise ValueError("from_per_s and to_per_s are both 0: nothing would be sent")
        return self


class StepArrivals(_Varying):
    """A rate that changes in steps, the first from the start of the measured window."""

    kind: Literal["step"] = "step"
    rates_per_s: list[RateOrNone] = Field(min_length=1, max_length=10_000)
    """The rates, one after the other; the last one stays."""
    step_s: PositiveSeconds | None = None
    """How long each lasts; without it, equal parts of the measured window."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not any(self.rates_per_s):
            raise ValueError("all rates_per_s are 0: nothing would be sent")
        return self


class OnOffArrivals(_Rate, _Varying):
    """Bursts: a rate for ``on_s`` seconds, silence for ``off_s``, and so on."""

    kind: Literal["on-off"] = "on-off"
    on_s: PositiveSeconds
    off_s: PositiveSeconds


class Phase(Spec):
    """One phase of a tenant's load."""

    for_s: PositiveSeconds | None = None
    """How long it lasts. Only the last phase may leave this out: it lasts to the end."""
    arrival: PhaseArrival | None = None
    """Arrivals during it; without them, silence."""


class PhasedArrivals(Spec):
    """One kind of arrivals after the other, from the start of the measured window on."""

    kind: Literal["phases"] = "phases"
    phases: list[Phase] = Field(min_length=1, max_length=1000)
    """After the last one, if it says for how long, nothing is sent."""

    @model_validator(mode="after")
    def _ends_known(self) -> Self:
        for index, phase in enumerate(self.phases[:-1]):
            if phase.for_s is None:
                message = "only the last phase may do without for_s: how long is this one?"
                raise MisplacedError(message, "phases", index)
        if all(phase.arrival is None for phase in self.phases):
            raise MisplacedError("no phase has an arrival: nothing would be sent", "phases")
        return self


class TraceArrivals(Trace):
    """Replays a trace: its arrival times, prompt and output lengths, and interactions."""

    kind: Literal["trace", "azure-trace"] = "trace"  # what it was called when it knew one format


class SharedTraceArrivals(Spec):
    """This tenant's part of the scenario's trace (what tenants of such a scenario do anyway)."""

    kind: Literal["shared-trace"] = "shared-trace"


PhaseArrival = Annotated[
    PoissonArrivals
    | GammaArrivals
    | ConstantArrivals
    | RampArrivals
    | StepArrivals
    | OnOffArrivals,
    Field(discriminator="kind"),
]
Phase.model_rebuild()
Arrival = Annotated[
    ClosedLoop
    | PoissonArrivals
    | GammaArrivals
    | ConstantArrivals
    | RampArrivals
    | StepArrivals
    | OnOffArrivals
    | PhasedArrivals
    | TraceArrivals
    | SharedTraceArrivals,
    Field(discriminator="kind"),
]
"""When requests come."""


class Interaction(Spec):
    """Every arrival is a chain of calls, each sent when the one before was answered."""

    app: str | None = Field(None, max_length=200)
    """The application that calls, noted in the records."""
    calls: int = Field(1, ge=1, le=MAX_CALLS)
    """Calls of one interaction."""
    max_calls: int | None = Field(None, ge=1, le=MAX_CALLS)
    """With it, the number of calls is drawn uniformly from ``calls`` to ``max_calls``."""
    think_time_s: Seconds = 0.0
    """From an answer to the next call of the interaction."""
    history: bool = False
    """A conversation: each prompt begins with all that was said before it.

    Of a ShareGPT file all turns are calls then, so ``calls`` and ``max_calls`` are not given.
    """

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_calls is not None and self.max_calls < self.calls:
            raise ValueError(f"max_calls ({self.max_calls}) is less than calls ({self.calls})")
        return self


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
