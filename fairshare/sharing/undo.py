"""Undo a driver change after its run has died: what the journal names as a command.

::

    python -m fairshare.sharing.undo mps PIPE_DIR
    python -m fairshare.sharing.undo mps-clients PIPE_DIR
    python -m fairshare.sharing.undo timeslice GPU POLICY_SET POLICY_FOUND
    python -m fairshare.sharing.undo mig-instance|mig-off ...   (see mig_undo.py)

``mps-clients`` has the daemon let go of its clients, so that these can be killed. Each ends well
where there is nothing to undo.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from fairshare import users
from fairshare.errors import FairshareError
from fairshare.sharing.mig_undo import undo_instance, undo_mode
from fairshare.sharing.mps_clients import terminate_clients
from fairshare.sharing.mps_control import MpsControl, quit_daemon
from fairshare.sharing.timeslice_policy import undo_policy


def main(arguments: Sequence[str]) -> int:
    """Run one undo command; return its exit code."""
    undoings = {
        "mps": _undo_mps,
        "mps-clients": _release_clients,
        "timeslice": undo_policy,
        "mig-instance": undo_instance,
        "mig-off": undo_mode,
    }
    if not arguments or arguments[0] not in undoings:
        print(f"usage: python -m fairshare.sharing.undo {'|'.join(undoings)} ...")
        return 2
    try:
        users.step_back()
        asyncio.run(undoings[arguments[0]](arguments[1:]))
    except FairshareError as error:
        # Who runs us quotes the last line.
        print(*error.evidence, sep="\n")
        print(error.message + (f" ({error.hint})" if error.hint else ""))
        return 1
    return 0


async def _undo_mps(arguments: Sequence[str]) -> None:
    (pipe_dir,) = arguments
    await quit_daemon(Path(pipe_dir), {})


async def _release_clients(arguments: Sequence[str]) -> None:
    (pipe_dir,) = arguments
    await terminate_clients(MpsControl(Path(pipe_dir), {}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
