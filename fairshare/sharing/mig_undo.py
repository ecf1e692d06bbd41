"""The undoing of MIG changes after their run has died, as the journal names it.

::

    mig-instance GPU BOOT_ID PROFILE_ID START
    mig-off GPU BOOT_ID kept|lost reset|no-reset COMPUTE_MODE PERSISTENCE_MODE

Instances never survive a reboot. The mode does on Ampere ("kept"), and there alone it is turned
off in a later boot.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fairshare.devices.driver import STATE_VARIABLE
from fairshare.processes.identity import boot_id
from fairshare.sharing.mig_state import ANY_BOOT, DISABLED, Place, destroy_instances, turn_off
from fairshare.sharing.nvidia_smi import GpuModes, MigMode, NvidiaSmi

# Each instance is tried for so long; together they must not hold up who waits for the end.
_PATIENCE_S = 1.5


async def undo_instance(arguments: Sequence[str]) -> None:
    """Destroy the instance of one profile at one place, if it is there.

    Raises:
        PartitionError: it cannot be destroyed.
    """
    gpu, boot, profile_id, start = arguments
    if not _same_gpu() or not _same_boot(boot):
        return
    place = Place(int(profile_id), int(start))
    await destroy_instances(NvidiaSmi(gpu, {}), {place}, _PATIENCE_S)


async def undo_mode(arguments: Sequence[str]) -> None:
    """Turn MIG mode off, and set again what that may have reset.

    Raises:
        PartitionError: there are instances on the GPU, or it cannot be turned off now.
    """
    gpu, boot, keeps, reset, compute, persistence = arguments
    same_boot = _same_boot(boot)
    if not _same_gpu() or not (same_boot or keeps == "kept"):
        return
    found = GpuModes(MigMode(DISABLED, DISABLED), compute, persistence) if same_boot else None
    await turn_off(NvidiaSmi(gpu, {}), found, may_reset=reset == "reset")


def _same_gpu() -> bool:
    """Whether a simulated GPU is still there; a real one is."""
    simulated = os.environ.get(STATE_VARIABLE)
    return simulated is None or Path(simulated).is_dir()


def _same_boot(boot: str) -> bool:
    return boot in (ANY_BOOT, boot_id())
