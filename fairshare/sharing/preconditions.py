"""What must hold of a real GPU before servers start on the whole of it."""

from __future__ import annotations

from collections.abc import Mapping

from fairshare.devices.device import Device
from fairshare.errors import PartitionError
from fairshare.sharing.mig_state import ENABLED
from fairshare.sharing.mps_foreign import refuse_foreign_daemon
from fairshare.sharing.nvidia_smi import NvidiaSmi
from fairshare.sharing.tools import ToolMissingError
from fairshare.spec.launcher import DeviceKind


async def require_whole_gpu(device: Device, driver_env: Mapping[str, str]) -> None:
    """Make sure that servers will get the GPU itself; nothing to check on other devices.

    Raises:
        PartitionError: the GPU is in MIG mode (CUDA would show a server an instance or nothing),
            or somebody else's MPS daemon would take the servers in.
    """
    if device.kind is not DeviceKind.CUDA:
        return
    if device.mig_capable and await _is_in_mig_mode(device, driver_env):
        raise PartitionError(
            f"GPU {device.index} is in MIG mode, and this mode needs the whole GPU",
            hint=f"turn it off: sudo nvidia-smi -i {device.id} -mig 0; or run --modes mig",
        )
    await refuse_foreign_daemon(driver_env)


async def _is_in_mig_mode(device: Device, driver_env: Mapping[str, str]) -> bool:
    try:
        return (await NvidiaSmi(device.id, driver_env).mig_mode()).current == ENABLED
    except ToolMissingError:
        return False  # some containers lack the tool; whole-GPU modes do without it
