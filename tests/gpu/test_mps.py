"""MPS with real clients: limits from inside, deaths and faults, and daemons of somebody else."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from fairshare.devices.driver import Driver
from fairshare.devices.inventory import detect
from fairshare.devices.nvml import Gpu
from fairshare.errors import PartitionError
from fairshare.events import EventLog
from fairshare.processes.identity import identify
from fairshare.processes.scope import run_scope
from fairshare.sharing.mps import Mps
from fairshare.sharing.mps_clients import find_client, terminate_clients, trouble, until_usable
from fairshare.sharing.mps_control import CONTROL, LOG_VARIABLE, PIPE_VARIABLE, MpsControl
from fairshare.sharing.mps_daemon import MpsDaemon, mps_daemon
from fairshare.sharing.mps_foreign import refuse_foreign_daemon
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import TenantDemand
from fairshare.sharing.probing import probe
from tests.gpu.clients import Client
from tests.workplace import runs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("mps_here", "left_as_found", "own_state_dir"),
]

Start = Callable[..., Client]
# What CUDA says to a client of an MPS server in which another one has faulted, by driver version.
AFTER_A_FAULT = {700, 719, 801, 802, 805, 806, 807, 808, 809, 810, 999}


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for sockets, whose paths may not be long."""
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        yield Path(folder)


@asynccontextmanager
async def running() -> AsyncIterator[MpsDaemon]:
    """A daemon of a run of its own."""
    device, _ = detect("cuda")
    async with run_scope(EventLog()) as scope, mps_daemon(device, scope, Driver().env) as daemon:
        yield daemon


async def test_a_daemon_takes_real_clients_and_ends(client: Start) -> None:
    """A client is in the daemon's list by its pid; afterwards neither daemon nor server is left."""
    async with running() as daemon:
        holding = client("hold", env=daemon.client_env)
        found = await find_client(daemon.control, "a", [holding.pid], [holding.pid])
        assert found["mps_client_pids"] == [holding.pid]
        programs = [psutil.Process(each) for each in (daemon.process.pid, found["mps_server_pid"])]
        assert all(runs(each) for each in programs)
        assert await trouble(daemon.control, {}) is None
        assert holding.end() == {"done": True}
    assert not any(runs(each) for each in programs)


async def test_a_process_that_is_no_client_is_found_out(client: Start) -> None:
    """With a daemon running beside it, a process that does not use it is no client."""
    async with running() as daemon:
        outside = client("hold", env={PIPE_VARIABLE: ""})
        with pytest.raises(PartitionError, match="without MPS and without limits"):
            await find_client(daemon.control, "a", [outside.pid], [outside.pid])
        outside.end()


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.75, 0.25)])
async def test_shares_are_in_force_seen_from_inside(shares: tuple[float, float], gpu: Gpu) -> None:
    """SMs and memory are those planned, and more memory than the cap is refused."""
    device, _ = detect("cuda")
    mps = Mps(device, Driver(), SharingOptions())
    plan = mps.plan(device, [TenantDemand(f"t{i}", "m", share=s) for i, s in enumerate(shares)])
    async with run_scope(EventLog()) as scope, mps.apply(plan, scope) as applied:
        for slot, share in zip(applied.slots, shares, strict=True):
            seen = await probe(device, slot, Driver())
            assert seen["beyond_cap_refused"] is True
            assert seen["free_bytes"] <= share * gpu.memory_bytes


async def test_a_client_that_is_let_go_of_takes_nobody_with_it(client: Start) -> None:
    """One is terminated and killed with a kernel in flight; the other's work is done."""
    async with running() as daemon:
        victim = client("spin", "60", env=daemon.client_env).at_work()
        other = client("spin", "5", env=daemon.client_env).at_work()
        assert await terminate_clients(daemon.control, [victim.pid]) == [victim.pid]
        victim.process.kill()
        victim.process.wait()
        assert other.line() == {"done": True}
        assert await trouble(daemon.control, {}) is None


async def test_a_client_killed_in_flight_is_survived_or_told(client: Start) -> None:
    """Killed outright, which CUDA calls undefined: what it does to another is never silent."""
    async with running() as daemon:
        other = client("hold", env=daemon.client_env)
        victim = client("spin", "60", env=daemon.client_env).at_work()
        victim.process.kill()
        victim.process.wait()
        await told_or_well(daemon, other)
        await until_usable(daemon.control)
        assert client("spin", "0.1", env=daemon.client_env).at_work().line() == {"done": True}


async def test_a_fault_is_told_and_the_daemon_serves_again(client: Start) -> None:
    """A write to nowhere ends in an error for its client; once all are gone, new ones are taken."""
    async with running() as daemon:
        other = client("hold", env=daemon.client_env)
        faulty = client("fault", env=daemon.client_env).at_work()
        assert faulty.line()["code"] in AFTER_A_FAULT
        faulty.process.wait()
        await told_or_well(daemon, other)
        await until_usable(daemon.control)
        assert client("spin", "0.1", env=daemon.client_env).at_work().line() == {"done": True}


async def told_or_well(daemon: MpsDaemon, other: Client) -> None:
    """What happened beside a client has hit it and is found out, or has not; it then ends.

    Newer drivers contain a fault to its client on some GPUs.
    """
    engines = {"other": [each for each in [identify(other.pid)] if each is not None]}
    if other.synchronise() != {"done": True}:
        while await trouble(daemon.control, engines) is None:
            other.synchronise()  # until the daemon says so too
    other.end()


async def test_a_foreign_daemon_is_refused_and_left_alone(
    short_path: Path, gpu: Gpu, client: Start
) -> None:
    """Somebody else's daemon stops us, and it and its client are well afterwards."""
    env = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": gpu.uuid,
        PIPE_VARIABLE: str(short_path),
        LOG_VARIABLE: str(short_path),
    }
    daemon = await asyncio.create_subprocess_exec(CONTROL, "-f", env=env)
    try:
        control = MpsControl(short_path, Driver().env)
        while not await control.answers():
            assert daemon.returncode is None, "the foreign daemon did not start"
        theirs = client("hold", env={PIPE_VARIABLE: str(short_path)})
        with pytest.raises(PartitionError, match="somebody else's MPS"):
            await refuse_foreign_daemon(Driver().env)
        assert [await control.clients(each) for each in await control.servers()] == [[theirs.pid]]
        assert theirs.end() == {"done": True}
    finally:
        daemon.terminate()
        await daemon.wait()
