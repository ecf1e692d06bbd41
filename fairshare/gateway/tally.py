"""What was done for each tenant, counted, and as a page for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from fairshare.gateway.admission import Admission, Decision, Refused, Ticket

DELAY_BUCKETS_S = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_ENDS = {
    Decision.FINISHED: "finished",
    Decision.FAILED: "failed",
    Decision.CANCELLED: "cancelled",
}


@dataclass(slots=True)
class TenantTally:
    """The counts of one tenant."""

    dispatched: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    delays: list[int] = field(default_factory=lambda: [0] * (len(DELAY_BUCKETS_S) + 1))
    delay_sum_s: float = 0.0


class Tally:
    """The counts of all tenants; as many as the gateway tells apart."""

    def __init__(self) -> None:
        self.tenants: defaultdict[str, TenantTally] = defaultdict(TenantTally)

    def note(
        self, decision: Decision, ticket: Ticket, now_s: float, refused: Refused | None
    ) -> None:
        """Count a decision."""
        request = ticket.request
        tenant = self.tenants[request.tenant]
        if decision is Decision.ADMITTED:
            delay_s = now_s - request.arrival_s
            tenant.dispatched += 1
            tenant.delay_sum_s += delay_s
            tenant.delays[bisect_left(DELAY_BUCKETS_S, delay_s)] += 1
        elif decision is Decision.REFUSED and refused is not None:
            tenant.refused[refused.reason] += 1
        elif (end := _ENDS.get(decision)) is not None:
            tenant.ends[end] += 1
            if ticket.admitted_s is not None and decision is not Decision.FAILED:
                tenant.prompt_tokens += request.prompt_tokens
                tenant.cached_tokens += request.cached_tokens


class MetricsPage(Collector):
    """The page itself, made when it is asked for."""

    def __init__(self, tally: Tally, admission: Admission) -> None:
        self._tally = tally
        self._admission = admission
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """The page in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """All families; prometheus_client calls this."""
        admission = self._admission
        yield _gauge("window", "Requests that may be at the server at once.", admission.window.size)
        yield _gauge("outstanding", "Requests at the server.", admission.outstanding)
        yield _gauge("queued_bytes", "Bytes of the bodies that wait.", admission.queued_bytes)
        yield self._per_tenant("queued", "Requests that wait.", admission.queued.get)
        yield self._per_tenant("running", "Requests at the server.", admission.running.get)
        counters = admission.policy.counters()
        yield self._per_tenant("policy_counter", "What the policy compares.", counters.get)
        yield from self._counts()
        yield self._delays()

    def _per_tenant(
        self, name: str, says: str, value: Callable[[str], float | None]
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"fairshare_gateway_{name}", says, labels=["tenant"])
        for tenant in list(self._tally.tenants):
            family.add_metric([tenant], value(tenant) or 0)
        return family

    def _counts(self) -> Iterator[Metric]:
        dispatched = _counter("dispatched", "Requests sent to the server.")
        ends = _counter("ended", "Requests that were sent, by how they ended.", "outcome")
        refused = _counter("refused", "Requests that were refused.", "reason")
        tokens = _counter("tokens", "Tokens charged; cached ones are prompt tokens too.", "kind")
        for name, tenant in self._tally.tenants.items():
            dispatched.add_metric([name], tenant.dispatched)
            for outcome, count in tenant.ends.items():
                ends.add_metric([name, outcome], count)
            for reason, count in tenant.refused.items():
                refused.add_metric([name, reason], count)
            tokens.add_metric([name, "prompt"], tenant.prompt_tokens)
            tokens.add_metric([name, "cached"], tenant.cached_tokens)
            tokens.add_metric([name, "output"], tenant.output_tokens)
        return iter((dispatched, ends, refused, tokens))

    def _delays(self) -> HistogramMetricFamily:
        family = HistogramMetricFamily(
            "fairshare_gateway_queue_delay_seconds",
            "From a request's arrival until it is sent to the server.",
            labels=["tenant"],
        )
        bounds = [*map(str, map(float, DELAY_BUCKETS_S)), "+Inf"]
        for name, tenant in self._tally.tenants.items():
            sums = [sum(tenant.delays[: n + 1]) for n in range(len(bounds))]
            family.add_metric([name], list(zip(bounds, sums, strict=True)), tenant.delay_sum_s)
        return family


def _gauge(name: str, says: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"fairshare_gateway_{name}", says, value=value)


def _counter(name: str, says: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"fairshare_gateway_{name}", says, labels=["tenant", *labels])
