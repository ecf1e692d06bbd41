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
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.layouts import MigHow
from fairshare.spec.mig import MigSpec

_GPUS = (DeviceKind.CUDA, DeviceKind.VIRTUAL)


def settle_sharing(
    mig: MigSpec | None,
    modes: Sequence[Mode],
    device: Device,
    driver: Driver,
    *,
    allow_gpu_changes: bool,
    allow_gpu_reset: bool,
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
    return SharingOptions(
        allow_gpu_changes=allow_gpu_changes,
        allow_gpu_reset=allow_gpu_reset,
        mig=mig or MigSpec(),
        mig_facts=_mig_facts(modes, device, driver),
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


def _mig_facts(modes: Sequence[Mode], device: Device, driver: Driver) -> MigFacts | None:
    if Mode.MIG not in modes or device.kind not in _GPUS or not device.mig_capable:
        return None
    return asyncio.run(ask_facts(device, driver))
