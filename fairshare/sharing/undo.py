"""Undo a driver change after its run has died: what the journal names as a command.

::

    python -m fairshare.sharing.undo mps PIPE_DIR
    python -m fairshare.sharing.undo mps-clients PIPE_DIR
    python -m fairshare.sharing.undo mig-instances GPU BOOT_ID [ID_TO_KEEP ...]
    python -m fairshare.sharing.undo mig-off GPU BOOT_ID

``mps-clients`` has the daemon let go of its clients, so that these can be killed. Each ends well
where there is nothing to undo.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fairshare.devices.driver import STATE_VARIABLE
from fairshare.errors import FairshareError
from fairshare.processes.identity import boot_id
from fairshare.sharing.mig_state import DISABLED, destroy_instances, switch_mode
from fairshare.sharing.mps_clients import terminate_clients
from fairshare.sharing.mps_control import MpsControl, quit_daemon
from fairshare.sharing.nvidia_smi import NvidiaSmi


def main(arguments: Sequence[str]) -> int:
    """Run one undo command; return its exit code."""
    undoings = {
        "mps": _undo_mps,
        "mps-clients": _release_clients,
        "mig-instances": _undo_instances,
        "mig-off": _undo_mode,
    }
    if not arguments or arguments[0] not in undoings:
        print(f"usage: python -m fairshare.sharing.undo {'|'.join(undoings)} ...")
        return 2
    try:
        asyncio.run(undoings[arguments[0]](arguments[1:]))
    except FairshareError as error:
        print(error)
        return 1
    return 0


async def _undo_mps(arguments: Sequence[str]) -> None:
    (pipe_dir,) = arguments
    await quit_daemon(Path(pipe_dir), {})


async def _release_clients(arguments: Sequence[str]) -> None:
    (pipe_dir,) = arguments
    await terminate_clients(MpsControl(Path(pipe_dir), {}))


async def _undo_instances(arguments: Sequence[str]) -> None:
    gpu, boot, *keep = arguments
    if _still_there(boot):
        await destroy_instances(NvidiaSmi(gpu, {}), keep={int(number) for number in keep})


async def _undo_mode(arguments: Sequence[str]) -> None:
    gpu, boot = arguments
    smi = NvidiaSmi(gpu, {})
    if _still_there(boot) and (await smi.mig_mode()).current != DISABLED:
        await switch_mode(smi, False)


def _still_there(boot: str) -> bool:
    """Whether what we made can still exist: it survives neither a reboot nor its simulated GPU."""
    state_dir = os.environ.get(STATE_VARIABLE)
    return boot == boot_id() and (state_dir is None or Path(state_dir).is_dir())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
