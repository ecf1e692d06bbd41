"""``timeslice``: one server per tenant, each with the whole device while it is its turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fairshare.devices.device import Device
from fairshare.errors import PartitionError
from fairshare.processes.scope import RunScope
from fairshare.records import Mode
from fairshare.sharing.mig_table import smi_name
from fairshare.sharing.plan import PartitionPlan, ServerView, Slot, TenantDemand
from fairshare.sharing.shares import shares_of
from fairshare.sharing.slots import plan_of, tenant_slot
from fairshare.sharing.static import StaticSharing
from fairshare.sharing.timeslice_policy import POLICY_NUMBERS, read_policy, timeslice_policy
from fairshare.spec.launcher import DeviceKind

_EFFECT = {
    DeviceKind.CUDA: "",
    DeviceKind.VIRTUAL: ", whose length the simulation does not depend on",
}


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
        policy = self._options.timeslice.policy
        if policy is None:
            return plan_of(Mode.TIMESLICE, device, slots)
        command = f"nvidia-smi compute-policy -i {smi_name(device)} --set-timeslice"
        return plan_of(
            Mode.TIMESLICE,
            device,
            slots,
            steps=[
                f"{command} {POLICY_NUMBERS[policy]}",
                f"{command} ...   (as it was found, at the end)",
            ],
            notes=[f"the driver's time slices are set to {policy.value}{_EFFECT[device.kind]}"],
            details={"timeslice_policy": policy.value},
        )

    @asynccontextmanager
    async def apply(self, plan: PartitionPlan, scope: RunScope) -> AsyncIterator[PartitionPlan]:
        """Set the time-slice policy if one is asked for; else change nothing.

        Raises:
            PartitionError: servers would not get the whole device, or the policy could not be set
                or put back.
        """
        policy = self._options.timeslice.policy
        async with super().apply(plan, scope) as applied:
            if policy is None:
                yield applied
                return
            async with timeslice_policy(smi_name(plan.device), self._driver.env, policy, scope):
                yield applied

    async def verify(self, slot: Slot, server: ServerView) -> dict[str, Any]:
        """Compare what the running server has with its slot, and the policy with what was asked.

        Raises:
            PartitionError: they differ.
        """
        seen = await super().verify(slot, server)
        policy = self._options.timeslice.policy
        if policy is None:
            return seen
        found = await read_policy(smi_name(self._device), self._driver.env)
        if found is not policy:
            raise PartitionError(
                f"the time-slice policy was set to {policy.value}, and is {found.value}",
                hint="somebody else has changed it: nvidia-smi compute-policy --list",
            )
        return {**seen, "timeslice_policy": found.value}
