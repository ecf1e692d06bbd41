"""The load over several processes: one barrier, every record home, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from load_bench import closed, scheduled

from fairshare.errors import FairshareError, SpecError
from fairshare.events import EventLog
from fairshare.load.crew import drive_in_processes, spread
from fairshare.load.load import DriveReport, TenantLoad
from fairshare.processes.labelled import labelled
from fairshare.processes.scope import RunScope, run_scope
from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.spec.scenario import Timing
from fairshare.testing.behaviour import Behaviour
from fairshare.testing.fake_server import FakeServer

QUICK = Behaviour(ttft_s=0.005, itl_s=0.001)
TIMING = Timing(warmup_s=0.2, window_s=1.0, drain_s=5)


@pytest.fixture
async def scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunScope]:
    """A run of this test alone."""
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the plans are of this bench
    async with run_scope(EventLog()) as opened:
        yield opened


async def drive(
    loads: list[TenantLoad], scope: RunScope, timing: Timing = TIMING, **given: object
) -> tuple[DriveReport, list[RequestRecord]]:
    """Drive over two processes; the report and the records."""
    records: list[RequestRecord] = []
    stop = given.get("stop") or asyncio.Event()
    assert isinstance(stop, asyncio.Event)
    report = await drive_in_processes(
        loads, timing, records.append, processes=2, scope=scope, stop=stop
    )
    return report, records


async def test_every_record_comes_home_from_one_barrier(scope: RunScope) -> None:
    """Tenants in different processes start together, and their records share one clock."""
    async with FakeServer(QUICK) as server:
        offsets = [0.0, 0.1, 0.4, 0.8]
        loads = [closed(server, 3, "a"), scheduled(server, offsets, "b"), closed(server, 1, "c")]
        report, records = await drive(loads, scope)
        seen = len(server.seen)
    assert len(records) == seen
    assert {record.error for record in records} == {None}
    firsts = {name: min(r.sent_ns or 0 for r in records if r.tenant == name) for name in "abc"}
    assert all(0 <= first < 100e6 for first in firsts.values()), firsts
    assert [round(r.intended_ns / 1e9, 1) for r in records if r.tenant == "b"] == offsets
    assert report.window_ns[0] == 200_000_000
    assert {r.phase for r in records} == {Phase.WARMUP, Phase.MEASURE}
    assert set(report.client["concurrency"]) == set("abc")
    assert report.client["request_rate_per_s"]["b"]["requested"] == 2  # of four, two in the window
    assert report.client["tokens"]["a"]["counted"] > 0
    assert len(report.client["processes"]) == 2
    assert not labelled(scope.run_id)


async def test_a_dead_process_fails_the_cell(scope: RunScope) -> None:
    """Records of its tenants are missing, so nothing may be concluded; the others are ended."""
    async with FakeServer(Behaviour(ttft_s=60)) as server:
        loads = [closed(server, 1, "a"), closed(server, 1, "b")]
        task = asyncio.create_task(drive(loads, scope, Timing(warmup_s=0, window_s=60)))
        await server.when_running(2)
        os.kill(labelled(scope.run_id)[0].pid, signal.SIGKILL)
        with pytest.raises(FairshareError, match=r"load-\d process ended before the cell"):
            await asyncio.wait_for(task, 20)
    assert not labelled(scope.run_id)


async def test_a_stop_reaches_every_process(scope: RunScope) -> None:
    """What is in flight is cancelled, and told as unfinished."""
    stop = asyncio.Event()
    async with FakeServer(Behaviour(ttft_s=60)) as server:
        loads = [closed(server, 2, "a"), closed(server, 1, "b")]
        timing = Timing(warmup_s=0, window_s=60, drain_s=0.3)
        task = asyncio.create_task(drive(loads, scope, timing, stop=stop))
        await server.when_running(3)
        stop.set()
        report, records = await asyncio.wait_for(task, 20)
    assert report.stopped
    assert [record.error for record in records] == [ErrorKind.UNFINISHED] * 3


async def test_every_process_tells_what_its_tenants_have_in_flight(scope: RunScope) -> None:
    """Whoever watches the cell hears of all tenants while it runs, whichever process has them."""
    stop, told = asyncio.Event(), dict[str, int]()

    def on_pulse(in_flight: Mapping[str, int]) -> None:
        told.update(in_flight)
        if len(told) == 2:
            stop.set()

    async with FakeServer(Behaviour(ttft_s=60)) as server:
        loads = [closed(server, 2, "a"), closed(server, 1, "b")]
        timing = Timing(warmup_s=0, window_s=60, drain_s=0.1)
        driving = drive_in_processes(
            loads, timing, lambda _: None, processes=2, scope=scope, stop=stop, on_pulse=on_pulse
        )
        await asyncio.wait_for(driving, 40)
    assert told == {"a": 2, "b": 1}


async def test_windows_that_end_by_requests_are_refused(scope: RunScope) -> None:
    """No process could tell alone when all tenants have theirs."""
    async with FakeServer(QUICK) as server:
        with pytest.raises(SpecError, match="single load process"):
            await drive([closed(server)], scope, Timing(warmup_s=0, window_s=5, requests=3))


async def test_tenants_are_spread_by_weight() -> None:
    """The heaviest go first, each to whoever has least; no process is idle."""
    async with FakeServer(QUICK) as server:
        loads = [closed(server, n, name) for name, n in zip("abcd", (8, 4, 3, 1), strict=True)]
    crews = [[load.tenant.name for load in crew] for crew in spread(loads, 2)]
    assert crews == [["a"], ["b", "c", "d"]]
    assert len(spread(loads, 9)) == 4
