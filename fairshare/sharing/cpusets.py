"""The CPU's analogues of MPS and MIG: capped thread counts on shared cores, and disjoint cores.

They are shown as ``mps-cpu`` and ``mig-cpu``: real servers and real measurements, of another
device than the modes were made for.
"""

from __future__ import annotations

from collections.abc import Sequence

from fairshare.devices.device import Device
from fairshare.errors import InfeasibleError
from fairshare.records import Mode
from fairshare.sharing.plan import PartitionPlan, TenantDemand
from fairshare.sharing.shares import apportion, shares_of
from fairshare.sharing.slots import plan_of, tenant_slot
from fairshare.sharing.static import StaticSharing


class CpuMps(StaticSharing):
    """One server per tenant on all cores, with as many compute threads as its share of them."""

    def plan(self, device: Device, tenants: Sequence[TenantDemand]) -> PartitionPlan:
        """One slot per tenant; a share below one core still gets one thread.

        Raises:
            InfeasibleError: the shares do not add up.
        """
        slots = [
            tenant_slot(
                tenant,
                compute_fraction=share,
                memory_fraction=share,
                cpu_set=device.cores,
                threads=max(1, round(share * len(device.cores))),
            )
            for tenant, share in zip(tenants, shares_of(tenants), strict=True)
        ]
        note = "on the CPU, MPS is a cap on each server's compute threads; cores are shared"
        return plan_of(Mode.MPS, device, slots, label="mps-cpu", notes=[note])


class CpuMig(StaticSharing):
    """One server per tenant on cores of its own."""

    def plan(self, device: Device, tenants: Sequence[TenantDemand]) -> PartitionPlan:
        """One slot per tenant: disjoint cores by share, at least one each.

        Raises:
            InfeasibleError: fewer cores than tenants, or the shares do not add up.
        """
        shares = shares_of(tenants)
        cores = device.cores
        if len(cores) < len(tenants):
            raise InfeasibleError(
                f"{len(tenants)} tenants need a core each, and this machine lets us use "
                f"{len(cores)}"
            )
        slots, start = [], 0
        counts = apportion(shares, len(cores))
        for tenant, share, count in zip(tenants, shares, counts, strict=True):
            own = cores[start : start + count]
            start += count
            slots.append(
                tenant_slot(
                    tenant,
                    compute_fraction=count / len(cores),
                    memory_fraction=share,
                    cpu_set=own,
                    threads=count,
                )
            )
        note = (
            "on the CPU, MIG is a set of cores per server; memory bandwidth and the shared cache "
            "are not divided"
        )
        return plan_of(Mode.MIG, device, slots, label="mig-cpu", notes=[note])
