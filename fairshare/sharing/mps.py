"""``mps`` on a GPU: one server per tenant, at the same time, each with a ceiling of SMs and memory.

A thread percentage is a ceiling and no reservation; memory bandwidth and caches are not divided.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fairshare.devices.constants import MIB
from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.errors import PartitionError
from fairshare.processes.identity import ProcessIdentity, identify
from fairshare.processes.scope import RunScope
from fairshare.records import Mark, Mode
from fairshare.sharing.mps_clients import find_client, trouble, until_usable
from fairshare.sharing.mps_control import CONTROL, MEMORY_VARIABLE, PERCENTAGE_VARIABLE
from fairshare.sharing.mps_daemon import MpsDaemon, mps_daemon
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import (
    Partitioner,
    PartitionPlan,
    ServerView,
    Slot,
    TenantDemand,
)
from fairshare.sharing.preconditions import require_whole_gpu
from fairshare.sharing.shares import shares_of
from fairshare.sharing.slots import UNEVEN, plan_of, tenant_slot
from fairshare.sharing.static import device_env
from fairshare.sharing.verifying import verifier_for
from fairshare.spec.launcher import DeviceKind

STEPS = (
    f"{CONTROL} -f   (private pipe directory)",
    f"echo set_default_active_thread_percentage ... | {CONTROL}   (the largest share, read back)",
    f"echo set_default_device_pinned_mem_limit 0 ... | {CONTROL}   (the largest cap, read back)",
    f"echo quit -t 5 | {CONTROL}   (at the end)",
)


class Mps(Partitioner):
    """MPS clients of a private daemon with thread percentages and memory limits."""

    def __init__(self, device: Device, driver: Driver, options: SharingOptions) -> None:
        self._env = device_env(device, driver.env)
        self._driver = driver
        self._options = options
        self._verify = verifier_for(device, driver)
        self._daemon: MpsDaemon | None = None
        self._engines: dict[str, list[ProcessIdentity]] = {}

    def plan(self, device: Device, tenants: Sequence[TenantDemand]) -> PartitionPlan:
        """One slot per tenant with its share of SMs and memory.

        Raises:
            InfeasibleError: the shares do not add up.
        """
        shares = shares_of(tenants)
        slots = [
            self.client_slot(device, tenant, share, int(share * device.memory_bytes))
            for tenant, share in zip(tenants, shares, strict=True)
        ]
        uneven = device.kind is DeviceKind.VIRTUAL and max(shares) - min(shares) > 1e-6
        marks, notes = ([Mark.UNVALIDATED], [UNEVEN]) if uneven else ([], [])
        return plan_of(Mode.MPS, device, slots, steps=STEPS, notes=notes, marks=marks)

    def client_slot(
        self, device: Device, tenant: TenantDemand, compute_fraction: float, memory_bytes: int
    ) -> Slot:
        """A tenant's slot with its caps; the pipe directory is added when it exists."""
        limit_mib = memory_bytes // MIB
        return tenant_slot(
            tenant,
            compute_fraction=compute_fraction,
            memory_fraction=memory_bytes / device.memory_bytes,
            memory_bytes=limit_mib * MIB,
            env={
                **self._env,
                PERCENTAGE_VARIABLE: f"{100 * compute_fraction:.4g}",
                MEMORY_VARIABLE: f"0={limit_mib}M",
            },
        )

    @asynccontextmanager
    async def apply(self, plan: PartitionPlan, scope: RunScope) -> AsyncIterator[PartitionPlan]:
        """Run the daemon while the block lasts; the slots learn where it is.

        Raises:
            PartitionError: it cannot be started or stopped, does not take the limits, or the GPU
                is not whole.
        """
        await require_whole_gpu(plan.device, scope.labelled(self._driver.env))
        async with mps_daemon(plan.device, scope, self._driver.env) as daemon:
            await _limit(daemon, plan, scope)
            self._daemon, self._engines = daemon, {}
            slots = tuple(
                replace(slot, env={**slot.env, **daemon.client_env}) for slot in plan.slots
            )
            scope.events.emit("partition.applied", mode=plan.mode.value, label=plan.label)
            yield replace(plan, slots=slots)

    async def verify(self, slot: Slot, server: ServerView) -> dict[str, Any]:
        """Compare what the running server has with its slot, and see that it is a client.

        Raises:
            PartitionError: they differ, or the daemon does not know the server.
        """
        seen = await self._verify(slot, server)
        control, computing = self._running().control, seen.get("gpu_pids") or ()
        client = await find_client(control, slot.name, server.pids, computing)
        identities = map(identify, client["mps_client_pids"])
        self._engines[slot.name] = [each for each in identities if each is not None]
        return {**seen, **client}

    async def health(self) -> str | None:
        """Whether the daemon lives, its server has no fault, and every engine is its client."""
        daemon = self._running()
        if daemon.process.returncode is not None:
            return _died(daemon).message
        try:
            return await trouble(daemon.control, self._engines)
        except PartitionError as error:
            return error.message

    async def until_usable(self) -> None:
        """Return when the daemon takes clients again; call it when the earlier ones are gone.

        Raises:
            PartitionError: it does not within half a minute.
        """
        daemon, self._engines = self._running(), {}
        if daemon.process.returncode is not None:
            raise _died(daemon)
        await until_usable(daemon.control)

    def _running(self) -> MpsDaemon:
        if self._daemon is None:
            raise RuntimeError("the shares have not been applied")
        return self._daemon


def _died(daemon: MpsDaemon) -> PartitionError:
    return PartitionError(
        f"the MPS daemon died (exit code {daemon.process.returncode})",
        evidence=daemon.process.log_tail(10),
        hint="dmesg shows whether the kernel killed it (out of memory) or the driver failed (Xid)",
    )


async def _limit(daemon: MpsDaemon, plan: PartitionPlan, scope: RunScope) -> None:
    """Have the daemon hold every client to the largest share.

    Each client has its own, tighter limits in its environment; this is for one that loses them.
    """
    percentage = await daemon.control.limit_percentage(max(s.compute_fraction for s in plan.slots))
    scope.events.emit("mps.limited", percentage=percentage)
    await limit_memory(daemon, plan, scope)


async def limit_memory(daemon: MpsDaemon, plan: PartitionPlan, scope: RunScope) -> None:
    """Have the daemon hold every client to the largest cap.

    Raises:
        PartitionError: it does not take the limit.
    """
    caps = [slot.memory_bytes for slot in plan.slots if slot.memory_bytes is not None]
    if caps:
        memory = await daemon.control.limit_memory(max(caps))
        scope.events.emit("mps.limited", memory_bytes=memory)
