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
from fairshare.processes.scope import RunScope
from fairshare.records import Mark, Mode
from fairshare.sharing.mps_control import (
    CONTROL,
    MEMORY_VARIABLE,
    PERCENTAGE_VARIABLE,
    mps_daemon,
)
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import PartitionPlan, ServerView, Slot, TenantDemand
from fairshare.sharing.preconditions import require_whole_gpu
from fairshare.sharing.shares import shares_of
from fairshare.sharing.slots import plan_of, tenant_slot
from fairshare.sharing.static import device_env
from fairshare.sharing.verifying import verifier_for
from fairshare.spec.launcher import DeviceKind

STEPS = (f"{CONTROL} -f   (private pipe directory)", f"echo quit -t 5 | {CONTROL}   (at the end)")


class Mps:
    """MPS clients of a private daemon with thread percentages and memory limits."""

    def __init__(self, device: Device, driver: Driver, options: SharingOptions) -> None:
        self._env = device_env(device, driver.env)
        self._driver = driver
        self._options = options
        self._verify = verifier_for(device, driver)

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
        # No published measurement supports the simulator for unequal shares.
        uneven = device.kind is DeviceKind.VIRTUAL and max(shares) - min(shares) > 1e-6
        marks = [Mark.UNVALIDATED] if uneven else []
        return plan_of(Mode.MPS, device, slots, steps=STEPS, marks=marks)

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
            PartitionError: it cannot be started or stopped, or the GPU is not whole.
        """
        await require_whole_gpu(plan.device, self._driver.env)
        async with mps_daemon(plan.device, scope, self._driver.env) as daemon:
            slots = tuple(
                replace(slot, env={**slot.env, **daemon.client_env}) for slot in plan.slots
            )
            scope.events.emit("partition.applied", mode=plan.mode.value, label=plan.label)
            yield replace(plan, slots=slots)

    async def verify(self, slot: Slot, server: ServerView) -> dict[str, Any]:
        """Compare what the running server has with its slot.

        Raises:
            PartitionError: they differ.
        """
        return await self._verify(slot, server)
