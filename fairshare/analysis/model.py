"""What analysis computes, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Self

from fairshare.analysis.arrays import Floats
from fairshare.analysis.decisions import Decisions
from fairshare.analysis.stats import Interval, mean, percentiles
from fairshare.analysis.steadiness import Unsteady
from fairshare.analysis.violations import NOTHING_FOUND, Plausibility
from fairshare.records import CellResult, CellStatus, Mark

LATENCIES = ("ttft", "tpot", "itl", "e2e")
"""Headline latencies: of an open-loop tenant from its schedule, of a closed-loop one from send."""
VIEWS = ("ttft_send", "ttft_schedule", "e2e_send", "e2e_schedule")
"""The same from one fixed starting point, whatever the tenant."""
CURVE = tuple(number / 200 for number in range(201))
STATS = ("mean", "p50", "p95", "p99")
INTERACTION_TIMES = (
    "interaction_e2e",
    "interaction_e2e_send",
    "interaction_wait",
    "interaction_think",
)
"""Of completed interactions: whole, whole from its sending, without pauses, the pauses."""


@dataclass(frozen=True, slots=True)
class Latency:
    """One latency over successes of the measured phase, in seconds; None without values."""

    n: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def of(cls, values: Floats) -> Self:
        """The latency whose values in seconds these are."""
        p50, p95, p99 = percentiles(values, (50, 95, 99))
        return cls(len(values), mean(values), p50, p95, p99)


@dataclass(frozen=True, slots=True)
class Interactions:
    """What became of the interactions begun in the measured window. See docs/metrics.md."""

    begun: int
    completed: int
    failed: int
    broken: int
    """Those of ``failed`` that failed half-way: after at least one answer."""
    cut: int
    unfinished: int
    """Those of ``cut`` of which a call was still running when the drain ended."""
    completion_rate: float | None
    completion_low: float | None
    completion_high: float | None
    """The rate if all that were cut had failed, and if all had been completed."""
    calls_mean: float | None
    calls_sent_mean: float | None
    tokens: int
    wasted_tokens: int
    cut_tokens: int
    wasted_share: float | None
    latency: Mapping[str, Latency]
    intervals: Mapping[str, Interval]
    apps: Mapping[str, Interactions] = field(default_factory=dict)
    """The same by application, where a tenant has several."""

    def values(self) -> dict[str, float | int | None]:
        """Every number by its flat name, as in ``summary.csv``."""
        flat: dict[str, float | int | None] = {
            "interactions": self.begun,
            "interactions_completed": self.completed,
            "interactions_failed": self.failed,
            "interactions_broken": self.broken,
            "interactions_cut": self.cut,
            "interactions_unfinished": self.unfinished,
            "interaction_completion_rate": self.completion_rate,
            "interaction_completion_low": self.completion_low,
            "interaction_completion_high": self.completion_high,
            "interaction_calls_mean": self.calls_mean,
            "interaction_calls_sent_mean": self.calls_sent_mean,
            "interaction_tokens": self.tokens,
            "wasted_tokens": self.wasted_tokens,
            "cut_tokens": self.cut_tokens,
            "wasted_share": self.wasted_share,
        }
        for name in INTERACTION_TIMES:
            flat |= {f"{name}_{stat}_s": getattr(self.latency[name], stat) for stat in STATS}
        return flat


@dataclass(frozen=True, slots=True)
class Work:
    """What was done for a tenant, and what of it in vain. See docs/metrics.md."""

    service: float
    service_even: float
    """The same credited as VTC's evaluation does: evenly from first to last token."""
    service_rate: float
    service_share: float | None
    """Of the service of all tenants."""
    throttled: int
    throttled_rate: float | None
    wasted_work_tokens: int
    wasted_work_share: float | None
    run_tokens_per_s: float | None
    """Prompt and output tokens of all successes over the whole run, as other tools count."""

    def values(self) -> dict[str, float | int | None]:
        """Every number by its flat name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class TenantMetrics:
    """One tenant (or all: ``tenant`` is None) in one cell. docs/metrics.md defines each value."""

    tenant: str | None
    requests: int
    completed: int
    completion_rate: float | None
    errors: Mapping[str, int]
    output_tokens_per_s: float
    total_tokens_per_s: float
    requests_per_s: float
    latency: Mapping[str, Latency]
    slo_attainment: float | None
    slo_attainment_send: float | None
    slo_attainment_schedule: float | None
    goodput_per_s: float | None
    cached_share: float | None
    tokens_per_chunk: float | None
    empty_chunks: int | None
    token_mismatches: int
    intervals: Mapping[str, Interval]
    """Within-run 95 % intervals by metric name."""
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Quantiles of TTFT and E2E at ``CURVE`` probabilities: what their ECDFs are drawn from."""
    interactions: Interactions | None = None
    """None where no request belongs to an interaction."""
    work: Work | None = None

    def values(self) -> dict[str, float | int | None]:
        """Every number by its flat name, as in ``summary.csv``."""
        flat: dict[str, float | int | None] = {
            "requests": self.requests,
            "completed": self.completed,
            "completion_rate": self.completion_rate,
            "errors": sum(self.errors.values()),
            "output_tokens_per_s": self.output_tokens_per_s,
            "total_tokens_per_s": self.total_tokens_per_s,
            "requests_per_s": self.requests_per_s,
            "slo_attainment": self.slo_attainment,
            "slo_attainment_send": self.slo_attainment_send,
            "slo_attainment_schedule": self.slo_attainment_schedule,
            "goodput_per_s": self.goodput_per_s,
            "cached_share": self.cached_share,
            "tokens_per_chunk": self.tokens_per_chunk,
            "empty_chunks": self.empty_chunks,
            "token_mismatches": self.token_mismatches,
        }
        for name in (*LATENCIES, *VIEWS):
            latency = self.latency[name]
            flat |= {f"{name}_{stat}_s": getattr(latency, stat) for stat in STATS}
            flat[f"{name}_n"] = latency.n
        flat |= self.work.values() if self.work else {}
        return flat | (self.interactions.values() if self.interactions else {})


@dataclass(frozen=True, slots=True)
class Series:
    """What happened in each of the windows in which fairness is told; NaN where nothing did."""

    edges_s: Floats
    tenants: tuple[str, ...]
    service: Floats
    """Tenants x windows, not divided by weights."""
    accumulated_difference: Floats
    jain: Floats
    tokens_per_s: Floats
    completion_rate: Floats
    """Of the requests that ended in the window."""
    ttft_mean_s: Floats
    """Tenants x windows: of requests whose first token came in the window."""
    ttft_p99_s: Floats


@dataclass(frozen=True, slots=True)
class Rounds:
    """Tenants x rounds, of requests sent in each round; means are NaN where nobody was answered."""

    tenants: tuple[str, ...]
    answers: Floats
    output_tokens: Floats
    ttft_mean_s: Floats
    e2e_mean_s: Floats


@dataclass(frozen=True, slots=True)
class Fairness:
    """How equally the backlogged tenants of one cell were served, window by window."""

    window_s: float
    windows: int
    """Windows in which at least two tenants were backlogged and any service was given."""
    jain: float | None
    jain_min: float | None
    jain_joint: float | None
    """Jain's index of the service summed over the windows in which all were backlogged."""
    jain_even: float | None
    """The same of service credited evenly from first to last token, as VTC's evaluation does."""
    max_service_difference: float | None
    queued_service_difference: float | None
    """The same while both had requests that waited for their first token."""
    d_max: float | None
    d_mean: float | None
    d_variance: float | None
    """Of D(t), VTC's service difference, over its ticks."""
    accumulated_difference_max: float
    satisfaction: float | None
    satisfaction_min: float | None
    jain_attainment: float | None = None
    worst_ttft_p99_s: float | None = None
    """Of the tenant that waited longest."""
    service_bound: float | None = None
    """2U of VTC's proof, where prompt lengths and capacity are known."""
    idle_while_queued: float | None = None
    """Share of the time in which work waited and there was room for it."""
    interval: Interval | None = None

    def values(self) -> dict[str, float | int | None]:
        """Every number by its flat name."""
        return {
            "jain": self.jain,
            "jain_min": self.jain_min,
            "jain_joint": self.jain_joint,
            "jain_even": self.jain_even,
            "jain_windows": self.windows,
            "jain_window_s": self.window_s,
            "jain_attainment": self.jain_attainment,
            "max_service_difference": self.max_service_difference,
            "queued_service_difference": self.queued_service_difference,
            "service_bound": self.service_bound,
            "accumulated_difference_max": self.accumulated_difference_max,
            "d_max": self.d_max,
            "d_mean": self.d_mean,
            "d_variance": self.d_variance,
            "satisfaction": self.satisfaction,
            "satisfaction_min": self.satisfaction_min,
            "worst_ttft_p99_s": self.worst_ttft_p99_s,
            "idle_while_queued": self.idle_while_queued,
        }


@dataclass(frozen=True, slots=True)
class CellAnalysis:
    """One cell: what was run, and its figures where it was measured to the end."""

    result: CellResult
    marks: tuple[Mark, ...]
    window_s: float | None = None
    tenants: tuple[TenantMetrics, ...] = ()
    total: TenantMetrics | None = None
    fairness: Fairness | None = None
    slowdown: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Tenant to metric name (``e2e_p99_s``) to the ratio to that tenant alone."""
    slowdown_intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    """The same of each ratio's interval within the run, where both latencies have one."""
    series: Series | None = None
    """None of a tenant alone."""
    decisions: Decisions | None = None
    """None where no scheduler wrote down what it decided."""
    rounds: Rounds | None = None
    """None where the window was not cut into rounds."""
    unsteady: Unsteady | None = None
    """What began before a steady state; None where nothing shows."""
    plausibility: Plausibility = NOTHING_FOUND
    """What cannot be of it; nothing of a cell without figures."""

    def rows(self) -> list[TenantMetrics]:
        """The tenants, then the total where there is one."""
        return [*self.tenants, *((self.total,) if self.total else ())]


@dataclass(frozen=True, slots=True)
class Analysis:
    """A whole result folder."""

    name: str
    matrix: Mapping[str, object]
    cells: tuple[CellAnalysis, ...]
    killed: tuple[str, ...]
    """Folder names of cells that a killed run left without a result."""

    @property
    def measured(self) -> list[CellAnalysis]:
        """The cells that have figures."""
        return [cell for cell in self.cells if cell.tenants]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one cell."""

    cell: str
    status: str
    reason: str | None
    provenance: str | None = None
    """Where its figures come from; None without figures."""
    marks: tuple[str, ...] = ()

    @property
    def worked(self) -> bool:
        """Whether the cell was measured to its end."""
        return self.status == CellStatus.OK.value


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure on disk. ``caption`` says what it shows, in one or two sentences."""

    name: str
    title: str
    caption: str
    png: Path
    svg: Path
    pdf: Path | None
    """Where it was asked for: an article needs it, a page does not."""
    provenance: tuple[str, ...]
    marks: tuple[str, ...]
