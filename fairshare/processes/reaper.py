"""The process that outlives a killed run by a few seconds and cleans up after it.

Started by the run as ``python -m fairshare.processes.reaper``, in a session of its own, holding
the read end of a pipe whose write end only the run has. A byte on the pipe: the run has cleaned
up, nothing is to be done. The end of the pipe without one, or the end of the owner: the run died.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

from fairshare.processes.identity import ProcessIdentity, boot_id
from fairshare.processes.journal import Journal
from fairshare.processes.journal_state import JournalError
from fairshare.processes.recovery import recover

FINISHED = b"\0"
READY = b"r"
_LOCK_WAIT_S = 5.0


def main(arguments: list[str]) -> int:
    """Wait for the end of the run, then clean up if the run did not do so itself."""
    journal_path, owner_pid, owner_ticks, pipe = arguments
    owner = ProcessIdentity(int(owner_pid), int(owner_ticks), boot_id())
    # It lives exactly as long as its owner: what asks the owner to go must not end it first.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    # Open from now on: it may be removed together with its folder while the run goes on.
    journal = Journal.open(Path(journal_path))
    if journal is None:
        return 1
    _say_ready()
    if finished_cleanly(int(pipe), owner):
        return 0
    return clean_up(journal)


def _say_ready() -> None:
    # The owner may be dead already; that is no reason to stop, on the contrary.
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), READY)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def finished_cleanly(pipe: int, owner: ProcessIdentity) -> bool:
    """Block until the run has ended; whether it had cleaned up."""
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    owner_descriptor = owner.open()
    if owner_descriptor is not None:
        poller.register(owner_descriptor, select.POLLIN)
        poller.poll()
    os.set_blocking(pipe, False)
    try:
        return os.read(pipe, 1) == FINISHED
    except BlockingIOError:
        # The owner is gone although somebody it forked still holds the pipe.
        return False


def clean_up(journal: Journal) -> int:
    """Clean up after a dead run unless somebody else does or did so."""
    deadline_s = time.monotonic() + _LOCK_WAIT_S
    while not journal.try_lock():
        if time.monotonic() > deadline_s:
            return 0
        time.sleep(0.02)
    try:
        state = journal.state()
    except JournalError:
        return 1
    return 0 if state.closed or recover(journal, state).complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
