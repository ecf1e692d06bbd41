"""``exclusive``: each tenant alone on the whole device, in turn. The baseline of every slowdown."""

from __future__ import annotations

from collections.abc import Sequence

from fairshare.devices.device import Device
from fairshare.records import Mode
from fairshare.sharing.plan import PartitionPlan, TenantDemand
from fairshare.sharing.slots import plan_of, whole_device_slot
from fairshare.sharing.static import StaticSharing


class Exclusive(StaticSharing):
    """One server on the whole device; tenants of the same model use it one after another."""

    def plan(self, device: Device, tenants: Sequence[TenantDemand]) -> PartitionPlan:
        """One slot named ``all``.

        Raises:
            InfeasibleError: the tenants want different models.
        """
        slot = whole_device_slot(device, tenants, self._env)
        return plan_of(Mode.EXCLUSIVE, device, [slot])
