"""Metrics agree with a slow, obvious recomputation on any records."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairshare.analysis.arrays import columns
from fairshare.analysis.metrics import tenant_metrics
from fairshare.records import ErrorKind, Phase, RequestRecord

S = 1_000_000_000
WINDOW = (2.0, 8.0)
TENANTS: list[dict[str, Any]] = [
    {"name": "closed", "open_loop": False, "slo": {"ttft_s": 0.5, "e2e_s": 2.0}},
    {"name": "open", "open_loop": True, "slo": {"tpot_s": 0.1}},
    {"name": "free", "open_loop": True, "slo": {}},
]


@st.composite
def records(draw: st.DrawFn) -> RequestRecord:
    """Any record that the load generator could write."""
    intended = draw(st.integers(0, 10 * S))
    sent = intended + draw(st.integers(0, S // 2))
    gaps = draw(st.lists(st.integers(0, S // 2), max_size=5))
    tokens = draw(st.lists(st.integers(1, 4), min_size=len(gaps), max_size=len(gaps)))
    times = [sent + int(total) for total in np.cumsum(gaps)] if gaps else []
    failed = draw(st.booleans())
    phase = Phase.WARMUP if intended < 2 * S else Phase.MEASURE
    counted = draw(st.booleans())
    return RequestRecord(
        id="q",
        tenant=draw(st.sampled_from([t["name"] for t in TENANTS])),
        server="s",
        phase=Phase.DRAIN if intended >= 8 * S else phase,
        intended_ns=intended,
        sent_ns=None if failed and not gaps and draw(st.booleans()) else sent,
        first_token_ns=times[0] if times else None,
        chunk_ns=times,
        chunk_tokens=tokens,
        end_ns=(times[-1] if times else sent) + draw(st.integers(0, S)),
        prompt_tokens=draw(st.none() | st.integers(1, 50)),
        cached_tokens=draw(st.none() | st.integers(0, 1)),
        output_tokens=(sum(tokens) or 3) if counted or not failed else None,
        error=draw(st.sampled_from(list(ErrorKind))) if failed else None,
    )


def _naive(found: list[RequestRecord], tenant: dict[str, Any]) -> dict[str, float | None]:
    """The definitions of docs/metrics.md, one request at a time."""
    own = [r for r in found if r.tenant == tenant["name"]]
    tokens = requests = 0.0
    for record in own:
        times = record.chunk_ns or ([record.end_ns] if record.output_tokens else [])
        counts = record.chunk_tokens or [record.output_tokens or 0]
        tokens += sum(n for t, n in zip(times, counts, strict=False) if 2 * S <= (t or 0) < 8 * S)
        requests += record.ok and 2 * S <= (record.end_ns or 0) < 8 * S
    asked = [r for r in own if r.phase is Phase.MEASURE]
    good = [r for r in asked if r.ok]
    start = {id(r): r.intended_ns if tenant["open_loop"] else (r.sent_ns or 0) for r in own}
    ttft = [(r.first_token_ns - start[id(r)]) / S for r in good if r.first_token_ns is not None]
    e2e = [((r.end_ns or 0) - start[id(r)]) / S for r in good]
    tpot = [
        (r.chunk_ns[-1] - r.chunk_ns[0]) / S / sum(r.chunk_tokens[1:])
        for r in good
        if len(r.chunk_ns) > 1
    ]
    itl = [(b - a) / S for r in good for a, b in zip(r.chunk_ns, r.chunk_ns[1:], strict=False)]
    met = sum(_kept(r, start[id(r)], tenant["slo"]) for r in good)
    values: dict[str, float | None] = {
        "requests": len(asked),
        "completed": len(good),
        "errors": len(asked) - len(good),
        "output_tokens_per_s": tokens / 6,
        "requests_per_s": requests / 6,
        "slo_attainment": met / len(asked) if asked and tenant["slo"] else None,
    }
    for name, sample in (("ttft", ttft), ("e2e", e2e), ("tpot", tpot), ("itl", itl)):
        values[f"{name}_n"] = len(sample)
        values[f"{name}_mean_s"] = sum(sample) / len(sample) if sample else None
        values[f"{name}_p99_s"] = _quantile(sample, 0.99)
        values[f"{name}_p50_s"] = _quantile(sample, 0.5)
    return values


def _kept(record: RequestRecord, start: int, slo: dict[str, float]) -> bool:
    end = record.end_ns or 0
    first = record.first_token_ns if record.first_token_ns is not None else end
    several = len(record.chunk_ns) > 1
    spread = record.chunk_ns[-1] - record.chunk_ns[0] if several else 0
    per_token = spread / sum(record.chunk_tokens[1:]) / S if several else 0.0
    took = {"ttft_s": (first - start) / S, "e2e_s": (end - start) / S, "tpot_s": per_token}
    return all(took[name] <= limit + 1e-12 for name, limit in slo.items())


def _quantile(sample: list[float], share: float) -> float | None:
    if not sample:
        return None
    ordered = sorted(sample)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@settings(max_examples=150, deadline=None)
@given(st.lists(records(), max_size=25))
def test_metrics_equal_a_naive_recomputation(found: list[RequestRecord]) -> None:
    """Columns and vector arithmetic change nothing about the definitions."""
    rows = tenant_metrics(columns(found, [t["name"] for t in TENANTS]), WINDOW, TENANTS)
    for row, tenant in zip(rows, TENANTS, strict=False):
        computed = row.values()
        for name, value in _naive(found, tenant).items():
            if value is None:
                assert computed[name] is None, name
            else:
                assert computed[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
    total = rows[-1]
    assert total.requests == sum(row.requests for row in rows[:-1])
    assert total.output_tokens_per_s == pytest.approx(sum(r.output_tokens_per_s for r in rows[:-1]))
    assert sum(total.errors.values()) == total.requests - total.completed


def _request(**changes: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "id": "q",
        "tenant": "open",
        "server": "s",
        "phase": Phase.MEASURE,
        "intended_ns": 3 * S,
        "sent_ns": 4 * S,
        "first_token_ns": 4 * S + S // 4,
        "chunk_ns": [4 * S + S // 4, 4 * S + S // 2, 5 * S],
        "chunk_tokens": [1, 1, 1],
        "end_ns": 5 * S,
        "output_tokens": 3,
    }
    return RequestRecord(**(values | changes))


def _values(*found: RequestRecord) -> dict[str, Any]:
    rows = tenant_metrics(columns(found, [t["name"] for t in TENANTS]), WINDOW, TENANTS)
    return next(dict(row.values()) for row in rows if row.tenant == found[0].tenant)


def test_an_open_loop_tenant_waits_from_its_schedule() -> None:
    """What a request spent in the client's queue belongs to its latency; both views are kept."""
    values = _values(_request())
    assert (values["ttft_p50_s"], values["e2e_p50_s"]) == (1.25, 2.0)
    assert (values["ttft_send_p50_s"], values["e2e_send_p50_s"]) == (0.25, 1.0)


def test_a_closed_loop_tenant_waits_from_its_sending() -> None:
    """A tenant that waits for its own answers has no schedule to be late against."""
    values = _values(_request(tenant="closed"))
    assert (values["ttft_p50_s"], values["e2e_p50_s"]) == (0.25, 1.0)


def test_chunks_of_several_tokens_do_not_flatter_tpot() -> None:
    """Sixteen chunks of four tokens, 40 ms apart, are 10 ms a token, not 9.5."""
    times = [4 * S + 40_000_000 * number for number in range(16)]
    record = _request(chunk_ns=times, chunk_tokens=[4] * 16, output_tokens=64)
    assert _values(record)["tpot_p50_s"] == pytest.approx(0.010, rel=1e-12)


def test_a_server_that_gives_only_the_total_is_spread_over_its_chunks() -> None:
    """Chunks recorded as one token each add up to the server's own count."""
    times = [4 * S + 40_000_000 * number for number in range(16)]
    record = _request(chunk_ns=times, chunk_tokens=[1] * 16, output_tokens=64)
    values = _values(record)
    assert values["output_tokens_per_s"] == pytest.approx(64 / 6)
    assert values["tpot_p50_s"] == pytest.approx(0.010, rel=1e-12)
    assert values["tokens_per_chunk"] == pytest.approx(4)


def test_failures_count_against_attainment_and_completion() -> None:
    """A failed request stays in both denominators and out of the latencies."""
    failed = _request(error=ErrorKind.TIMEOUT, output_tokens=None)
    values = _values(_request(), failed, failed)
    assert values["completion_rate"] == pytest.approx(1 / 3)
    assert values["ttft_n"] == 1
    met = _request(chunk_ns=[4 * S, 4 * S + S // 10], chunk_tokens=[1, 2])
    assert _values(met, failed, failed)["slo_attainment"] == pytest.approx(1 / 3)


def test_without_limits_there_is_no_attainment() -> None:
    """Nothing promised is not everything kept: the value is absent, not 100 %."""
    values = _values(_request(tenant="free"))
    assert values["slo_attainment"] is None
    assert values["goodput_per_s"] is None
    assert values["completion_rate"] == 1.0


def test_no_requests_at_all_give_absent_values() -> None:
    """A silent tenant has zero rates and no latencies, and nothing divides by zero."""
    rows = tenant_metrics(columns([], ["open"]), WINDOW, [TENANTS[1]])
    values = rows[0].values()
    assert (values["output_tokens_per_s"], values["requests"]) == (0.0, 0)
    assert values["ttft_p99_s"] is None
    assert values["completion_rate"] is None


def _answer(
    tokens: list[int], usage: int, empty: int | None, phase: Phase = Phase.MEASURE
) -> RequestRecord:
    """A success of the first tenant: chunks a tenth of a second apart."""
    times = [3 * S + number * S // 10 for number in range(1, len(tokens) + 1)]
    return RequestRecord(
        *("q", "closed", "s", phase, 3 * S),
        sent_ns=3 * S,
        first_token_ns=times[0] if times else None,
        chunk_ns=times,
        chunk_tokens=tokens,
        end_ns=4 * S,
        output_tokens=usage,
        empty_chunks=empty,
    )


def test_tokens_that_differ_from_usage_and_empty_chunks_are_counted() -> None:
    """Streams are compared with the server's count; whole answers and other phases are not."""
    found = [
        _answer([1, 1], 2, 3),
        _answer([1, 1], 3, 0),
        _answer([], 4, 6),
        _answer([], 4, None),
        _answer([1], 9, 5, Phase.WARMUP),
    ]
    row = tenant_metrics(columns(found, ("closed",)), WINDOW, TENANTS[:1])[0]
    assert (row.token_mismatches, row.empty_chunks) == (2, 9)
    assert row.values()["token_mismatches"] == 2


def test_empty_chunks_of_older_folders_are_absent() -> None:
    """What was not counted is not zero."""
    row = tenant_metrics(columns([_answer([1], 1, None)], ("closed",)), WINDOW, TENANTS[:1])[0]
    assert (row.token_mismatches, row.empty_chunks) == (0, None)


def test_attainment_is_told_from_both_starts_for_every_tenant() -> None:
    """A closed loop whose sends were late kept its limits from the send, not from the schedule."""
    record = _answer([1], 1, 0)
    record.intended_ns -= S
    row = tenant_metrics(columns([record], ("closed",)), WINDOW, TENANTS[:1])[0]
    attained = (row.slo_attainment, row.slo_attainment_send, row.slo_attainment_schedule)
    assert attained == (1.0, 1.0, 0.0)
    assert row.latency["ttft_send"].p50 == pytest.approx(0.1)
    assert row.latency["ttft_schedule"].p50 == pytest.approx(1.1)
    assert row.latency["e2e_schedule"].p50 == pytest.approx(2.0)
