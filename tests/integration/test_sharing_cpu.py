"""CPU shares of real processes: made by affinity, verified from their threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from fairshare.devices.cpu import cpu_device
from fairshare.devices.driver import Driver
from fairshare.errors import PartitionError
from fairshare.events import EventLog
from fairshare.processes.scope import run_scope
from fairshare.processes.spawn import ManagedProcess
from fairshare.records import Mode
from fairshare.sharing.modes import partitioner_for
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import ServerView, Slot, TenantDemand

THREADED = """
import os, sys, threading
os.sched_setaffinity(0, map(int, sys.argv[1].split(",")))
go = threading.Event()
for _ in range(3):
    threading.Thread(target=go.wait, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def server(slot: Slot, cpu_set: tuple[int, ...]) -> Iterator[int]:
    """A process of four threads with the slot's environment on ``cpu_set``; yields its pid."""
    with Popen(
        [sys.executable, "-c", THREADED, ",".join(map(str, cpu_set))],
        env={**os.environ, **slot.env},
        stdin=PIPE,
        stdout=PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid


needs_two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="needs two cores to tell them apart"
)


@needs_two_cores
@pytest.mark.parametrize("mode", [Mode.MPS, Mode.MIG, Mode.TIMESLICE])
async def test_every_thread_is_where_the_plan_puts_it(mode: Mode) -> None:
    """A server on its slot's cores is verified, with all its threads counted."""
    device = cpu_device()
    partitioner = partitioner_for(mode, device, Driver(), SharingOptions())
    plan = partitioner.plan(device, [TenantDemand("a", "m"), TenantDemand("b", "m")])
    for slot in plan.slots:
        assert slot.cpu_set is not None
        with server(slot, slot.cpu_set) as pid:
            seen = await partitioner.verify(slot, ServerView([pid]))
        assert seen["verified"] is True
        assert seen["cpus"] == list(slot.cpu_set)
        assert seen["threads_seen"] == 4
        assert seen["omp_num_threads"] == [slot.threads]


@needs_two_cores
async def test_a_server_on_foreign_cores_is_found_out() -> None:
    """A server that may run on its neighbour's cores does not pass as partitioned."""
    device = cpu_device()
    partitioner = partitioner_for(Mode.MIG, device, Driver(), SharingOptions())
    plan = partitioner.plan(device, [TenantDemand("a", "m"), TenantDemand("b", "m")])
    with (
        server(plan.slots[0], device.cores) as pid,
        pytest.raises(PartitionError, match="may run outside"),
    ):
        await partitioner.verify(plan.slots[0], ServerView([pid]))


@needs_two_cores
async def test_a_server_that_narrows_itself_is_found_out() -> None:
    """A server that binds itself to fewer cores than its share does not pass either."""
    device = cpu_device()
    partitioner = partitioner_for(Mode.LOGICAL, device, Driver(), SharingOptions())
    (slot,) = partitioner.plan(device, [TenantDemand("a", "m")]).slots
    with (
        server(slot, device.cores[:1]) as pid,
        pytest.raises(PartitionError, match="does not use all"),
    ):
        await partitioner.verify(slot, ServerView([pid]))


async def test_managed_process_gets_its_share(tmp_path: Path) -> None:
    """Apply, spawn, verify and stop fit together as a server's life does."""
    device = cpu_device()
    partitioner = partitioner_for(Mode.MIG, device, Driver(), SharingOptions())
    plan = partitioner.plan(device, [TenantDemand("a", "m")])
    events: list[str] = []
    log = EventLog()
    log.listen(lambda entry: events.append(entry["event"]))
    async with run_scope(log) as scope, partitioner.apply(plan, scope) as applied:
        (slot,) = applied.slots
        process = await ManagedProcess.spawn(
            "a",
            [sys.executable, "-c", "import time; time.sleep(60)"],
            env={**os.environ, **slot.env},
            log_path=tmp_path / "a.log",
            scope=scope,
            cpu_set=slot.cpu_set,
        )
        seen = await partitioner.verify(slot, ServerView(process.tree()))
        assert seen["verified"] is True
        await process.stop(grace_s=5)
    assert "partition.applied" in events
