"""``mps`` with static partitions: one server per tenant, each on SMs that nobody else uses.

What one tenant leaves idle is not lent, unlike under thread percentages; memory bandwidth and
caches are not divided either way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.errors import PartitionError
from fairshare.processes.scope import RunScope
from fairshare.sharing.mig_table import smi_name
from fairshare.sharing.mps import Mps, limit_memory
from fairshare.sharing.mps_control import CONTROL, PARTITION_VARIABLE, PERCENTAGE_VARIABLE
from fairshare.sharing.mps_daemon import MpsDaemon, mps_daemon
from fairshare.sharing.mps_partitions import Partition, sm_partitions
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import PartitionPlan, Slot, TenantDemand
from fairshare.sharing.preconditions import require_whole_gpu
from fairshare.sharing.tools import run_tool, tool_env
from fairshare.spec.choices import Partitioning
from fairshare.spec.launcher import DeviceKind

STEPS = (
    f"{CONTROL} -f -S   (private pipe directory)",
    f"echo sm_partition add GPU CHUNKS | {CONTROL}   (for each tenant, read back with lspart)",
    f"echo set_default_device_pinned_mem_limit 0 ... | {CONTROL}   (the largest cap, read back)",
    f"echo quit -t 5 | {CONTROL}   (at the end)",
)
NOTE = (
    "the SMs are divided by static partitions: each tenant's are its own, idle ones are not lent, "
    "and shares are rounded to whole chunks of SMs"
)
_QUERY_S = 15.0


class StaticMps(Mps):
    """MPS clients with a partition of SMs and a memory limit each."""

    def plan(self, device: Device, tenants: Sequence[TenantDemand]) -> PartitionPlan:
        """One slot per tenant with its share of SMs and memory.

        Raises:
            InfeasibleError: the shares do not add up.
        """
        plan = super().plan(device, tenants)
        slots = tuple(replace(slot, env=_without_percentage(slot)) for slot in plan.slots)
        details = {"mps_partitioning": Partitioning.STATIC.value}
        return replace(plan, slots=slots, steps=STEPS, notes=(*plan.notes, NOTE), details=details)

    @asynccontextmanager
    async def apply(self, plan: PartitionPlan, scope: RunScope) -> AsyncIterator[PartitionPlan]:
        """Run the daemon and keep the partitions while the block lasts.

        The slots learn the pipe directory, their partition and the SMs that it really has.

        Raises:
            PartitionError: this MPS has no static partitions, or they could not be made.
        """
        env = self._driver.env
        await require_whole_gpu(plan.device, scope.labelled(env))
        async with mps_daemon(plan.device, scope, env, static=True) as daemon:
            await limit_memory(daemon, plan, scope)
            self._daemon, self._engines = daemon, {}
            shares = [slot.compute_fraction for slot in plan.slots]
            uuid = await _uuid(plan.device, scope.labelled(env))
            async with sm_partitions(daemon.control, uuid, shares) as partitions:
                pairs = zip(plan.slots, partitions, strict=True)
                slots = tuple(_placed(slot, each, plan.device, daemon) for slot, each in pairs)
                scope.events.emit(
                    "mps.partitioned",
                    sm_counts={s.name: p.sm_count for s, p in zip(slots, partitions, strict=True)},
                )
                scope.events.emit("partition.applied", mode=plan.mode.value, label=plan.label)
                yield replace(plan, slots=slots)


def _without_percentage(slot: Slot) -> dict[str, str]:
    return {name: value for name, value in slot.env.items() if name != PERCENTAGE_VARIABLE}


def _placed(slot: Slot, partition: Partition, device: Device, daemon: MpsDaemon) -> Slot:
    if device.sm_count is None:
        raise PartitionError(f"how many SMs {device.name} has is not known")
    return replace(
        slot,
        compute_fraction=partition.sm_count / device.sm_count,
        env={**slot.env, **daemon.client_env, PARTITION_VARIABLE: partition.name},
    )


async def _uuid(device: Device, driver_env: Mapping[str, str]) -> str:
    """What the driver calls the GPU; a simulated one has a UUID as well."""
    if device.kind is DeviceKind.CUDA:
        return device.id
    query = ["--query-gpu=uuid", "--format=csv,noheader", "-i", smi_name(device)]
    answer = await run_tool(["nvidia-smi", *query], tool_env(driver_env), timeout_s=_QUERY_S)
    return answer.output.strip()


def mps_partitioner(device: Device, driver: Driver, options: SharingOptions) -> Mps:
    """Who makes the shares of mode ``mps`` on a GPU, as the user wants them made."""
    static = options.mps.partitioning is Partitioning.STATIC
    return (StaticMps if static else Mps)(device, driver, options)
