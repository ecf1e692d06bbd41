"""What must hold of a GPU before servers start on the whole of it."""

from __future__ import annotations

from collections.abc import Mapping

from fairshare.devices.device import Device
from fairshare.errors import PartitionError
from fairshare.sharing.mig_state import ENABLED
from fairshare.sharing.mig_table import smi_name
from fairshare.sharing.mps_foreign import DEFAULT_PIPES, refuse_foreign_daemon
from fairshare.sharing.nvidia_smi import NvidiaSmi
from fairshare.sharing.tools import ToolMissingError
from fairshare.spec.launcher import DeviceKind


async def require_whole_gpu(device: Device, driver_env: Mapping[str, str]) -> None:
    """Make sure that servers will get the GPU itself; nothing to check on other devices.

    Raises:
        PartitionError: the GPU is in MIG mode (CUDA would show a server an instance or nothing),
            or somebody else's MPS daemon would take the servers in.
    """
    if device.kind not in (DeviceKind.CUDA, DeviceKind.VIRTUAL):
        return
    if device.mig_capable and await _is_in_mig_mode(device, driver_env):
        gpu = smi_name(device)
        raise PartitionError(
            f"GPU {device.index or 0} is in MIG mode, and this mode needs the whole GPU",
            hint=f"turn it off: sudo nvidia-smi -i {gpu} -mig 0; or make instances in its free "
            "room: --modes mig --allow-gpu-changes",
        )
    # A simulated GPU's daemon is no business of what CUDA finds unasked, and the other way round.
    pipes = DEFAULT_PIPES if device.kind is DeviceKind.CUDA else ()
    await refuse_foreign_daemon(driver_env, pipes)


async def _is_in_mig_mode(device: Device, driver_env: Mapping[str, str]) -> bool:
    try:
        return (await NvidiaSmi(smi_name(device), driver_env).mig_mode()).current == ENABLED
    except ToolMissingError:
        return False  # some containers lack the tool; whole-GPU modes do without it
