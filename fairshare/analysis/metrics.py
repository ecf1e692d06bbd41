"""What each tenant got in the measured window of one cell. Definitions: docs/metrics.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairshare.analysis.arrays import ERROR_KINDS, Floats, Mask, Requests
from fairshare.analysis.interactions import interactions
from fairshare.analysis.model import CURVE, LATENCIES, VIEWS, Latency, TenantMetrics
from fairshare.analysis.quantiles import percentile_intervals, worth
from fairshare.analysis.service import Flow, moments, output_flow, prompt_flow, untimed_streams
from fairshare.analysis.stats import Interval, series_interval, wilson
from fairshare.analysis.work import with_shares, work

Window = tuple[float, float]
_BATCHES = 20  # batches of the window whose means give the interval of a rate


def start_s(requests: Requests, open_loop: Mask) -> Floats:
    """Where a request's headline latency starts.

    ``open_loop`` is indexed by tenant: the schedule counts where there is one, the sending
    where the tenant waits for its own answers.
    """
    return np.where(open_loop[requests.tenant], requests.intended_s, requests.sent_s)


def tpot_s(requests: Requests) -> Floats:
    """Time per output token after the first chunk.

    (last chunk - first chunk) / tokens after the first chunk, so that chunks of several tokens
    do not make it look smaller. NaN where nothing followed the first chunk. Where nobody timed the
    chunks (imported results) it is (end - first token) / (tokens - 1).
    """
    result = np.full(len(requests), np.nan)
    untimed = untimed_streams(requests) & (requests.output_tokens >= 2)
    result[untimed] = (requests.end_s - requests.first_token_s)[untimed] / (
        requests.output_tokens[untimed] - 1
    )
    several = requests.chunk_counts >= 2
    first = requests.chunk_from[:-1][several]
    last = requests.chunk_from[1:][several] - 1
    tokens = np.concatenate(([0.0], np.cumsum(requests.chunk_tokens)))
    after_first = tokens[last + 1] - tokens[first + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (requests.chunk_s[last] - requests.chunk_s[first]) / after_first
    result[several] = np.where(after_first > 0, spread, np.nan)
    return result


def itl_s(requests: Requests) -> Floats:
    """All gaps between neighbouring chunks of the same request, pooled."""
    gaps = np.diff(requests.chunk_s)
    inner = np.ones(len(gaps), dtype=bool)
    borders = requests.chunk_from[1:-1] - 1
    inner[borders[(borders >= 0) & (borders < len(gaps))]] = False
    return gaps[inner]


def met_slo(requests: Requests, slo: Mapping[str, Any], start: Floats) -> Mask:
    """Which requests were answered within all limits of ``slo`` (seconds), counted from ``start``.

    Failures never are. An answer of one chunk has no time per token and keeps that limit; the
    first token of an answer that was not streamed came with its end.
    """
    met = requests.ok.copy()
    e2e = requests.end_s - start
    ttft = np.where(np.isnan(requests.first_token_s), e2e, requests.first_token_s - start)
    if (limit := slo.get("ttft_s")) is not None:
        met &= ttft <= limit
    if (limit := slo.get("tpot_s")) is not None:
        met &= np.nan_to_num(tpot_s(requests), nan=0.0) <= limit
    if (limit := slo.get("e2e_s")) is not None:
        met &= e2e <= limit
    return met


def tenant_metrics(
    requests: Requests,
    window: Window,
    tenants: Sequence[Mapping[str, Any]],
    run_s: float | None = None,
) -> list[TenantMetrics]:
    """The metrics of each tenant, then of all together.

    ``tenants`` are those of ``cell.json`` (name, open_loop, slo), in the order of
    ``requests.tenants``; ``run_s`` is how long the whole run took.
    """
    open_loop = np.array([bool(tenant.get("open_loop")) for tenant in tenants], dtype=bool)
    slos = [tenant.get("slo") or {} for tenant in tenants]
    rows = [
        _metrics(name, requests.of_tenant(name), window, open_loop, slos, run_s=run_s)
        for name in requests.tenants
    ]
    return with_shares([*rows, _metrics(None, requests, window, open_loop, slos, run_s=run_s)])


def _metrics(
    name: str | None,
    requests: Requests,
    window: Window,
    open_loop: Mask,
    slos: Sequence[Mapping[str, Any]],
    *,
    run_s: float | None,
) -> TenantMetrics:
    length = window[1] - window[0]
    ended = requests.end_s[requests.ok]
    flows = {
        "output": output_flow(requests),
        "prompt": prompt_flow(requests),
        "ended": moments(ended, np.ones_like(ended), requests.tenant[requests.ok]),
    }
    rates = {
        what: float(flow.between(np.array(window))[0]) / length for what, flow in flows.items()
    }
    measured = requests.select(requests.measured)
    successes = measured.select(measured.ok)
    slo = _Slo.of(measured, open_loop, slos)
    samples = latencies(successes, open_loop)
    chunks = len(successes.chunk_s)
    chained = interactions(requests)
    return TenantMetrics(
        tenant=name,
        requests=len(measured),
        completed=len(successes),
        completion_rate=_share(len(successes), len(measured)),
        errors=_errors(measured),
        output_tokens_per_s=rates["output"],
        total_tokens_per_s=rates["output"] + rates["prompt"],
        requests_per_s=rates["ended"],
        latency={kind: Latency.of(values) for kind, values in samples.items()},
        slo_attainment=_share(slo.met, slo.asked),
        slo_attainment_send=_share(slo.met_from_send, slo.asked),
        slo_attainment_schedule=_share(slo.met_from_schedule, slo.asked),
        goodput_per_s=slo.met / length if slo.configured else None,
        cached_share=_cached_share(successes),
        tokens_per_chunk=float(successes.chunk_tokens.sum()) / chunks if chunks else None,
        empty_chunks=_empty_chunks(successes),
        token_mismatches=_token_mismatches(successes),
        intervals=_intervals(samples, flows, window, slo)
        | dict(chained.intervals if chained else {}),
        curves={kind: _curve(samples[kind]) for kind in ("ttft", "e2e") if len(samples[kind])},
        interactions=chained,
        work=work(requests, window, run_s, chained),
    )


def _curve(values: Floats) -> tuple[float, ...]:
    return tuple(np.quantile(values, CURVE, method="inverted_cdf").tolist())


@dataclass(frozen=True, slots=True)
class _Slo:
    """Requests of tenants that were promised something, and how many got it."""

    configured: bool
    asked: int = 0
    met: int = 0
    met_from_send: int = 0
    met_from_schedule: int = 0
    independent: float = 0.0
    """How many independent requests they are worth."""

    @classmethod
    def of(cls, measured: Requests, open_loop: Mask, slos: Sequence[Mapping[str, Any]]) -> _Slo:
        headline = start_s(measured, open_loop)
        promised = [number for number in np.unique(measured.tenant) if slos[number]]
        found = cls(configured=bool(promised))
        for number in promised:
            mask = measured.tenant == number
            own, slo = measured.select(mask), slos[number]
            met = met_slo(own, slo, headline[mask])
            found = cls(
                configured=True,
                asked=found.asked + len(own),
                met=found.met + int(met.sum()),
                met_from_send=found.met_from_send + int(met_slo(own, slo, own.sent_s).sum()),
                met_from_schedule=found.met_from_schedule
                + int(met_slo(own, slo, own.intended_s).sum()),
                independent=found.independent + worth(met)[1],
            )
        return found


def latencies(successes: Requests, open_loop: Mask) -> dict[str, Floats]:
    """Values of each latency in seconds, in the order of the records, absent ones left out."""
    headline = start_s(successes, open_loop)
    found = {
        "ttft": successes.first_token_s - headline,
        "tpot": tpot_s(successes),
        "itl": itl_s(successes),
        "e2e": successes.end_s - headline,
    }
    for view, start in (("send", successes.sent_s), ("schedule", successes.intended_s)):
        found[f"ttft_{view}"] = successes.first_token_s - start
        found[f"e2e_{view}"] = successes.end_s - start
    return {name: found[name][~np.isnan(found[name])] for name in (*LATENCIES, *VIEWS)}


def _intervals(
    samples: Mapping[str, Floats],
    flows: Mapping[str, Flow],
    window: Window,
    slo: _Slo,
) -> dict[str, Interval]:
    found: dict[str, Interval | None] = {}
    for name in ("ttft", "tpot", "e2e"):
        p50, p99 = percentile_intervals(samples[name], (50, 99))
        found |= {f"{name}_p50_s": p50, f"{name}_p99_s": p99}
    # Rates of equal parts of the window: values of the same mean, following each other.
    edges = np.linspace(*window, _BATCHES + 1)
    rates = {
        name: flow.between(edges) * _BATCHES / (window[1] - window[0])
        for name, flow in flows.items()
    }
    found["output_tokens_per_s"] = series_interval(rates["output"])
    found["total_tokens_per_s"] = series_interval(rates["output"] + rates["prompt"])
    found["requests_per_s"] = series_interval(rates["ended"])
    # Requests that met the same queue kept their limits together, or missed them together.
    part = slo.independent / slo.asked if slo.asked else 1.0
    found["slo_attainment"] = wilson(slo.met * part, slo.asked * part)
    return {name: interval for name, interval in found.items() if interval is not None}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _errors(measured: Requests) -> dict[str, int]:
    counts = np.bincount(measured.error[~measured.ok], minlength=len(ERROR_KINDS))
    return {kind.value: int(n) for kind, n in zip(ERROR_KINDS, counts, strict=True) if n}


def _empty_chunks(successes: Requests) -> int | None:
    """Chunks that carried no token; None where they were not counted."""
    known = ~np.isnan(successes.empty_chunks)
    return int(successes.empty_chunks[known].sum()) if known.any() else None


def _token_mismatches(successes: Requests) -> int:
    """Streams whose tokens, counted as they arrived, are not as many as the server says."""
    streamed = (successes.chunk_counts > 0) | ~np.isnan(successes.empty_chunks)
    return int((streamed & (successes.counted_tokens != successes.output_tokens)).sum())


def _cached_share(successes: Requests) -> float | None:
    known = ~np.isnan(successes.cached_tokens) & ~np.isnan(successes.prompt_tokens)
    total = float(successes.prompt_tokens[known].sum())
    return float(successes.cached_tokens[known].sum()) / total if total else None
