"""``timeslice``: one server per tenant, each with the whole device while it is its turn."""

from __future__ import annotations

from collections.abc import Sequence

from fairshare.devices.device import Device
from fairshare.records import Mode
from fairshare.sharing.plan import PartitionPlan, TenantDemand
from fairshare.sharing.shares import shares_of
from fairshare.sharing.slots import plan_of, tenant_slot
from fairshare.sharing.static import StaticSharing


class Timeslice(StaticSharing):
    """The driver's (on the CPU: the kernel's) time slices. Memory is divided, not enforced."""

    def plan(self, device: Device, tenants: Sequence[TenantDemand]) -> PartitionPlan:
        """One slot per tenant: all of the compute, its share of the memory.

        Raises:
            InfeasibleError: the shares do not add up.
        """
        slots = [
            tenant_slot(
                tenant,
                compute_fraction=1.0,
                memory_fraction=share,
                cpu_set=device.cores or None,
                threads=len(device.cores) or None,
                env=self._env,
            )
            for tenant, share in zip(tenants, shares_of(tenants), strict=True)
        ]
        return plan_of(Mode.TIMESLICE, device, slots)
