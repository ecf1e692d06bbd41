"""The time-slice policy is set on request, and put back whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fairshare.devices.driver import Driver
from fairshare.devices.inventory import virtual_device
from fairshare.errors import PartitionError
from fairshare.events import EventLog
from fairshare.processes.scope import run_scope
from fairshare.records import Mode
from fairshare.sharing.modes import partitioner_for
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import TenantDemand
from fairshare.sharing.timeslice_policy import read_policy, set_policy
from fairshare.spec.choices import TimeslicePolicy
from fairshare.spec.sharing import TimesliceSpec
from fairshare.virtual.driver import install

pytestmark = pytest.mark.usefixtures("own_state_dir")
DEVICE = virtual_device("a100-40")
TENANTS = [TenantDemand("chat", "qwen3-0.6b"), TenantDemand("batch", "qwen3-0.6b")]
LONG = SharingOptions(timeslice=TimesliceSpec(policy=TimeslicePolicy.LONG))
CHECKOUT = Path(__file__).parents[2]


def undo(driver_env: dict[str, str], *arguments: str) -> int:
    """Run an undo command as the journal names it; its exit code."""
    argv = [sys.executable, "-m", "fairshare.sharing.undo", *arguments]
    env = {**os.environ, **driver_env, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(argv, env=env, cwd="/", check=False).returncode


async def test_the_policy_is_set_and_put_back(driver_env: dict[str, str]) -> None:
    """While the shares are applied it is what was asked for; afterwards what was found."""
    await set_policy("0", driver_env, TimeslicePolicy.SHORT)
    partitioner = partitioner_for(Mode.TIMESLICE, DEVICE, Driver(driver_env), LONG)
    async with run_scope(EventLog()) as scope:
        plan = partitioner.plan(DEVICE, TENANTS)
        assert plan.details == {"timeslice_policy": "long"}
        async with partitioner.apply(plan, scope):
            assert await read_policy("0", driver_env) is TimeslicePolicy.LONG
        assert await read_policy("0", driver_env) is TimeslicePolicy.SHORT


async def test_a_policy_that_others_set_meanwhile_stays_and_is_told(
    driver_env: dict[str, str],
) -> None:
    """It is not ours to put back, and that the GPU is not as it was found is no success."""
    partitioner = partitioner_for(Mode.TIMESLICE, DEVICE, Driver(driver_env), LONG)
    async with run_scope(EventLog()) as scope:
        with pytest.raises(PartitionError, match="was default, and is medium"):
            async with partitioner.apply(partitioner.plan(DEVICE, TENANTS), scope):
                await set_policy("0", driver_env, TimeslicePolicy.MEDIUM)
    assert await read_policy("0", driver_env) is TimeslicePolicy.MEDIUM


async def test_without_a_wish_nothing_is_asked_or_changed(tmp_path: Path) -> None:
    """The policy belongs to the owner of the GPU."""
    events: list[dict[str, Any]] = []
    log = EventLog()
    log.listen(lambda entry: events.append(dict(entry)))
    driver = Driver(install(tmp_path / "gpu", "a100-40"))
    partitioner = partitioner_for(Mode.TIMESLICE, DEVICE, driver, SharingOptions())
    async with run_scope(log) as scope:
        plan = partitioner.plan(DEVICE, TENANTS)
        assert plan.details == {}
        async with partitioner.apply(plan, scope):
            pass
    assert not any(event["event"].startswith("timeslice.") for event in events)


async def test_a_refused_policy_fails_and_nothing_is_left_to_undo(
    driver_env: dict[str, str],
) -> None:
    """The driver's refusal is an error with its words and the way to more rights."""
    refusing = {**driver_env, "FAIRSHARE_VIRTUAL_FAIL": "timeslice_no_permission"}
    partitioner = partitioner_for(Mode.TIMESLICE, DEVICE, Driver(refusing), LONG)
    async with run_scope(EventLog()) as scope:
        plan = partitioner.plan(DEVICE, TENANTS)
        with pytest.raises(PartitionError, match="set to long, and is default") as caught:
            async with partitioner.apply(plan, scope):
                pytest.fail("it must not come so far")
        state = scope.journal.state()
        assert state is not None
        assert state.pending == {}
    assert "needs root" in str(caught.value)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (TimeslicePolicy.LONG, TimeslicePolicy.SHORT),
        (TimeslicePolicy.MEDIUM, TimeslicePolicy.MEDIUM),
    ],
)
async def test_a_dead_runs_policy_is_undone(
    now: TimeslicePolicy, expected: TimeslicePolicy, driver_env: dict[str, str]
) -> None:
    """Where ours is still in force the earlier one comes back; what others set since stays."""
    await set_policy("0", driver_env, now)
    assert undo(driver_env, "timeslice", "0", "long", "short") == 0
    assert await read_policy("0", driver_env) is expected
