"""Who the tenants are, and for how long a cell is measured."""

from __future__ import annotations

import difflib
from enum import StrEnum
from typing import Any, Self

from pydantic import Field, model_validator

from fairshare.spec.base import (
    MisplacedError,
    Name,
    PositiveFloat,
    PositiveSeconds,
    Seconds,
    Share,
    Spec,
)
from fairshare.spec.lengths import Length
from fairshare.spec.trace import AssignByColumn, AssignByFile, SharedTrace
from fairshare.spec.workload import (
    Arrival,
    ClosedLoop,
    Interaction,
    Prompts,
    Sampling,
    SharedTraceArrivals,
    ShareGptPrompts,
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
    interaction: Interaction | None = None
    """Chains of calls in place of single requests: the arrivals are those of interactions."""
    sampling: Sampling = Sampling()
    slo: Slo = Slo()
    weight: PositiveFloat = 1.0
    """Entitlement in fairness figures."""
    share: Share | None = None
    """Fraction of the device in mps and mig modes; without it, what is left in equal parts."""
    priority: int | None = Field(None, ge=-(2**31), lt=2**31)
    """Sent to vLLM, smaller first; needs ``scheduling_policy: priority`` in the launcher's args."""
    timeout_s: PositiveSeconds = 120.0
    """A request that takes longer has failed."""

    @model_validator(mode="after")
    def _lengths_known(self) -> Self:
        if isinstance(self.arrival, TraceArrivals | SharedTraceArrivals):
            if self.output is not None or self.prompts is not None or self.interaction is not None:
                raise ValueError(
                    "a trace brings its own prompt and output lengths and interactions: "
                    "remove prompts, output and interaction"
                )
            return self
        if self.prompts is None:
            raise ValueError("prompts are missing (only a trace brings its own)")
        synthetic = isinstance(self.prompts, SyntheticPrompts)
        if self.output is None and synthetic:
            raise ValueError("output is missing: how many tokens does a request ask for?")
        if self.interaction is not None and self.interaction.history and not synthetic:
            self._check_conversations(self.interaction)
        return self

    def _check_conversations(self, interaction: Interaction) -> None:
        if not isinstance(self.prompts, ShareGptPrompts):
            raise MisplacedError(
                "prompts of a jsonl file are sent as they are: history needs synthetic prompts "
                "or a ShareGPT file",
                "interaction",
                "history",
            )
        if interaction.calls > 1 or interaction.max_calls is not None:
            raise MisplacedError(
                "the file says how many calls each conversation has: remove calls and max_calls",
                "interaction",
                "calls",
            )


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
    trace: SharedTrace | None = None
    """A trace that several tenants share: all that have no arrival of their own."""
    tenants: list[Tenant] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _take_parts(cls, raw: Any) -> Any:
        """Tenants that say nothing about their requests have a part of the scenario's trace."""
        if not isinstance(raw, dict) or raw.get("trace") is None:
            return raw
        if not isinstance(raw.get("tenants"), list):
            return raw
        own = {"arrival", "prompts", "output", "interaction"}
        tenants = [
            {**tenant, "arrival": {"kind": "shared-trace"}}
            if isinstance(tenant, dict) and not own & tenant.keys()
            else tenant
            for tenant in raw["tenants"]
        ]
        return {**raw, "tenants": tenants}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        taken: set[str] = set()
        given = 0.0
        for index, tenant in enumerate(self.tenants):
            for alike in _written_out(tenant):
                if alike.name in taken:
                    raise MisplacedError(
                        f"two tenants are named {alike.name!r}", "tenants", index, "name"
                    )
                if alike.name == "all":
                    message = "no tenant can be named 'all': that is what their total is called"
                    raise MisplacedError(message, "tenants", index, "name")
                taken.add(alike.name)
                given += alike.share or 0
        if given > 1 + 1e-9:
            raise MisplacedError(f"the tenants' shares add up to {given:.0%}", "tenants")
        return self

    @model_validator(mode="after")
    def _trace_is_shared(self) -> Self:
        sharers = self.sharers()
        if self.trace is None:
            for index, tenant in enumerate(self.tenants):
                if isinstance(tenant.arrival, SharedTraceArrivals):
                    raise MisplacedError(
                        "the scenario has no trace to share: add trace, or give the tenant a "
                        "kind: trace of its own",
                        *("tenants", index, "arrival"),
                    )
            return self
        if not sharers:
            raise MisplacedError(
                "no tenant has a part of the trace: leave arrival, prompts and output out of those "
                "that are to have one",
                "trace",
            )
        assign = self.trace.assign
        if isinstance(assign, AssignByColumn | AssignByFile) and assign.others is not None:
            _check_sharer(assign.others, sharers, "others")
        if isinstance(assign, AssignByColumn):
            named = assign.tenants or {name: name for name in sharers}
            for value, name in named.items():
                _check_sharer(name, sharers, "tenants", value)
            left = [name for name in sharers if name not in {*named.values(), assign.others}]
            if left:
                raise MisplacedError(
                    f"nothing of the trace is for {left[0]!r}", "trace", "assign", "tenants"
                )
        return self

    def sharers(self) -> list[str]:
        """The names of the tenants that share the scenario's trace, in order."""
        return [t.name for t in self.expanded() if isinstance(t.arrival, SharedTraceArrivals)]

    def expanded(self) -> list[Tenant]:
        """The tenants one by one, ``count`` written out."""
        return [alike for tenant in self.tenants for alike in _written_out(tenant)]


def _written_out(tenant: Tenant) -> list[Tenant]:
    if tenant.count == 1:
        return [tenant]
    return [
        tenant.model_copy(update={"name": f"{tenant.name}-{i}", "count": 1})
        for i in range(1, tenant.count + 1)
    ]


def _check_sharer(name: str, sharers: list[str], *at: str) -> None:
    if name not in sharers:
        close = difflib.get_close_matches(name, sharers, n=1)
        known = f"did you mean {close[0]}?" if close else "they are " + ", ".join(sharers[:10])
        raise MisplacedError(
            f"no tenant that shares the trace is named {name!r} ({known})",
            *("trace", "assign", *at),
        )
