"""The load generator's account of itself: what was asked, what was done, whose fault."""

from __future__ import annotations

import asyncio
import time

import pytest

from fairshare.load import selfcheck
from fairshare.load.selfcheck import SelfCheck
from fairshare.records import Phase, RequestRecord, TransportKind

MS = 1_000_000


def record(
    intended_ms: int,
    sent_ms: int | None,
    end_ms: int,
    phase: Phase = Phase.MEASURE,
    first_token_ms: int | None = None,
) -> RequestRecord:
    """A record with these times."""
    return RequestRecord(
        "1",
        "a",
        "s0",
        phase,
        intended_ms * MS,
        sent_ns=None if sent_ms is None else sent_ms * MS,
        first_token_ns=None if first_token_ms is None else first_token_ms * MS,
        end_ns=end_ms * MS,
    )


async def test_concurrency_is_weighted_by_time_within_the_window() -> None:
    """Only the part of a request inside the window counts."""
    check = SelfCheck({"a": 2})
    check.begin(100 * MS)
    check.add(record(0, 0, 150), scheduled=False)
    check.add(record(100, 100, 200), scheduled=False)
    check.end(200 * MS)
    check.add(record(150, 150, 900), scheduled=False)
    report = check.report()
    achieved = report["concurrency"]["a"]
    assert (achieved["requested"], achieved["achieved"]) == (2, pytest.approx(2.0))
    assert not any("concurrency" in reason for reason in report["reasons"])


async def test_late_sends_of_a_closed_loop_are_our_fault() -> None:
    """Clients that waited for us a tenth of the time had less than their concurrency."""
    check = SelfCheck({"a": 1})
    check.begin(0)
    check.add(record(0, 10, 100), scheduled=False)
    check.end(100 * MS)
    report = check.report()
    assert report["client_limited"]
    assert any("a had 90% of its concurrency" in reason for reason in report["reasons"])


async def test_late_open_loop_sends_are_measured_and_flagged() -> None:
    """The schedule lag is that of measured requests; above 10 ms at P99 it limits."""
    check = SelfCheck({"a": None})
    check.begin(0)
    for _ in range(98):
        check.add(record(0, 1, 5), scheduled=True)
    check.add(record(0, 30, 35), scheduled=True)
    check.add(record(0, 50, 55), scheduled=True)
    check.add(record(0, 900, 950, Phase.WARMUP), scheduled=True)
    check.end(100 * MS)
    report = check.report()
    assert report["schedule_lag_ms"] == {"p50": 1.0, "p99": 30.0, "max": 50.0}
    assert report["client_limited"]
    assert any("sends were late by 30.0 ms" in reason for reason in report["reasons"])
    assert report["concurrency"]["a"]["requested"] is None


async def test_the_most_in_flight_is_that_of_the_window() -> None:
    """What is still in flight when the window opens counts, what was before it does not."""
    check = SelfCheck({"a": 9})
    for _ in range(4):
        check.launched("a")
    check.landed("a")
    check.begin(100 * MS)
    assert check.report()["concurrency"]["a"]["peak"] is None
    check.launched("a")
    check.landed("a")
    check.launched("a")
    check.end(200 * MS)
    check.launched("a")
    assert check.report()["concurrency"]["a"]["peak"] == 4


async def test_rates_are_of_what_was_due_and_sent_in_the_window() -> None:
    """Requests meant for the window, and those sent in it, per second of it."""
    check = SelfCheck({"a": None, "b": 1})
    check.begin(1000 * MS)
    check.end(1500 * MS)
    for intended, sent in ((990, 1001), (1100, 1100), (1200, 1201), (1499, 1501)):
        check.add(record(intended, sent, sent + 5), scheduled=True)
    rates = check.report()["request_rate_per_s"]
    assert rates["a"] == {"requested": pytest.approx(6), "achieved": pytest.approx(6)}
    assert rates["b"] == {"requested": None, "achieved": 0}


async def test_a_rate_that_was_not_reached_is_our_fault() -> None:
    """Sends that slip out of the window because they are late leave another rate than asked for."""
    check = SelfCheck({"a": None})
    check.begin(0)
    check.end(100 * MS)
    for number in range(10):
        check.add(record(number * 10, number * 20, 500), scheduled=True)
    report = check.report()
    assert report["request_rate_per_s"]["a"] == {"requested": 100, "achieved": 50}
    assert any("a had 50% of its request rate" in reason for reason in report["reasons"])


async def test_one_request_at_the_windows_end_is_no_shortage() -> None:
    """A rate is short by lateness, not by where the window cuts."""
    check = SelfCheck({"a": None})
    check.begin(0)
    check.end(100 * MS)
    check.add(record(99, 101, 200), scheduled=True)
    assert check.report()["reasons"] == []


@pytest.mark.parametrize(
    ("tenants", "transport", "helps"),
    [
        ("ab", TransportKind.STREAM, "--load-processes"),
        ("ab", TransportKind.AIOHTTP, "--transport stream"),
        ("a", TransportKind.STREAM, "two tenants"),
    ],
)
async def test_every_reason_ends_in_what_helps(
    monkeypatch: pytest.MonkeyPatch, tenants: str, transport: TransportKind, helps: str
) -> None:
    """Whoever reads that the client was in the way reads what to change."""
    monkeypatch.setattr("fairshare.load.core_time._now", lambda: (0.0, 0.0))  # it had its core
    check = SelfCheck(dict.fromkeys(tenants), transport)
    check.begin(0)
    check.end(100 * MS)
    for number in range(10):
        check.add(record(number * 10, number * 20, 500), scheduled=True)
    reasons = check.report()["reasons"]
    assert len(reasons) >= 2
    assert all(helps in reason and reason.endswith(")") for reason in reasons)


async def test_tokens_that_differ_from_usage_are_counted() -> None:
    """Counted tokens stand beside the server's own, and so do chunks without a token."""
    check = SelfCheck({"a": 1})
    for counted, usage, phase in (
        ([1, 1, 1], 3, Phase.MEASURE),
        ([1, 2], 4, Phase.MEASURE),
        ([9], 1, Phase.WARMUP),
    ):
        one = record(0, 0, 5, phase)
        one.chunk_tokens, one.output_tokens, one.empty_chunks = counted, usage, 2
        check.add(one, scheduled=False)
    whole = record(0, 0, 5)
    whole.output_tokens = 7
    check.add(whole, scheduled=False)
    assert check.report()["tokens"]["a"] == {
        "counted": 6,
        "usage": 7,
        "differing_requests": 1,
        "empty_chunks": 4,
    }


async def test_blocked_event_loop_is_seen() -> None:
    """A loop that stands still for 200 ms shows that, and is at fault."""
    check = SelfCheck({"a": 1})
    check.begin(0)
    await asyncio.sleep(0.06)
    time.sleep(0.2)  # noqa: ASYNC251  (blocking is what is to be seen)
    await asyncio.sleep(0.06)
    check.end(320 * MS)
    report = check.report()
    assert report["loop_lag_ms"]["max"] >= 100
    assert any("event loop" in reason for reason in report["reasons"])


async def test_one_long_stall_hides_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall of 1 s weighs as much as the 1 s it lasted, not as one sample of many."""
    now = 0.0
    monkeypatch.setattr(selfcheck.time, "monotonic", lambda: now)
    check = SelfCheck({"a": 1})
    check.begin(0)
    for lag_s in (0.0, 1.0, 0.0):
        now += selfcheck.SAMPLE_EVERY_S + lag_s
        check._sample()
    check.end(1150 * MS)
    lag = check.report()["loop_lag_ms"]
    assert lag["max"] == pytest.approx(1000)
    assert lag["p50"] == pytest.approx(450, abs=60)


@pytest.mark.parametrize(
    ("ttft_ms", "lag_s", "limited"),
    [(40, 0.004, False), (40, 0.008, True), (1000, 0.04, False), (1000, 0.15, True)],
)
async def test_lag_counts_by_the_latencies_that_it_would_falsify(
    monkeypatch: pytest.MonkeyPatch, ttft_ms: int, lag_s: float, limited: bool
) -> None:
    """Late by a tenth of the soonest tenant's TTFT is the client's fault, below 5 ms nothing is."""
    now = 0.0
    monkeypatch.setattr(selfcheck.time, "monotonic", lambda: now)
    check = SelfCheck({"a": 1})
    check.begin(0)
    for number in range(20):
        now += selfcheck.SAMPLE_EVERY_S + (lag_s if number == 7 else 0)
        check._sample()
    check.add(record(0, 0, 2000, first_token_ms=ttft_ms), scheduled=False)
    check.add(record(0, 0, 2000, Phase.WARMUP, first_token_ms=1), scheduled=False)
    check.end(1150 * MS)
    report = check.report()
    assert report["client_limited"] is limited
    assert bool(report["reasons"]) is limited


async def test_late_sends_are_judged_by_the_latencies_too() -> None:
    """40 ms late is much of a TTFT of 50 ms and little of one of 1 s."""
    for ttft_ms, limited in ((50, True), (1000, False)):
        check = SelfCheck({"a": None})
        check.begin(0)
        sent = record(0, 40, 2000, first_token_ms=40 + ttft_ms)
        check.add(sent, scheduled=True)
        check.end(1000 * MS)
        assert check.report()["client_limited"] is limited


async def test_nothing_watched_gives_absent_values() -> None:
    """What was not measured is None, not zero."""
    report = SelfCheck({"a": 1}).report()
    assert report["loop_lag_ms"] == {"p50": None, "p99": None, "max": None}
    assert report["cpu_fraction"] is None
    assert report["cpu_wait_fraction"] is None
    assert report["concurrency"]["a"] == {"requested": 1, "achieved": None, "peak": None}
    assert report["request_rate_per_s"]["a"] == {"requested": None, "achieved": None}
    assert report["client_limited"] is False


async def test_request_that_was_never_sent_was_late_to_its_end() -> None:
    """A request cancelled before its first byte waited for us all its life."""
    check = SelfCheck({"a": 1})
    check.begin(0)
    check.add(record(0, None, 50), scheduled=False)
    check.end(50 * MS)
    assert check.report()["client_limited"]


async def test_several_spans_add_up() -> None:
    """Rounds are watched one by one; the time between them is nobody's."""
    check = SelfCheck({"a": 1})
    for start in (0, 500):
        check.begin(start * MS)
        check.add(record(start, start, start + 100), scheduled=False)
        check.end((start + 100) * MS)
    assert check.report()["concurrency"]["a"]["achieved"] == pytest.approx(1.0)
