"""``logical``: one server for all tenants; only its scheduler decides who is served."""

from __future__ import annotations

from collections.abc import Sequence

from fairshare.devices.device import Device
from fairshare.records import Mode
from fairshare.sharing.plan import PartitionPlan, TenantDemand
from fairshare.sharing.slots import plan_of, whole_device_slot
from fairshare.sharing.static import StaticSharing


class Logical(StaticSharing):
    """One server on the whole device for all tenants at once."""

    def plan(self, device: Device, tenants: Sequence[TenantDemand]) -> PartitionPlan:
        """One slot named ``all``.

        Raises:
            InfeasibleError: the tenants want different models.
        """
        slot = whole_device_slot(device, tenants, self._env)
        return plan_of(Mode.LOGICAL, device, [slot])
