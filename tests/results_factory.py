"""Makes result folders that look like those of real runs, from a seed and in no time."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fairshare.records import (
    CellKey,
    CellResult,
    CellStatus,
    ErrorKind,
    Mark,
    Mode,
    Phase,
    Provenance,
    RequestRecord,
)
from fairshare.results import ResultStore, layout

MS = 1_000_000
S = 1000 * MS
LABELS = {Mode.MPS: "mps-cpu", Mode.MIG: "mig-cpu"}
# How much slower a token comes, and how much worse the tail is, when sharing in this mode.
SPEED = {
    Mode.EXCLUSIVE: (1.0, 1.0),
    Mode.LOGICAL: (1.4, 2.0),
    Mode.TIMESLICE: (2.1, 4.0),
    Mode.MPS: (1.6, 1.8),
    Mode.MIG: (1.9, 1.2),
}


@dataclass(frozen=True)
class FakeTenant:
    """A tenant with a closed loop (rate None) or Poisson arrivals."""

    name: str
    prompt_tokens: int = 64
    output_tokens: int = 32
    rate_per_s: float | None = None
    weight: float = 1.0
    slo: dict[str, float] = field(default_factory=dict)
    error_share: float = 0.0
    stream: bool = True

    def as_json(self) -> dict[str, Any]:
        """As ``cell.json`` holds it."""
        return {
            "name": self.name,
            "weight": self.weight,
            "open_loop": self.rate_per_s is not None,
            "slo": self.slo,
        }


TWO_TENANTS = (
    FakeTenant("chat", 64, 32, rate_per_s=6.0, slo={"ttft_s": 0.2, "e2e_s": 2.0}),
    FakeTenant("batch", 512, 128, error_share=0.01),
)


def make_results(
    directory: Path,
    *,
    modes: Sequence[Mode] = tuple(Mode),
    concurrency: Sequence[int | None] = (1, 4, 16),
    repetitions: int = 2,
    tenants: Sequence[FakeTenant] = TWO_TENANTS,
    scenario: str = "two-tenants",
    window_s: float = 20.0,
    seed: int = 1,
) -> ResultStore:
    """A folder with one complete cell per mode, concurrency and repetition (and tenant alone)."""
    matrix = {
        "name": "synthetic",
        "provenance": {"machine": {"cpu": "Imagined CPU"}, "device": {"name": "nothing real"}},
    }
    store = ResultStore.create(directory, matrix)
    for mode in modes:
        groups = [[t] for t in tenants] if mode is Mode.EXCLUSIVE else [list(tenants)]
        for group in groups:
            alone = group[0].name if mode is Mode.EXCLUSIVE else None
            for count in concurrency:
                for repetition in range(1, repetitions + 1):
                    key = CellKey(scenario, mode, count, repetition, tenant=alone)
                    add_cell(store, key, group, window_s=window_s, seed=seed)
    return store


def add_cell(
    store: ResultStore,
    key: CellKey,
    tenants: Sequence[FakeTenant],
    *,
    window_s: float = 20.0,
    seed: int = 1,
    status: CellStatus = CellStatus.OK,
    reason: str | None = None,
    marks: Sequence[Mark] = (),
    notes: Sequence[str] = (),
) -> Path:
    """Add one complete cell with plausible records, ``host.csv`` and a server's ``.cmd``."""
    cell_id = key.cell_id({"seed": seed})
    cell = store.begin_cell(cell_id)
    window = (int(2 * S), int((2 + window_s) * S))
    for number, tenant in enumerate(tenants):
        random = np.random.default_rng([seed, number, key.repetition, key.concurrency or 0])
        for record in _records(tenant, key, window, random):
            cell.append(record)
    _telemetry(cell.dir, key, tenants, window)
    cell.write_config({"key": {"scenario": key.scenario, "mode": key.mode.value}})
    ok = status is CellStatus.OK
    return cell.finish(
        CellResult(
            id=cell_id,
            key=key,
            status=status,
            label=LABELS.get(key.mode, key.mode.value),
            provenance=Provenance.MEASURED_ON_CPU,
            marks=list(marks),
            notes=list(notes),
            reason=reason,
            window_ns=window if ok else None,
            end_ns=window[1] + S if ok else None,
            tenants=[tenant.as_json() for tenant in tenants],
            shares=[{"server": "s0", "verified": True}],
            client={"client_limited": False, "lag_p99_ms": 0.4},
        )
    )


def _records(
    tenant: FakeTenant, key: CellKey, window: tuple[int, int], random: np.random.Generator
) -> Iterator[RequestRecord]:
    slow, tail = SPEED[key.mode]
    in_flight = key.concurrency or 2
    itl = 0.010 * slow * (1 + 0.05 * in_flight)
    number = 0
    for lane in range(1 if tenant.rate_per_s is not None else in_flight):
        now, free = 0.0, 0.0
        while now < window[1] / S:
            if tenant.rate_per_s is None:
                intended = sent = now
            else:
                intended = sent = now + random.exponential(1 / tenant.rate_per_s)
            ttft = 0.02 * slow + 0.00005 * tenant.prompt_tokens * in_flight
            ttft *= 1 + tail * 0.1 * random.exponential()
            number += 1
            record = _record(tenant, f"{tenant.name}-{lane}-{number}", window, intended, sent)
            free = _answer(record, tenant, (sent, ttft, itl), random)
            now = free + 0.001 if tenant.rate_per_s is None else intended
            yield record


def _record(
    tenant: FakeTenant, name: str, window: tuple[int, int], intended: float, sent: float
) -> RequestRecord:
    intended_ns = int(intended * S)
    phase = Phase.WARMUP if intended_ns < window[0] else Phase.MEASURE
    return RequestRecord(
        id=name,
        tenant=tenant.name,
        server="s0",
        phase=Phase.DRAIN if intended_ns >= window[1] else phase,
        intended_ns=intended_ns,
        sent_ns=int(sent * S) + 100_000,
        prompt_tokens=tenant.prompt_tokens,
        cached_tokens=0,
    )


def _answer(
    record: RequestRecord,
    tenant: FakeTenant,
    times: tuple[float, float, float],
    random: np.random.Generator,
) -> float:
    sent, ttft, itl = times
    gaps = itl * random.gamma(20.0, 1 / 20.0, tenant.output_tokens - 1)
    arrivals = sent + ttft + np.concatenate(([0.0], np.cumsum(gaps)))
    if random.random() < tenant.error_share:
        record.error, record.error_text = ErrorKind.DISCONNECT, "the connection broke"
        record.end_ns = int((sent + ttft) * S)
        return float(sent + ttft)
    record.status, record.finish_reason = 200, "length"
    record.output_tokens = tenant.output_tokens
    record.end_ns = int(arrivals[-1] * S) + 200_000
    if tenant.stream:
        record.chunk_ns = [int(t * S) for t in arrivals]
        record.chunk_tokens = [1] * len(arrivals)
        record.first_token_ns = record.chunk_ns[0]
    return float(arrivals[-1])


def _telemetry(
    folder: Path, key: CellKey, tenants: Sequence[FakeTenant], window: tuple[int, int]
) -> None:
    random = np.random.default_rng(3)
    servers = ["s0"] if key.mode is Mode.LOGICAL else [tenant.name for tenant in tenants]
    with (folder / layout.HOST).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("t_s", "server", "cpu_percent", "rss_bytes"))
        for tick in range(int(window[1] / S * 2) + 2):
            for name in (*servers, "(machine)"):
                level = 190 if name == "(machine)" else 170 / len(servers)
                cpu = "" if tick == 0 else round(level + 8 * random.standard_normal(), 2)
                writer.writerow((tick / 2, name, cpu, 1 << 30))
    (folder / layout.SERVERS).mkdir()
    for name in servers:
        slug = name if name.isascii() and name.isalnum() else "hostile"
        (folder / layout.SERVERS / f"{slug}.cmd").write_text(
            f"OMP_NUM_THREADS=1\npython -m vllm --served-model-name {name}\n"
        )
