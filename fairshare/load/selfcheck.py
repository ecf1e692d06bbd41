"""Whether the load generator itself was in the way (lag, lateness, CPU time), and what helps."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairshare.load.core_time import CoreTime
from fairshare.load.remedies import remedy
from fairshare.load.tally import TokenTally
from fairshare.records import Phase, RequestRecord, TransportKind
from fairshare.units import NS_PER_S

SAMPLE_EVERY_S = 0.05

# Loop lag delays the stamp of what arrives. It decides no comparison while it is at most a tenth of
# the shortest TTFT of the tenants, median against median and P99 against P99.
MAX_LAG_SHARE = 0.1
# Timers and context switches are exact to about 1 ms: less than five times that is no finding.
LOOP_LAG_FLOOR_MS = 5.0
# Ten times the exactness of timers bunches up arrivals that were to be spread.
SCHEDULE_LAG_FLOOR_MS = 10.0
# With less, another concurrency or rate was measured than the one in the table.
MIN_ACHIEVED_FRACTION = 0.95
# One thread drives everything: at nine tenths of a core it queues work of its own.
MAX_CPU_FRACTION = 0.9


@dataclass(slots=True)
class _Share:
    """One tenant's time, summed over its requests: in flight, and waiting for us to send.

    ``due`` and ``sent`` count the requests that were to be sent, and were, while it was watched;
    ``peak`` is the most in flight then. ``ttft_ns`` are those of its measured answers, from the
    sending.
    """

    busy_ns: int = 0
    late_ns: int = 0
    due: int = 0
    sent: int = 0
    flying: int = 0
    peak: int = 0
    tokens: TokenTally = field(default_factory=TokenTally)
    ttft_ns: array[int] = field(default_factory=lambda: array("q"))


class SelfCheck:
    """Watches the measured window. ``concurrency`` is what was asked for, None in open loop."""

    def __init__(
        self,
        concurrency: Mapping[str, int | None],
        transport: TransportKind = TransportKind.STREAM,
    ) -> None:
        self._concurrency = dict(concurrency)
        self._transport = transport
        self._shares = {tenant: _Share() for tenant in concurrency}
        self._loop_lag_ns = array("q")
        self._schedule_lag_ns = array("q")
        self._span: tuple[int, int | None] | None = None  # while requests are sent, record clock
        self._watched_ns = 0
        self._core = CoreTime()
        self._due_s = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def begin(self, now_ns: int) -> None:
        """Requests are sent and measured from now on (on the clock of the records)."""
        self._span = (now_ns, None)
        for share in self._shares.values():
            share.peak = max(share.peak, share.flying)
        self._core.begin()
        self._arm()

    def end(self, now_ns: int) -> None:
        """No more requests are sent, until the next :meth:`begin`."""
        if self._span is None or self._span[1] is not None:
            return
        self._span = (self._span[0], now_ns)
        self._watched_ns += now_ns - self._span[0]
        self._core.end()
        if self._handle is not None:
            self._handle.cancel()

    def launched(self, tenant: str) -> None:
        """A request is in flight from now on."""
        share = self._shares[tenant]
        share.flying += 1
        if self._span is not None and self._span[1] is None:
            share.peak = max(share.peak, share.flying)

    def landed(self, tenant: str) -> None:
        """A request is in flight no more."""
        self._shares[tenant].flying -= 1

    def in_flight(self) -> dict[str, int]:
        """How many requests of each tenant are in flight now."""
        return {tenant: share.flying for tenant, share in self._shares.items()}

    def add(self, record: RequestRecord, *, scheduled: bool) -> None:
        """Account for a complete record; ``scheduled`` says that it was an open-loop request."""
        share = self._shares[record.tenant]
        share.tokens.add(record)
        share.due += self._watched(record.intended_ns)
        share.sent += self._watched(record.sent_ns)
        sent_ns = record.sent_ns if record.sent_ns is not None else record.end_ns
        if sent_ns is None or record.end_ns is None:
            return
        if scheduled and record.phase is Phase.MEASURE:
            self._schedule_lag_ns.append(sent_ns - record.intended_ns)
        share.busy_ns += self._overlap_ns(sent_ns, record.end_ns)
        share.late_ns += self._overlap_ns(record.intended_ns, sent_ns)
        if record.ok and record.phase is Phase.MEASURE and record.first_token_ns is not None:
            share.ttft_ns.append(record.first_token_ns - sent_ns)

    def report(self) -> dict[str, Any]:
        """The account, as ``cell.json`` keeps it; times in ms."""
        loop_lag, schedule_lag = _summary_ms(self._loop_lag_ns), _summary_ms(self._schedule_lag_ns)
        watched_s = self._watched_ns / NS_PER_S
        cpu_fraction = self._core.used_s / watched_s if watched_s > 0 else None
        wait_fraction = self._core.waited_s / watched_s if watched_s > 0 else None
        reasons = [
            f"the event loop lagged by {loop_lag[name]:.1f} ms at {name.upper()}"
            for name in ("p50", "p99")
            if _exceeds(loop_lag[name], self._limit_ms(name, LOOP_LAG_FLOOR_MS))
        ]
        if _exceeds(schedule_lag["p99"], self._limit_ms("p99", SCHEDULE_LAG_FLOOR_MS)):
            reasons.append(f"sends were late by {schedule_lag['p99']:.1f} ms at P99")
        if _exceeds(cpu_fraction, MAX_CPU_FRACTION):
            reasons.append(f"the client used {cpu_fraction:.0%} of a core")
        reasons += self._short_tenants(late=_exceeds(schedule_lag["p99"], SCHEDULE_LAG_FLOOR_MS))
        helps = remedy(
            tenants=len(self._shares),
            transport=self._transport,
            used_fraction=cpu_fraction or 0.0,
            waited_fraction=wait_fraction or 0.0,
        )
        return {
            "loop_lag_ms": loop_lag,
            "schedule_lag_ms": schedule_lag,
            "concurrency": {tenant: self._achieved(tenant) for tenant in self._shares},
            "request_rate_per_s": {tenant: self._rates(tenant) for tenant in self._shares},
            "tokens": {tenant: share.tokens.report() for tenant, share in self._shares.items()},
            "cpu_fraction": cpu_fraction,
            "cpu_wait_fraction": wait_fraction,
            "client_limited": bool(reasons),
            "reasons": [f"{reason} ({helps})" for reason in reasons],
        }

    def _limit_ms(self, name: str, floor_ms: float) -> float:
        """How late is too late at a percentile, by the tenant whose first tokens came soonest."""
        found = [_summary_ms(share.ttft_ns)[name] for share in self._shares.values()]
        shortest_ms = min((ttft_ms for ttft_ms in found if ttft_ms is not None), default=0.0)
        return max(floor_ms, MAX_LAG_SHARE * shortest_ms)

    def _short_tenants(self, *, late: bool) -> list[str]:
        """Who had less than was asked for, for want of sends; ``late`` says that the schedule was.

        One request at the end of the window is no shortage, so a rate is short only if ``late``.
        """
        reasons = []
        for tenant, share in self._shares.items():
            wanted_ns = share.busy_ns + share.late_ns
            if self._concurrency[tenant] is None:
                if late and share.sent < MIN_ACHIEVED_FRACTION * share.due:
                    reasons.append(
                        f"{tenant} had {share.sent / share.due:.0%} of its request rate: "
                        "sends came late"
                    )
            elif wanted_ns and share.busy_ns < MIN_ACHIEVED_FRACTION * wanted_ns:
                fraction = share.busy_ns / wanted_ns
                reasons.append(f"{tenant} had {fraction:.0%} of its concurrency: sends came late")
        return reasons

    def _achieved(self, tenant: str) -> dict[str, float | None]:
        """Requests in flight: asked for, had on average over time, and at most."""
        share = self._shares[tenant]
        return {
            "requested": self._concurrency[tenant],
            "achieved": share.busy_ns / self._watched_ns if self._watched_ns else None,
            "peak": share.peak if self._watched_ns else None,
        }

    def _rates(self, tenant: str) -> dict[str, float | None]:
        """Requests per second: by the schedule (None without one), and as they were sent."""
        share, watched_s = self._shares[tenant], self._watched_ns / NS_PER_S
        if not watched_s:
            return {"requested": None, "achieved": None}
        closed = self._concurrency[tenant] is not None
        return {
            "requested": None if closed else share.due / watched_s,
            "achieved": share.sent / watched_s,
        }

    def _watched(self, at_ns: int | None) -> bool:
        """Whether that moment is within the span."""
        if self._span is None or at_ns is None:
            return False
        first, last = self._span
        return first <= at_ns and (last is None or at_ns < last)

    def _overlap_ns(self, start_ns: int, end_ns: int) -> int:
        if self._span is None:
            return 0
        first, last = self._span
        return max(0, (end_ns if last is None else min(end_ns, last)) - max(start_ns, first))

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._due_s = time.monotonic() + SAMPLE_EVERY_S
        self._handle = loop.call_later(SAMPLE_EVERY_S, self._sample)

    def _sample(self) -> None:
        lag_s = max(0.0, time.monotonic() - self._due_s)
        # One stall hides the samples that were due in it: they count, else a second without a sign
        # of life would weigh no more than a moment.
        while lag_s >= 0:
            self._loop_lag_ns.append(round(lag_s * NS_PER_S))
            lag_s -= SAMPLE_EVERY_S
        self._arm()


def _exceeds(value: float | None, limit: float) -> bool:
    return value is not None and value > limit


def _summary_ms(values_ns: Sequence[int]) -> dict[str, float | None]:
    """Median, P99 (nearest rank) and maximum in ms; None without values."""
    ordered = sorted(values_ns)
    if not ordered:
        return {"p50": None, "p99": None, "max": None}

    def rank(percent: int) -> float:
        return ordered[max(0, -(-percent * len(ordered) // 100) - 1)] / 1e6

    return {"p50": rank(50), "p99": rank(99), "max": ordered[-1] / 1e6}
