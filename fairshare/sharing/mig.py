"""``mig``: one server per tenant on a GPU instance of its own, isolated by the hardware."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fairshare.devices.constants import GpuSpec, MigProfile, spec_of_product
from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.errors import InfeasibleError, PartitionError
from fairshare.processes.scope import RunScope
from fairshare.records import Mode
from fairshare.sharing.mig_layout import choose_profiles, creation_order
from fairshare.sharing.mig_session import MigSession
from fairshare.sharing.mig_state import ENABLED
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import (
    Partitioner,
    PartitionPlan,
    ServerView,
    Slot,
    TenantDemand,
)
from fairshare.sharing.shares import shares_of
from fairshare.sharing.slots import plan_of, tenant_slot
from fairshare.sharing.static import device_env
from fairshare.sharing.verifying import verifier_for
from fairshare.spec.launcher import DeviceKind


class Mig(Partitioner):
    """Real GPU and compute instances, made through ``nvidia-smi`` and destroyed at the end."""

    def __init__(self, device: Device, driver: Driver, options: SharingOptions) -> None:
        self._gpu = device.id if device.kind is DeviceKind.CUDA else str(device.index or 0)
        self._env = device_env(device, driver.env)
        self._driver = driver
        self._options = options
        self._verify = verifier_for(device, driver)

    def plan(self, device: Device, tenants: Sequence[TenantDemand]) -> PartitionPlan:
        """One slot per tenant with the MIG profile that its share is worth.

        Raises:
            InfeasibleError: the device has no MIG, or no profiles fit the shares together.
        """
        spec = mig_spec(device)
        profiles = choose_profiles(spec, shares_of(tenants))
        slots = [
            tenant_slot(
                tenant,
                compute_fraction=profile.sm_count / spec.sm_count,
                memory_fraction=profile.memory_bytes / device.memory_bytes,
                memory_bytes=profile.memory_bytes,
                mig_profile=profile.name,
                env=self._env,
            )
            for tenant, profile in zip(tenants, profiles, strict=True)
        ]
        mig = f"nvidia-smi mig -i {self._gpu}"
        steps = [
            f"nvidia-smi -i {self._gpu} -mig 1   (where it is off; off again at the end)",
            *(f"{mig} -cgi {p.id} -C   ({p.name})" for p in creation_order(profiles)),
            f"{mig} -dci and -dgi of these   (at the end)",
        ]
        return plan_of(Mode.MIG, device, slots, steps=steps, notes=[granted(spec, profiles)])

    @asynccontextmanager
    async def apply(self, plan: PartitionPlan, scope: RunScope) -> AsyncIterator[PartitionPlan]:
        """Make the instances; the slots learn their UUIDs. What was found is put back.

        Raises:
            PartitionError: the GPU is not in a state to be changed, an instance could not be
                made, or something is not as it was found.
        """
        spec = mig_spec(plan.device)
        session = await MigSession.open(self._gpu, scope, self._driver.env)
        # Ampere resets the GPU and remembers the mode over reboots: not ours to do.
        if (
            session.found.mode.current != ENABLED
            and spec.mig_toggle_needs_reset
            and plan.device.kind is DeviceKind.CUDA
        ):
            raise PartitionError(
                f"MIG mode is off on GPU {self._gpu}, and on {spec.architecture} turning it on "
                "resets the GPU and survives a reboot",
                hint=f"turn it on yourself: sudo nvidia-smi -i {self._gpu} -mig 1",
            )
        by_name = {profile.name: profile for profile in spec.mig_profiles}
        wanted = {s.name: by_name[s.mig_profile] for s in plan.slots if s.mig_profile}
        try:
            await session.enable()
            devices = await session.make(wanted)
            scope.events.emit("partition.applied", mode=plan.mode.value, label=plan.label)
            slots = tuple(_bound_to(slot, devices[slot.name].uuid) for slot in plan.slots)
            yield replace(plan, slots=slots)
        finally:
            await session.restore()

    async def verify(self, slot: Slot, server: ServerView) -> dict[str, Any]:
        """Compare what the running server has with its slot.

        Raises:
            PartitionError: they differ.
        """
        return await self._verify(slot, server)


def mig_spec(device: Device) -> GpuSpec:
    """The MIG table of a device's model.

    Raises:
        InfeasibleError: the model has no MIG, or its profiles are not known here.
    """
    spec = spec_of_product(device.name)
    if not device.mig_capable:
        raise InfeasibleError(f"{device.name} has no MIG", hint="use mps or timeslice")
    if spec is None or not spec.mig_capable:
        raise InfeasibleError(
            f"the MIG profiles of {device.name} are not in fairshare's table of GPUs",
            hint="add its `nvidia-smi mig -lgip` to fairshare/devices/gpus.yaml",
        )
    return spec


def granted(spec: GpuSpec, profiles: Sequence[MigProfile]) -> str:
    """What a choice of profiles gives and leaves, in a sentence."""
    names = " + ".join(profile.name for profile in profiles)
    sms = sum(profile.sm_count for profile in profiles)
    gib = sum(profile.memory_gib for profile in profiles)
    return f"MIG profiles {names}: {sms} of {spec.sm_count} SMs and {gib:g} GiB in all"


def _bound_to(slot: Slot, uuid: str) -> Slot:
    return replace(slot, env={**slot.env, "CUDA_VISIBLE_DEVICES": uuid})
