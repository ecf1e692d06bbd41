"""Undo a driver change after its run has died: what the journal names as a command.

::

    python -m fairshare.sharing.undo mps PIPE_DIR
    python -m fairshare.sharing.undo mps-clients PIPE_DIR
    python -m fairshare.sharing.undo timeslice GPU POLICY_SET POLICY_FOUND
    python -m fairshare.sharing.undo clocks GPU
    python -m fairshare.sharing.undo mig-instance|mig-off ...   (see mig_undo.py)

``mps-clients`` has the daemon let go of its clients, so that these can be killed. Each ends well
where there is nothing to undo.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from fairshare import users
from fairshare.errors import FairshareError

# What is undone by which function: none is imported before it is needed, since each undoing is a
# process of its own, and who waits for them waits for their imports.
_UNDOINGS = {
    "mps": "fairshare.sharing.undo:undo_mps",
    "mps-clients": "fairshare.sharing.undo:release_clients",
    "timeslice": "fairshare.sharing.timeslice_policy:undo_policy",
    "clocks": "fairshare.sharing.clocks:undo_clocks",
    "mig-instance": "fairshare.sharing.mig_undo:undo_instance",
    "mig-off": "fairshare.sharing.mig_undo:undo_mode",
}


def main(arguments: Sequence[str]) -> int:
    """Run one undo command; return its exit code."""
    if not arguments or arguments[0] not in _UNDOINGS:
        print(f"usage: python -m fairshare.sharing.undo {'|'.join(_UNDOINGS)} ...")
        return 2
    try:
        users.step_back()
        module, _, name = _UNDOINGS[arguments[0]].partition(":")
        asyncio.run(getattr(importlib.import_module(module), name)(arguments[1:]))
    except FairshareError as error:
        # Who runs us quotes the last line.
        print(*error.evidence, sep="\n")
        print(error.message + (f" ({error.hint})" if error.hint else ""))
        return 1
    return 0


async def undo_mps(arguments: Sequence[str]) -> None:
    """End the MPS daemon of a pipe directory."""
    from fairshare.sharing.mps_control import quit_daemon  # noqa: PLC0415  (see above)

    (pipe_dir,) = arguments
    await quit_daemon(Path(pipe_dir), {})


async def release_clients(arguments: Sequence[str]) -> None:
    """Have the MPS daemon of a pipe directory let go of its clients."""
    from fairshare.sharing.mps_clients import terminate_clients  # noqa: PLC0415
    from fairshare.sharing.mps_control import MpsControl  # noqa: PLC0415

    (pipe_dir,) = arguments
    await terminate_clients(MpsControl(Path(pipe_dir), {}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
