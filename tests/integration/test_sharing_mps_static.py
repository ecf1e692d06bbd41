"""Static SM partitions, with the stand-in MPS daemon of a driver that has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.devices.driver import Driver
from fairshare.devices.inventory import virtual_device
from fairshare.errors import PartitionError
from fairshare.events import EventLog
from fairshare.processes.scope import run_scope
from fairshare.records import Mode
from fairshare.sharing.modes import partitioner_for
from fairshare.sharing.mps_control import PARTITION_VARIABLE, PERCENTAGE_VARIABLE, MpsControl
from fairshare.sharing.mps_daemon import mps_daemon
from fairshare.sharing.mps_partitions import parse_partitions, sm_partitions
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import TenantDemand
from fairshare.spec.choices import Partitioning
from fairshare.spec.sharing import MpsSpec
from fairshare.virtual.driver import install
from fairshare.virtual.share import NoDeviceError, find_share
from fairshare.virtual.state import changing_state, read_state
from tests.nvidias_mps import nvidias_env

pytestmark = pytest.mark.usefixtures("own_state_dir")
DEVICE = virtual_device("h200")
TENANTS = [TenantDemand("chat", "qwen3-4b", share=0.75), TenantDemand("batch", "qwen3-4b")]
STATIC = SharingOptions(mps=MpsSpec(partitioning=Partitioning.STATIC))


@pytest.fixture
def driver_env(tmp_path: Path) -> dict[str, str]:
    """A simulated H200 with a driver that has static partitions."""
    env = install(tmp_path / "gpu", "h200")
    with changing_state(tmp_path / "gpu") as state:
        state["gpu"]["driver_version"] = "590.44.01"
    return env


async def test_each_tenant_has_sms_of_its_own(driver_env: dict[str, str]) -> None:
    """Every slot names its partition, has the SMs that it names, and cannot do without."""
    partitioner = partitioner_for(Mode.MPS, DEVICE, Driver(driver_env), STATIC)
    async with run_scope(EventLog()) as scope:
        plan = partitioner.plan(DEVICE, TENANTS)
        assert plan.details == {"mps_partitioning": "static"}
        async with partitioner.apply(plan, scope) as applied:
            fractions = [slot.compute_fraction for slot in applied.slots]
            assert fractions == [12 * 8 / 132, 4 * 8 / 132]
            for slot in applied.slots:
                assert PERCENTAGE_VARIABLE not in slot.env
                share = find_share(slot.env, "h200")
                assert share.connection is not None
                with share.connection:
                    assert share.sm_share == pytest.approx(slot.compute_fraction)
            without = {k: v for k, v in applied.slots[0].env.items() if k != PARTITION_VARIABLE}
            with pytest.raises(NoDeviceError, match="no static SM partition"):
                find_share(without, "h200")


async def test_partitions_are_removed(driver_env: dict[str, str], tmp_path: Path) -> None:
    """Afterwards all chunks are free again, the one that was tried first included."""
    uuid = read_state(tmp_path / "gpu")["gpu"]["uuid"]
    async with (
        run_scope(EventLog()) as scope,
        mps_daemon(DEVICE, scope, driver_env, static=True) as daemon,
    ):
        async with sm_partitions(daemon.control, uuid, [0.5, 0.5]) as partitions:
            assert [(each.chunks, each.sm_count) for each in partitions] == [(8, 64)] * 2
            assert len(await listed(daemon.control)) == 3
        assert await listed(daemon.control) == ["-"]


async def listed(control: MpsControl) -> list[str]:
    """The ids that the daemon lists."""
    return [row.id for row in parse_partitions((await control.ask("lspart")).output)]


@pytest.mark.parametrize("program", ["stand-in", "NVIDIA's"])
async def test_an_mps_without_partitions_is_told(program: str, tmp_path: Path) -> None:
    """A control program that does not know them ends at once; the error names the cure."""
    env = nvidias_env() if program == "NVIDIA's" else install(tmp_path / "gpu", "h200")
    async with run_scope(EventLog()) as scope:
        with pytest.raises(PartitionError, match="does not start with static") as caught:
            async with mps_daemon(DEVICE, scope, env, static=True):
                pytest.fail("it must not come so far")
    assert "--mps-partitioning limits" in str(caught.value)
