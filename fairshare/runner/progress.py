"""How the cell under way is doing, said every two seconds as an event."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fairshare.devices.host import HostReader
from fairshare.devices.nvml import GpuSample
from fairshare.devices.telemetry import GpuSampler
from fairshare.events import EventLog
from fairshare.load.pulse import PULSE_S
from fairshare.records import RequestRecord
from fairshare.spec.scenario import Tenant
from fairshare.units import NS_PER_S

LATEST = 256
"""The percentiles are of so many answers: a sort of more would be felt by the requests."""
_MOST_TENANTS = 32  # of more than that only all together are told of
_ALL = "all"


class LastSample:
    """A sampler that remembers what it read last, so that a second look costs nothing."""

    def __init__(self, sampler: GpuSampler) -> None:
        self._sampler = sampler
        self.last: GpuSample | None = None

    def sample(self) -> GpuSample | None:
        """What the GPU says now."""
        self.last = self._sampler.sample()
        return self.last

    def close(self) -> None:
        """Let go of the GPU."""
        self._sampler.close()


@dataclass(slots=True)
class _Account:
    """Since the last event: answers and tokens; since the cell began: the rest."""

    done: int = 0
    errors: int = 0
    answers: int = 0
    tokens: int = 0
    in_flight: int = 0
    ttft_ns: deque[int] = field(default_factory=lambda: deque(maxlen=LATEST))

    def told(self, elapsed_s: float) -> dict[str, Any]:
        """The figures of the event; the count of answers begins anew."""
        ordered = sorted(self.ttft_ns)
        figures = {
            "done": self.done,
            "errors": self.errors,
            "in_flight": self.in_flight,
            "requests_per_s": round(self.answers / elapsed_s, 3),
            "output_tokens_per_s": round(self.tokens / elapsed_s, 3),
            "ttft_p50_s": _rank_s(ordered, 50),
            "ttft_p99_s": _rank_s(ordered, 99),
        }
        self.answers = self.tokens = 0
        return figures


class CellProgress:
    """Told of each record and each pulse; emits ``cell.progress`` with each tenant's figures."""

    def __init__(
        self, cell: str, tenants: Sequence[Tenant], events: EventLog, gpu: LastSample | None
    ) -> None:
        self._cell = cell
        self._events = events
        self._gpu = gpu
        self._host = HostReader({})
        self._open_loop = {t.name for t in tenants if t.arrival.kind != "closed"}
        several = len(tenants) <= _MOST_TENANTS
        self._names = {t.name: t.name if several else _ALL for t in tenants}
        self._accounts = {name: _Account() for name in self._names.values()}
        self._in_flight: dict[str, int] = {}
        self._began_s = self._told_s = time.monotonic()
        self._host.rows()

    def add(self, record: RequestRecord) -> None:
        """One request is over."""
        account = self._accounts[self._names[record.tenant]]
        if not record.ok:
            account.errors += 1
            return
        account.done += 1
        account.answers += 1
        account.tokens += record.output_tokens or 0
        begun_ns = record.intended_ns if record.tenant in self._open_loop else record.sent_ns
        if record.first_token_ns is not None and begun_ns is not None:
            account.ttft_ns.append(record.first_token_ns - begun_ns)

    def pulse(self, in_flight: Mapping[str, int]) -> None:
        """Requests in flight by tenant, of all tenants or of those of one load process."""
        self._in_flight |= in_flight
        now_s = time.monotonic()
        elapsed_s = now_s - self._told_s
        if elapsed_s < PULSE_S / 2:  # another load process has just said so
            return
        self._told_s = now_s
        for account in self._accounts.values():
            account.in_flight = 0
        for tenant, count in self._in_flight.items():
            self._accounts[self._names[tenant]].in_flight += count
        ((_, cpu_percent, _),) = self._host.rows()
        sample = self._gpu.last if self._gpu is not None else None
        self._events.emit(
            "cell.progress",
            cell=self._cell,
            elapsed_s=round(now_s - self._began_s, 3),
            tenants={name: each.told(elapsed_s) for name, each in self._accounts.items()},
            gpu=None if sample is None else asdict(sample),
            cpu_percent=cpu_percent,
        )


def _rank_s(ordered: Sequence[int], percent: int) -> float | None:
    """The nearest rank in seconds; None of nothing."""
    if not ordered:
        return None
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)] / NS_PER_S
