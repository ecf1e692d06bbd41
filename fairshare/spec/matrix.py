"""Which scenarios, modes, concurrencies and repetitions a sweep runs."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from fairshare.records import Mode, Scheduling, TransportKind
from fairshare.spec.base import Name, PositiveFloat, PositiveSeconds, Seconds, Spec
from fairshare.spec.choices import CLOCKS, Order
from fairshare.spec.mig import MigSpec
from fairshare.spec.policy import Policy, PolicySpec
from fairshare.spec.search import KNEE_RUNS, KneeSearch, Search
from fairshare.spec.sharing import MpsSpec, TimesliceSpec


class Matrix(Spec):
    """A sweep: the product of its lists. Flags of the same names override it."""

    format_version: int = Field(1, ge=1, le=1)
    name: Name
    description: str = ""
    scenarios: list[str] = Field(min_length=1)
    """Names or paths of scenarios."""
    modes: list[Mode] = Field([Mode.LOGICAL, Mode.MPS, Mode.MIG], min_length=1)
    policies: list[Policy] = Field([PolicySpec(kind="fcfs")], min_length=1)
    """Who is served next in mode logical: names, or {kind: NAME, option: value}."""
    scheduling: list[Scheduling] = []
    """Where the policies decide: gateway, engine, priority. Empty: in a gateway, but first come,
    first served alone needs none."""
    gateway_window: int | None = Field(None, ge=1, le=100_000)
    """Requests that a gateway lets the server have at once; without it, as many as the engine runs
    at once (max_num_seqs) and an eighth more (at least two), or twice as many with priorities."""
    concurrency: list[int] = []
    """Requests in flight per closed-loop tenant; empty: the scenario's own numbers."""
    load_scale: list[PositiveFloat] = Field([1.0], min_length=1)
    """Factors on the rates of open-loop tenants."""
    num_runs: int = Field(1, ge=1, le=1000)
    """Repetitions; each is a round through all cells, in alternating direction."""
    order: Order = Order.INTERLEAVED
    """interleaved, grouped (servers start once, drift may favour a mode) or random (by round)."""
    order_seed: int = Field(0, ge=0)
    """With order random: another seed is another order."""
    max_like_failures: int = Field(3, ge=0, le=1000)
    """So many failures alike in a row end a deployment: its other cells are left out (0: never)."""
    lock_clocks: str | None = Field(None, pattern=CLOCKS)
    """Lock the GPU's clocks to MHZ or MIN,MAX while servers run; needs --allow-gpu-changes."""
    device: str | None = None
    """cuda, cpu, virtual or virtual:MODEL; without it, the best that passes its preflight."""
    launcher: str | None = None
    """Name or path; without it, the default of the device."""
    model: str | None = None
    mig: MigSpec | None = None
    """How mode mig makes its shares, where it does."""
    mps: MpsSpec = MpsSpec()
    """How mode mps makes its shares, where it does."""
    timeslice: TimesliceSpec = TimesliceSpec()
    """How mode timeslice makes its shares, where it does."""
    transport: TransportKind = TransportKind.STREAM
    """What carries the requests: stream (the more exact one), aiohttp, in-process (vLLM alone)."""
    load_processes: int = Field(1, ge=1, le=256)
    """Over how many processes the load is spread; a tenant belongs to one of them."""
    search: Search | None = None
    """Look for an answer instead of measuring a grid: the knee, or the best split of the device."""
    seed: int | None = Field(None, ge=0)
    warmup_s: Seconds | None = None
    window_s: PositiveSeconds | None = None
    drain_s: Seconds | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        lists: tuple[tuple[str, list[Any]], ...] = (
            ("modes", self.modes),
            ("policies", [policy.label for policy in self.policies]),
            ("scheduling", self.scheduling),
            ("concurrency", self.concurrency),
            ("scenarios", self.scenarios),
            ("load_scale", self.load_scale),
        )
        for name, values in lists:
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names something twice")
        if bad := next((n for n in self.concurrency if not 1 <= n <= 100_000), None):
            raise ValueError(f"concurrency {bad} is not between 1 and 100000")
        if (
            isinstance(self.search, KneeSearch)
            and max(len(self.load_scale), len(self.concurrency)) > 1
        ):
            raise ValueError(
                "a search for the knee chooses the load itself: give one load_scale and one "
                "concurrency at most, to begin with"
            )
        return self

    @property
    def rounds(self) -> int:
        """Repetitions of the whole plan; a search for the knee asks for its windows one by one."""
        return 1 if isinstance(self.search, KneeSearch) else self.num_runs

    @property
    def windows_per_point(self) -> int:
        """How many windows a search for the knee measures at one load, at most."""
        return self.num_runs if "num_runs" in self.model_fields_set else KNEE_RUNS
