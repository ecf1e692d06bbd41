"""Undo a driver change after its run has died: what the journal names as a command.

``python -m fairshare.sharing.undo mps PIPE_DIR``. Ends well where there is nothing to undo.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from fairshare.errors import FairshareError
from fairshare.sharing.mps_control import quit_daemon


def main(arguments: Sequence[str]) -> int:
    """Run one undo command; return its exit code."""
    undoings = {"mps": _undo_mps}
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
