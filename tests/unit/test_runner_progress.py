"""What is said of a cell while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fairshare.devices.nvml import GpuSample
from fairshare.events import EventLog
from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.runner import progress
from fairshare.runner.progress import CellProgress, LastSample
from fairshare.spec.scenario import Tenant

MS = 1_000_000


class Gpu:
    """A GPU that is read once and then gone."""

    reads = 0

    def sample(self) -> GpuSample | None:
        """One reading."""
        self.reads += 1
        return GpuSample(power_w=250.0)

    def close(self) -> None:
        """Nothing to let go of."""


def tenant(name: str, *, rate: float | None = None) -> Tenant:
    """A closed loop, or with a rate an open one."""
    arrival = {"kind": "closed"} if rate is None else {"kind": "poisson", "rate_per_s": rate}
    tokens = {"kind": "fixed", "tokens": 8}
    prompts = {"kind": "synthetic", "tokens": tokens}
    return Tenant.model_validate(
        {"name": name, "arrival": arrival, "prompts": prompts, "output": tokens}
    )


def record(name: str, ttft_ms: int, *, late_ms: int = 0, failed: bool = False) -> RequestRecord:
    """An answer of 10 tokens whose first came so long after its sending."""
    return RequestRecord(
        id="r", tenant=name, server="s", phase=Phase.MEASURE, intended_ns=0, sent_ns=late_ms * MS,
        first_token_ns=(late_ms + ttft_ms) * MS, end_ns=(late_ms + ttft_ms + 1) * MS,
        output_tokens=10, error=ErrorKind.TIMEOUT if failed else None,
    )  # fmt: skip


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, to be set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def told_of(tenants: list[Tenant], gpu: LastSample | None) -> tuple[CellProgress, list[Any]]:
    """Progress of a cell of these tenants, and the events that it gives rise to."""
    told: list[Mapping[str, Any]] = []
    log = EventLog()
    log.listen(told.append)
    return CellProgress("cell", tenants, log, gpu), told


def test_rates_are_of_the_last_seconds_and_tails_of_the_last_answers(clock: list[float]) -> None:
    """Counts are of the whole cell; a TTFT is from the schedule where there is one."""
    gpu = Gpu()
    last = LastSample(gpu)
    last.sample()
    cell, told = told_of([tenant("chat"), tenant("feed", rate=5)], last)
    for ttft_ms in range(1, 101):
        cell.add(record("chat", ttft_ms))
    cell.add(record("chat", 5, failed=True))
    cell.add(record("feed", 10, late_ms=40))
    clock[0] += 2.0
    cell.pulse({"chat": 4, "feed": 1})
    assert told[0]["event"] == "cell.progress"
    assert told[0]["tenants"]["chat"] == {
        "done": 100, "errors": 1, "in_flight": 4, "requests_per_s": 50.0,
        "output_tokens_per_s": 500.0, "ttft_p50_s": 0.05, "ttft_p99_s": 0.099,
    }  # fmt: skip
    assert told[0]["tenants"]["feed"]["ttft_p50_s"] == 0.05
    assert told[0]["gpu"]["power_w"] == 250.0
    assert gpu.reads == 1  # what was read for gpu.csv is enough
    clock[0] += 2.0
    cell.pulse({"chat": 3, "feed": 0})
    assert told[1]["tenants"]["chat"]["requests_per_s"] == 0.0
    assert told[1]["tenants"]["chat"]["done"] == 100


def test_several_load_processes_speak_with_one_voice(clock: list[float]) -> None:
    """Each tells of its own tenants; an event has all of them, once every two seconds."""
    cell, told = told_of([tenant("a"), tenant("b")], None)
    clock[0] += 2.0
    cell.pulse({"a": 1})
    cell.pulse({"b": 2})
    clock[0] += 2.0
    cell.pulse({"a": 3})
    assert len(told) == 2
    assert [told[1]["tenants"][name]["in_flight"] for name in "ab"] == [3, 2]


def test_a_crowd_is_told_of_as_one(clock: list[float]) -> None:
    """An event stays small however many tenants there are."""
    crowd = [tenant(f"user-{number}") for number in range(100)]
    cell, told = told_of(crowd, None)
    cell.add(record("user-7", 10))
    clock[0] += 2.0
    cell.pulse({each.name: 1 for each in crowd})
    assert list(told[0]["tenants"]) == ["all"]
    assert (told[0]["tenants"]["all"]["in_flight"], told[0]["tenants"]["all"]["done"]) == (100, 1)
