"""Slots as most modes cut them, and what a plan is called on each kind of device. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from fairshare.devices.constants import spec_of_product
from fairshare.devices.device import Device
from fairshare.errors import InfeasibleError
from fairshare.records import Mark, Mode, Provenance
from fairshare.sharing.mps_control import MEMORY_VARIABLE, PERCENTAGE_VARIABLE, PIPE_VARIABLE
from fairshare.sharing.plan import PartitionPlan, Slot, TenantDemand
from fairshare.spec.launcher import DeviceKind

PROVENANCE = {
    DeviceKind.CUDA: Provenance.MEASURED,
    DeviceKind.CPU: Provenance.MEASURED_ON_CPU,
    DeviceKind.VIRTUAL: Provenance.SIMULATED,
}


UNCOMPARED = (
    "no prediction for {what} was ever compared with a measurement: expect about 15 % of error, "
    "less once it is calibrated (fairshare calibrate)"
)
UNEVEN = (
    "unequal MPS shares on a simulated GPU are not validated: what little is published contradicts "
    "the rule"
)
ON_INSTANCES = "language models on simulated MIG instances are not validated by anything published"
TAILS = (
    "tail percentiles (P95, P99) of engines that share a simulated GPU are not validated by "
    "anything published"
)


class Binding(StrEnum):
    """By what a server on a GPU is bound to its share."""

    NOTHING = "timeslice"  # it has the whole GPU, if only in turn
    MPS = "mps"  # it is a client of an MPS daemon
    MIG = "mig"  # it is on a MIG device


def binding_of(slot: Slot) -> Binding:
    """What a slot's environment does, or will do once the shares have been made.

    A slot that only emulates a MIG profile is an MPS client.
    """
    if slot.env.keys() & {PIPE_VARIABLE, PERCENTAGE_VARIABLE, MEMORY_VARIABLE}:
        return Binding.MPS
    visible = slot.env.get("CUDA_VISIBLE_DEVICES", "")
    on_mig = visible.startswith("MIG-") or slot.mig_profile is not None
    return Binding.MIG if on_mig else Binding.NOTHING


def plan_of(
    mode: Mode,
    device: Device,
    slots: Sequence[Slot],
    *,
    label: str | None = None,
    provenance: Provenance | None = None,
    steps: Sequence[str] = (),
    notes: Sequence[str] = (),
    marks: Sequence[Mark] = (),
    details: Mapping[str, str] | None = None,
) -> PartitionPlan:
    """A plan with the device's own provenance and the mode's own name unless told otherwise."""
    if device.kind is DeviceKind.VIRTUAL:
        notes = [*notes, *_reservations(device, slots)]
        if not _compared(device) and Mark.UNVALIDATED not in marks:
            marks = [*marks, Mark.UNVALIDATED]
    return PartitionPlan(
        mode=mode,
        label=label or mode.value,
        provenance=provenance or PROVENANCE[device.kind],
        device=device,
        slots=tuple(slots),
        steps=tuple(steps),
        notes=tuple(notes),
        marks=tuple(marks),
        details=dict(details or {}),
    )


def _reservations(device: Device, slots: Sequence[Slot]) -> Iterator[str]:
    """What keeps figures of a simulated GPU from being taken at their word."""
    compared = _compared(device)
    if not compared:
        yield UNCOMPARED.format(what=f"the {device.name}")
    elif others := sorted({slot.model for slot in slots} - set(compared)):
        yield UNCOMPARED.format(what=f"{' and '.join(others)} on the {device.name}")
    if len(slots) > 1:
        yield TAILS if len(slots) == 2 else f"{TAILS}, nor are more than two engines"


def _compared(device: Device) -> tuple[str, ...]:
    """The models with which predictions for a GPU were compared with measurements."""
    spec = spec_of_product(device.name)
    return () if spec is None else spec.compared_models


def whole_device_slot(
    device: Device, tenants: Sequence[TenantDemand], env: Mapping[str, str]
) -> Slot:
    """One slot named ``all`` for tenants of one model.

    Raises:
        InfeasibleError: the tenants want different models.
    """
    models = sorted({t.model for t in tenants})
    if len(models) > 1:
        raise InfeasibleError(
            f"one server cannot serve {len(models)} models: {', '.join(models)}",
            hint="give the tenants one model, or use timeslice, mps or mig",
        )
    cores = device.cores or None
    return Slot(
        name="all",
        tenants=tuple(t.name for t in tenants),
        model=models[0],
        adapters={t.name: t.adapter for t in tenants if t.adapter},
        cpu_set=cores,
        threads=len(cores) if cores else None,
        env=dict(env) | thread_env(len(cores) if cores else None),
    )


def tenant_slot(
    tenant: TenantDemand,
    *,
    compute_fraction: float,
    memory_fraction: float,
    memory_bytes: int | None = None,
    cpu_set: tuple[int, ...] | None = None,
    threads: int | None = None,
    mig_profile: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Slot:
    """A slot of one tenant, named after it."""
    return Slot(
        name=tenant.name,
        tenants=(tenant.name,),
        model=tenant.model,
        adapters={tenant.name: tenant.adapter} if tenant.adapter else {},
        compute_fraction=compute_fraction,
        memory_fraction=memory_fraction,
        memory_bytes=memory_bytes,
        cpu_set=cpu_set,
        threads=threads,
        mig_profile=mig_profile,
        env=dict(env or {}) | thread_env(threads),
    )


def thread_env(threads: int | None) -> dict[str, str]:
    """What holds a CPU engine to its compute threads.

    Idle OpenMP threads must sleep: spinning ones starve the neighbour's (measured: a sixth of the
    throughput is left).
    """
    if threads is None:
        return {}
    return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
