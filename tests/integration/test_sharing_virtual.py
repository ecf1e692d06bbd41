"""GPU modes on the simulated GPU: the real partitioning code against stand-in driver programs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fairshare.devices.constants import spec_of_product
from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.devices.inventory import virtual_device
from fairshare.errors import PartitionError
from fairshare.events import EventLog
from fairshare.processes.scope import RunScope, run_scope
from fairshare.processes.spawn import ManagedProcess
from fairshare.records import Mode
from fairshare.sharing.modes import partitioner_for
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import Partitioner, PartitionPlan, ServerView, Slot, TenantDemand
from fairshare.spec.launcher import DeviceKind

DEVICE = virtual_device("a100-40")
TENANTS = [TenantDemand("chat", "qwen3-0.6b"), TenantDemand("batch", "qwen3-0.6b")]
FAIL = "FAIRSHARE_VIRTUAL_FAIL"
CHECKOUT = Path(__file__).parents[2]


class Run:
    """A run scope and the names of its events."""

    def __init__(self, scope: RunScope, events: list[dict[str, Any]]) -> None:
        self.scope = scope
        self.events = events

    @property
    def names(self) -> list[str]:
        """Event names in order."""
        return [event["event"] for event in self.events]


@asynccontextmanager
async def running(events: list[dict[str, Any]]) -> AsyncIterator[Run]:
    """A run scope that notes its events."""
    log = EventLog()
    log.listen(lambda entry: events.append(dict(entry)))
    async with run_scope(log) as scope:
        yield Run(scope, events)


def gpu_state(tmp_path: Path) -> dict[str, Any]:
    """What the simulated GPU remembers."""
    state: dict[str, Any] = json.loads((tmp_path / "gpu/state.json").read_text())
    return state


def is_pristine(tmp_path: Path) -> bool:
    """Whether the simulated GPU is as a fresh one."""
    state = gpu_state(tmp_path)
    off = {"current": "Disabled", "pending": "Disabled"}
    return state["mig_mode"] == off and state["instances"] == []


def is_there(folder: Path) -> bool:
    """Whether a folder exists."""
    return folder.is_dir()


def list_of(folder: Path) -> list[Path]:
    """What a folder holds."""
    return list(folder.iterdir())


def smi(driver_env: dict[str, str], *arguments: str) -> str:
    """Run the stand-in nvidia-smi."""
    done = subprocess.run(
        ["nvidia-smi", *arguments],
        env=os.environ | driver_env,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


async def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Wait for something another process does; fails loudly when it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def started(slot: Slot, scope: RunScope, tmp_path: Path) -> ManagedProcess:
    """A virtual server with the slot's environment that has reported its share."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = ["-m", "fairshare.virtual.server", "--model", slot.model, "--port", str(port)]
    caps = ["--max-model-len", "2048", "--gpu-memory-utilization", f"{slot.memory_fraction / 2:g}"]
    server = await ManagedProcess.spawn(
        slot.name,
        [sys.executable, *argv, *caps],
        env={**os.environ, **slot.env, "PYTHONPATH": str(CHECKOUT)},
        log_path=tmp_path / f"{slot.name}.log",
        scope=scope,
    )
    report = tmp_path / "gpu/servers" / f"{server.pid}.json"
    await until(lambda: report.exists() or server.returncode is not None)
    assert server.returncode is None, server.log_tail()
    return server


async def verified(
    partitioner: Partitioner, plan: PartitionPlan, run: Run, tmp_path: Path
) -> list[dict[str, Any]]:
    """What verification says of a server in each slot."""
    seen = []
    for slot in plan.slots:
        server = await started(slot, run.scope, tmp_path)
        seen.append(await partitioner.verify(slot, ServerView(server.tree())))
        await server.stop(grace_s=5)
    return seen


@pytest.mark.parametrize("mode", list(Mode))
async def test_every_mode_gives_the_share_it_planned(
    mode: Mode, tmp_path: Path, driver_env: dict[str, str]
) -> None:
    """Servers on the simulated GPU report exactly the planned share, and nothing stays behind."""
    partitioner = partitioner_for(mode, DEVICE, Driver(driver_env), SharingOptions())
    plan = partitioner.plan(DEVICE, TENANTS)
    events: list[dict[str, Any]] = []
    async with running(events) as run, partitioner.apply(plan, run.scope) as applied:
        for seen, slot in zip(
            await verified(partitioner, applied, run, tmp_path), applied.slots, strict=True
        ):
            assert seen["verified"] is True
            assert seen["compute_fraction"] == pytest.approx(slot.compute_fraction, abs=0.005)
    assert is_pristine(tmp_path)
    assert "run.undone" not in [event["event"] for event in events]
    assert events[-1] == events[-1] | {"event": "run.closed", "complete": True}


async def test_mps_daemon_is_private_and_gone_afterwards(
    tmp_path: Path, driver_env: dict[str, str]
) -> None:
    """Each slot learns the daemon's pipe directory; daemon and directory end with the block."""
    partitioner = partitioner_for(Mode.MPS, DEVICE, Driver(driver_env), SharingOptions())
    events: list[dict[str, Any]] = []
    async with running(events) as run:
        plan = partitioner.plan(DEVICE, TENANTS)
        async with partitioner.apply(plan, run.scope) as applied:
            pipes = {slot.env["CUDA_MPS_PIPE_DIRECTORY"] for slot in applied.slots}
            (pipe,) = map(Path, pipes)
            assert pipe.stat().st_mode & 0o777 == 0o700
            (ready,) = [event for event in events if event["event"] == "mps.ready"]
            os.kill(ready["pid"], 0)
        with pytest.raises(ProcessLookupError):
            os.kill(ready["pid"], 0)
    assert not pipe.exists()


async def test_a_server_that_bypasses_mps_is_found_out(
    tmp_path: Path, driver_env: dict[str, str]
) -> None:
    """A client with a wrong pipe directory runs without limits, silently: not for us."""
    partitioner = partitioner_for(Mode.MPS, DEVICE, Driver(driver_env), SharingOptions())
    async with running([]) as run:
        plan = partitioner.plan(DEVICE, TENANTS)
        async with partitioner.apply(plan, run.scope) as applied:
            slot = applied.slots[0]
            astray = {**slot.env, "CUDA_MPS_PIPE_DIRECTORY": str(tmp_path / "elsewhere")}
            lost = Slot(**{**_fields(slot), "env": astray})
            server = await started(lost, run.scope, tmp_path)
            with pytest.raises(PartitionError) as caught:
                await partitioner.verify(slot, ServerView(server.tree()))
    assert "compute_fraction: planned 0.5, has 1.0" in caught.value.evidence


def _fields(slot: Slot) -> dict[str, Any]:
    return {name: getattr(slot, name) for name in Slot.__dataclass_fields__}


async def test_a_daemon_that_does_not_start_is_reported(driver_env: dict[str, str]) -> None:
    """The real daemon may end without a word; the error says that it did."""
    partitioner = partitioner_for(
        Mode.MPS, DEVICE, Driver(driver_env | {FAIL: "mps_no_start"}), SharingOptions()
    )
    async with running([]) as run:
        plan = partitioner.plan(DEVICE, TENANTS)
        with pytest.raises(PartitionError, match=r"ended at once \(exit code 1\)"):
            async with partitioner.apply(plan, run.scope):
                pytest.fail("it must not come so far")


async def test_a_daemon_that_dies_on_the_way_is_reported(driver_env: dict[str, str]) -> None:
    """Without its daemon, MPS is silently off: the cell cannot count."""
    partitioner = partitioner_for(Mode.MPS, DEVICE, Driver(driver_env), SharingOptions())
    events: list[dict[str, Any]] = []
    async with running(events) as run:
        plan = partitioner.plan(DEVICE, TENANTS)
        async with partitioner.apply(plan, run.scope):
            assert await partitioner.health() is None
            (ready,) = [event for event in events if event["event"] == "mps.ready"]
            os.kill(ready["pid"], signal.SIGKILL)
            await until(lambda: "process.exited" in run.names)
            assert await partitioner.health() == "the MPS daemon died (exit code -9)"
            with pytest.raises(PartitionError, match="the MPS daemon died"):
                await partitioner.until_usable()


def as_if_real(tmp_path: Path) -> Device:
    """The simulated GPU, described as the inventory would describe a real one."""
    gpu = gpu_state(tmp_path)["gpu"]
    spec = spec_of_product(gpu["name"])
    assert spec is not None
    return Device(
        DeviceKind.CUDA, gpu["uuid"], gpu["name"], spec.memory_bytes, index=0, mig_capable=True
    )


@pytest.mark.parametrize("mode", [Mode.EXCLUSIVE, Mode.TIMESLICE, Mode.MPS])
async def test_a_real_gpu_in_mig_mode_is_refused_by_the_other_modes(
    mode: Mode, tmp_path: Path, driver_env: dict[str, str]
) -> None:
    """CUDA would show such a server an instance or nothing at all: say so before it starts."""
    smi(driver_env, "-i", "0", "-mig", "1")
    device = as_if_real(tmp_path)
    partitioner = partitioner_for(mode, device, Driver(driver_env), SharingOptions())
    async with running([]) as run:
        plan = partitioner.plan(device, TENANTS)
        with pytest.raises(PartitionError, match="in MIG mode"):
            async with partitioner.apply(plan, run.scope):
                pytest.fail("it must not come so far")


KILLED = """
import asyncio, sys
from fairshare.devices.driver import Driver
from fairshare.devices.inventory import virtual_device
from fairshare.events import EventLog
from fairshare.processes.scope import run_scope
from fairshare.records import Mode
from fairshare.sharing.modes import partitioner_for
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import TenantDemand
from fairshare.sharing.static import STATE_VARIABLE
import os
env = {"PATH": os.environ["PATH"], STATE_VARIABLE: os.environ[STATE_VARIABLE]}
async def main():
    device = virtual_device("a100-40")
    partitioner = partitioner_for(Mode(sys.argv[1]), device, Driver(env), SharingOptions())
    plan = partitioner.plan(device, [TenantDemand("chat", "m"), TenantDemand("batch", "m")])
    async with run_scope(EventLog()) as scope, partitioner.apply(plan, scope):
        print(scope.private_dir, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""

pytestmark = pytest.mark.usefixtures("own_state_dir")


@pytest.mark.parametrize("mode", [Mode.MIG, Mode.MPS])
async def test_a_killed_run_is_undone(
    mode: Mode, tmp_path: Path, driver_env: dict[str, str]
) -> None:
    """After SIGKILL the reaper puts the GPU back, ends the daemon and removes the journal."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        KILLED,
        mode.value,
        env={**os.environ, **driver_env, "PYTHONPATH": str(CHECKOUT)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    private_dir = Path((await process.stdout.readline()).decode().strip())
    assert is_there(private_dir)
    process.kill()
    await process.wait()
    await until(lambda: not list_of(tmp_path / "state/runs"))
    assert is_pristine(tmp_path)
    assert not is_there(private_dir)
