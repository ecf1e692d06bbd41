"""Which partitioner makes a mode's shares on a kind of device."""

from __future__ import annotations

from collections.abc import Callable

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.records import Mode
from fairshare.sharing.cpusets import CpuMig, CpuMps
from fairshare.sharing.exclusive import Exclusive
from fairshare.sharing.logical import Logical
from fairshare.sharing.mig_choice import mig_partitioner
from fairshare.sharing.mps_static import mps_partitioner
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import Partitioner
from fairshare.sharing.timeslice import Timeslice
from fairshare.spec.launcher import DeviceKind

Maker = Callable[[Device, Driver, SharingOptions], Partitioner]

_EVERYWHERE: dict[Mode, Maker] = {
    Mode.EXCLUSIVE: Exclusive,
    Mode.LOGICAL: Logical,
    Mode.TIMESLICE: Timeslice,
}
_MAKERS: dict[DeviceKind, dict[Mode, Maker]] = {
    DeviceKind.CPU: {**_EVERYWHERE, Mode.MPS: CpuMps, Mode.MIG: CpuMig},
    DeviceKind.CUDA: {**_EVERYWHERE, Mode.MPS: mps_partitioner, Mode.MIG: mig_partitioner},
    DeviceKind.VIRTUAL: {**_EVERYWHERE, Mode.MPS: mps_partitioner, Mode.MIG: mig_partitioner},
}


def partitioner_for(
    mode: Mode, device: Device, driver: Driver, options: SharingOptions
) -> Partitioner:
    """The partitioner of a mode on a device, which is changed and asked through ``driver``.

    Raises:
        InfeasibleError: the options insist on what cannot be had here.
    """
    return _MAKERS[device.kind][mode](device, driver, options)
