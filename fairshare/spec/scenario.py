"""Who the tenants are, and for how long a cell is measured."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from fairshare.spec.base import Name, PositiveFloat, PositiveSeconds, Seconds, Share, Spec
from fairshare.spec.workload import (
    Arrival,
    ClosedLoop,
    Length,
    Prompts,
    Sampling,
    Slo,
    SyntheticPrompts,
    TraceArrivals,
)


class Api(StrEnum):
    """What is spoken to the server."""

    COMPLETIONS = "completions"  # OpenAI /v1/completions
    CHAT = "chat"  # OpenAI /v1/chat/completions
    TGI = "tgi"  # /generate and /generate_stream


class Tenant(Spec):
    """One customer of the device: a model, a workload, what it was promised."""

    name: Name
    count: int = Field(1, ge=1, le=1000)
    """This many tenants alike, named NAME-1, NAME-2, ..."""
    model: str | None = None
    """A path or name; without it, the run's ``--model``."""
    adapter: str | None = None
    """Folder of a LoRA adapter on top of the model; relative to the scenario's file."""
    api: Api | None = None
    """Protocol; without it, the launcher's first."""
    stream: bool = True
    arrival: Arrival = ClosedLoop()
    prompts: Prompts | None = None
    output: Length | None = None
    """Output tokens asked for. Not needed where a trace or file gives them."""
    sampling: Sampling = Sampling()
    slo: Slo = Slo()
    weight: PositiveFloat = 1.0
    """Entitlement in fairness figures."""
    share: Share | None = None
    """Fraction of the device in mps and mig modes; without it, what is left in equal parts."""
    timeout_s: PositiveSeconds = 120.0
    """A request that takes longer has failed."""

    @model_validator(mode="after")
    def _lengths_known(self) -> Self:
        if isinstance(self.arrival, TraceArrivals):
            if self.output is not None or self.prompts is not None:
                raise ValueError(
                    "a trace brings its own prompt and output lengths: remove prompts and output"
                )
            return self
        if self.prompts is None:
            raise ValueError("prompts are missing (only a trace brings its own)")
        if self.output is None and isinstance(self.prompts, SyntheticPrompts):
            raise ValueError("output is missing: how many tokens does a request ask for?")
        return self


class Timing(Spec):
    """How long a cell lasts: by time, by requests, or by rounds."""

    warmup_s: Seconds = 3.0
    """Load runs, but is left out of the figures."""
    window_s: PositiveSeconds = 20.0
    """The measured window. With requests or rounds it is the longest it may take."""
    drain_s: Seconds = 15.0
    """What was sent in the window may finish for so long; what has not then is a failure."""
    requests: int | None = Field(None, ge=1)
    """The window ends when this many measured requests of each tenant have ended, failures too."""
    rounds: int | None = Field(None, ge=1)
    """The window consists of this many rounds; each starts on a common barrier."""
    round_s: PositiveSeconds | None = None
    """Requests are sent for so long in each round; then all outstanding ones are awaited."""

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.requests is not None and self.rounds is not None:
            raise ValueError("a cell ends by requests or by rounds, not by both")
        if (self.rounds is None) != (self.round_s is None):
            raise ValueError("rounds and round_s go together")
        return self


class Scenario(Spec):
    """Tenants that share one device, and how long they are watched."""

    format_version: int = Field(1, ge=1, le=1)
    name: Name
    description: str = ""
    seed: int = Field(1, ge=0)
    timing: Timing = Timing()
    tenants: list[Tenant] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [tenant.name for tenant in self.expanded()]
        if duplicate := next((n for n in names if names.count(n) > 1), None):
            raise ValueError(f"two tenants are named {duplicate!r}")
        if "all" in names:
            raise ValueError("no tenant can be named 'all': that is what their total is called")
        given = sum(tenant.share or 0 for tenant in self.expanded())
        if given > 1 + 1e-9:
            raise ValueError(f"the tenants' shares add up to {given:.0%}")
        return self

    def expanded(self) -> list[Tenant]:
        """The tenants one by one, ``count`` written out."""
        return [
            tenant.model_copy(update={"name": f"{tenant.name}-{i}", "count": 1})
            if tenant.count > 1
            else tenant
            for tenant in self.tenants
            for i in range(1, tenant.count + 1)
        ]
