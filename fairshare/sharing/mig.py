"""``mig``: one server per tenant on a GPU instance of its own, isolated by the hardware."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fairshare.devices.constants import MigProfile
from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.errors import InfeasibleError
from fairshare.processes.finishing import to_the_end
from fairshare.processes.scope import RunScope
from fairshare.records import Mark, Mode
from fairshare.sharing.mig_facts import facts_unasked
from fairshare.sharing.mig_layout import choose, place
from fairshare.sharing.mig_session import MigSession
from fairshare.sharing.mig_table import MigTable, smi_name
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import (
    Partitioner,
    PartitionPlan,
    ServerView,
    Slot,
    TenantDemand,
)
from fairshare.sharing.slots import ON_INSTANCES, plan_of, tenant_slot
from fairshare.sharing.static import device_env
from fairshare.sharing.verifying import verifier_for
from fairshare.spec.launcher import DeviceKind


class Mig(Partitioner):
    """Real GPU and compute instances, made through ``nvidia-smi`` and destroyed at the end."""

    def __init__(self, device: Device, driver: Driver, options: SharingOptions) -> None:
        self._env = device_env(device, driver.env)
        self._driver = driver
        self._options = options
        self._facts = options.mig_facts or facts_unasked(device)
        self._verify = verifier_for(device, driver)

    def plan(self, device: Device, tenants: Sequence[TenantDemand]) -> PartitionPlan:
        """One slot per tenant with its MIG profile, by the layout or by what its share is worth.

        Raises:
            InfeasibleError: the device has no MIG, or no profiles fit together.
        """
        table = self._table(device)
        profiles = choose(table, tenants, self._options.mig.layout)
        slots = [
            tenant_slot(
                tenant,
                compute_fraction=profile.sm_count / table.sm_count,
                memory_fraction=profile.memory_bytes / device.memory_bytes,
                memory_bytes=profile.memory_bytes,
                mig_profile=profile.name,
                env=self._env,
            )
            for tenant, profile in zip(tenants, profiles, strict=True)
        ]
        steps = self._steps(device, table, profiles)
        marks: list[Mark] = []
        notes = [granted(table, profiles)]
        if device.kind is DeviceKind.VIRTUAL:
            marks.append(Mark.UNVALIDATED)
            notes.append(ON_INSTANCES)
        return plan_of(Mode.MIG, device, slots, steps=steps, notes=notes, marks=marks)

    @asynccontextmanager
    async def apply(self, plan: PartitionPlan, scope: RunScope) -> AsyncIterator[PartitionPlan]:
        """Make the instances; the slots learn their UUIDs. What was found is put back.

        Raises:
            PartitionError: the GPU is not in a state to be changed, an instance could not be
                made, or something is not as it was found.
        """
        table = self._table(plan.device)
        may_reset = self._options.allow_gpu_reset or plan.device.kind is DeviceKind.VIRTUAL
        session = await MigSession.open(
            plan.device, table, scope, self._driver, may_reset=may_reset
        )
        by_name = {profile.name: profile for profile in table.profiles}
        wanted = {s.name: by_name[s.mig_profile] for s in plan.slots if s.mig_profile}
        try:
            await session.enable()
            devices = await session.make(wanted)
            scope.events.emit("partition.applied", mode=plan.mode.value, label=plan.label)
            slots = tuple(_bound_to(slot, devices[slot.name].uuid) for slot in plan.slots)
            yield replace(plan, slots=slots)
        except BaseException as error:
            await to_the_end(session.restore(after=error))
            raise
        else:
            await to_the_end(session.restore())

    def _table(self, device: Device) -> MigTable:
        if not device.mig_capable:
            raise InfeasibleError(
                f"{device.name} has no MIG", hint="use --mig emulated, or mps or timeslice"
            )
        if self._facts.table is None:
            raise InfeasibleError(
                f"the MIG profiles of {device.name} are not known: its driver does not list them, "
                "and fairshare's table of GPUs lacks it",
                hint="try `nvidia-smi mig -lgip`; what it lists may be added to "
                "fairshare/devices/gpus.yaml",
            )
        return self._facts.table

    def _steps(self, device: Device, table: MigTable, profiles: Sequence[MigProfile]) -> list[str]:
        """The commands, for people; on a GPU with other instances the places may differ."""
        gpu = smi_name(device)
        mig = f"nvidia-smi mig -i {gpu}"
        starts = place(profiles) or []
        placed = sorted(zip(profiles, starts, strict=True), key=lambda p: -p[0].memory_slices)
        switch = [f"nvidia-smi -i {gpu} -mig 1   (off again at the end)"]
        if table.toggle_needs_reset:
            switch.append(f"nvidia-smi --gpu-reset -i {gpu}   (where the mode is only pending)")
        return [
            *([] if self._facts.enabled else switch),
            *(f"{mig} -cgi {p.id}:{start} -C   ({p.name})" for p, start in placed),
            f"{mig} -dci and -dgi of these   (at the end)",
        ]

    async def verify(self, slot: Slot, server: ServerView) -> dict[str, Any]:
        """Compare what the running server has with its slot.

        Raises:
            PartitionError: they differ.
        """
        return await self._verify(slot, server)


def granted(table: MigTable, profiles: Sequence[MigProfile]) -> str:
    """What a choice of profiles gives and leaves, in a sentence."""
    names = " + ".join(profile.name for profile in profiles)
    sms = sum(profile.sm_count for profile in profiles)
    gib = sum(profile.memory_gib for profile in profiles)
    return f"MIG profiles {names}: {sms} of {table.sm_count} SMs and {gib:g} GiB in all"


def _bound_to(slot: Slot, uuid: str) -> Slot:
    return replace(slot, env={**slot.env, "CUDA_VISIBLE_DEVICES": uuid})
