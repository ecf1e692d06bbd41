"""How the shares of a run are made: what was asked for, checked against what its device has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.errors import SpecError
from fairshare.records import Mode
from fairshare.sharing.mig_facts import MigFacts, ask_facts
from fairshare.sharing.options import SharingOptions
from fairshare.spec.choices import Partitioning
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.layouts import MigHow
from fairshare.spec.mig import MigSpec
from fairshare.spec.sharing import MpsSpec, TimesliceSpec

_GPUS = (DeviceKind.CUDA, DeviceKind.VIRTUAL)


def settle_sharing(
    mig: MigSpec | None,
    modes: Sequence[Mode],
    device: Device,
    driver: Driver,
    *,
    mps: MpsSpec,
    timeslice: TimesliceSpec,
    allow_gpu_changes: bool,
    allow_gpu_reset: bool,
    lock_clocks: str | None = None,
) -> SharingOptions:
    """Check the wishes, and ask the GPU for what a plan of them needs; changes nothing.

    Raises:
        SpecError: a wish has no effect on this device, or lacks another that it needs.
    """
    if allow_gpu_reset and not allow_gpu_changes:
        raise SpecError(
            "--allow-gpu-reset is for changes of the GPU, which are not allowed",
            hint="add --allow-gpu-changes",
        )
    _refuse_in_vain(mig or MigSpec(), device)
    _check_partitioning(mps, device)
    _check_policy(timeslice, device, allow_gpu_changes)
    _check_clocks(lock_clocks, device, allow_gpu_changes)
    return SharingOptions(
        allow_gpu_changes=allow_gpu_changes,
        allow_gpu_reset=allow_gpu_reset,
        mig=mig or MigSpec(),
        mig_facts=_mig_facts(modes, device, driver),
        mps=mps,
        timeslice=timeslice,
    )


def _refuse_in_vain(mig: MigSpec, device: Device) -> None:
    if device.kind in _GPUS or mig == MigSpec():
        return
    asked = f"--mig {mig.how.value}" if mig.how is not MigHow.AUTO else "a MIG layout"
    raise SpecError(
        f"{asked} has no effect on {device.kind.value}, which has no MIG",
        hint="leave it out; the tenants' share: says who gets how much"
        if device.kind is DeviceKind.CPU
        else "leave it out",
    )


def _check_partitioning(mps: MpsSpec, device: Device) -> None:
    if mps.partitioning is Partitioning.LIMITS or device.kind in _GPUS:
        return
    raise SpecError(
        f"static partitions of SMs have no meaning on {device.kind.value}",
        hint="leave --mps-partitioning out; mode mig divides the cores of a CPU",
    )


def _check_policy(timeslice: TimesliceSpec, device: Device, allow_gpu_changes: bool) -> None:
    if timeslice.policy is None:
        return
    if device.kind not in _GPUS:
        raise SpecError(
            f"the time-slice policy is a GPU driver's, and {device.kind.value} has none",
            hint="leave --timeslice-policy out",
        )
    if device.kind is DeviceKind.CUDA and not allow_gpu_changes:
        raise SpecError(
            f"the time-slice policy {timeslice.policy.value} changes the GPU's driver",
            hint="add --allow-gpu-changes; what is found is put back at the end",
        )


def _check_clocks(clocks: str | None, device: Device, allow_gpu_changes: bool) -> None:
    if clocks is None:
        return
    if device.kind not in _GPUS:
        raise SpecError(
            f"--lock-clocks is about a GPU's clocks, and {device.kind.value} has none",
            hint="leave it out",
        )
    if device.kind is DeviceKind.CUDA and not allow_gpu_changes:
        raise SpecError(
            "--lock-clocks changes the GPU's driver",
            hint="add --allow-gpu-changes; the clocks are the driver's own again at the end",
        )


def _mig_facts(modes: Sequence[Mode], device: Device, driver: Driver) -> MigFacts | None:
    if Mode.MIG not in modes or device.kind not in _GPUS or not device.mig_capable:
        return None
    return asyncio.run(ask_facts(device, driver))
