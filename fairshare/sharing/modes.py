"""Which partitioner makes a mode's shares on a kind of device."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fairshare.devices.device import Device
from fairshare.records import Mode
from fairshare.sharing.cpusets import CpuMig, CpuMps
from fairshare.sharing.emulated import EmulatedMig
from fairshare.sharing.exclusive import Exclusive
from fairshare.sharing.logical import Logical
from fairshare.sharing.mig import Mig
from fairshare.sharing.mps import Mps
from fairshare.sharing.plan import Partitioner
from fairshare.sharing.timeslice import Timeslice
from fairshare.spec.launcher import DeviceKind

Maker = Callable[[Device, Mapping[str, str]], Partitioner]

_EVERYWHERE: dict[Mode, Maker] = {
    Mode.EXCLUSIVE: Exclusive,
    Mode.LOGICAL: Logical,
    Mode.TIMESLICE: Timeslice,
}
_MAKERS: dict[DeviceKind, dict[Mode, Maker]] = {
    DeviceKind.CPU: {**_EVERYWHERE, Mode.MPS: CpuMps, Mode.MIG: CpuMig},
    DeviceKind.CUDA: {**_EVERYWHERE, Mode.MPS: Mps, Mode.MIG: EmulatedMig},
    DeviceKind.VIRTUAL: {**_EVERYWHERE, Mode.MPS: Mps, Mode.MIG: Mig},
}
# What takes the place of the above once the driver's state may be changed and the GPU has MIG.
_WITH_CHANGES: dict[tuple[DeviceKind, Mode], Maker] = {(DeviceKind.CUDA, Mode.MIG): Mig}


def partitioner_for(
    mode: Mode,
    device: Device,
    *,
    driver_env: Mapping[str, str] | None = None,
    allow_gpu_changes: bool = False,
) -> Partitioner:
    """The partitioner of a mode on a device.

    Args:
        mode: how tenants share.
        device: what they share.
        driver_env: set over our own environment when driver tools are run (the simulated GPU's
            stand-ins come first on PATH by it).
        allow_gpu_changes: whether a real GPU's driver state may be changed; without it ``mig`` is
            emulated there.
    """
    maker = _MAKERS[device.kind][mode]
    if allow_gpu_changes and device.mig_capable:
        maker = _WITH_CHANGES.get((device.kind, mode), maker)
    return maker(device, driver_env or {})
