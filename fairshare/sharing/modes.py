"""Which partitioner makes a mode's shares on a kind of device."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fairshare.devices.device import Device
from fairshare.records import Mode
from fairshare.sharing.cpusets import CpuMig, CpuMps
from fairshare.sharing.exclusive import Exclusive
from fairshare.sharing.logical import Logical
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
    DeviceKind.CUDA: {**_EVERYWHERE, Mode.MPS: Mps},
    DeviceKind.VIRTUAL: {**_EVERYWHERE, Mode.MPS: Mps},
}


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
    return _MAKERS[device.kind][mode](device, driver_env or {})
