"""The process that outlives a killed run by a few seconds and cleans up after it.

Started by the run as ``python -m fairshare.processes.reaper``, in a session of its own, holding
the read end of a pipe whose write end only the run has. It is there before the run leaves its first
trace. `JOURNAL` on the pipe: the run has a journal now. `FINISHED`: the run has cleaned up, nothing
is to be done. The end of the pipe without it, or the end of the owner: the run died.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

from fairshare.processes.clean import remove_stillborn
from fairshare.processes.identity import ProcessIdentity, boot_id, wait_gone
from fairshare.processes.journal import Journal
from fairshare.processes.journal_state import JournalError
from fairshare.processes.locks import remove_free
from fairshare.processes.recovery import recover

JOURNAL = b"j"
FINISHED = b"\0"
READY = b"r"
_LOCK_WAIT_S = 5.0


def main(arguments: list[str]) -> int:
    """Wait for the end of the run, then clean up if the run did not do so itself."""
    journal_path, lock, owner_pid, owner_ticks, pipe = arguments
    owner = ProcessIdentity(int(owner_pid), int(owner_ticks), boot_id())
    # It lives exactly as long as its owner: what asks the owner to go must not end it first.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    _say_ready()
    watch = _Watch(Path(journal_path), owner)
    if watch.finished_cleanly(int(pipe)):
        return 0
    return watch.clean_up(Path(lock) if lock else None)


def _say_ready() -> None:
    # The owner may be dead already; that is no reason to stop, on the contrary.
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), READY)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class _Watch:
    """A run that lives, and its journal as soon as there is one."""

    def __init__(self, path: Path, owner: ProcessIdentity) -> None:
        self._path = path
        self._owner = owner
        self._journal: Journal | None = None

    def finished_cleanly(self, pipe: int) -> bool:
        """Block until the run has ended; whether it had cleaned up."""
        poller = select.poll()
        poller.register(pipe, select.POLLIN)
        owner_descriptor = self._owner.open()
        if owner_descriptor is not None:
            poller.register(owner_descriptor, select.POLLIN)
        os.set_blocking(pipe, False)
        while True:
            if owner_descriptor is not None:
                poller.poll()
            try:
                told = os.read(pipe, 1)
            except BlockingIOError:
                # The owner is gone although somebody it forked still holds the pipe.
                return False
            if told != JOURNAL:
                return told == FINISHED
            # Open from now on: it may be removed together with its folder while the run goes on.
            self._journal = Journal.open(self._path)

    def clean_up(self, lock: Path | None) -> int:
        """Clean up after a dead run unless somebody else does or did so."""
        wait_gone([self._owner], _LOCK_WAIT_S)  # the pipe may end a moment before
        journal = self._journal or Journal.open(self._path)
        if journal is None:
            remove_stillborn(dry_run=False)
        elif not _recovered(journal):
            return 1
        if lock is not None:
            _remove_lock(lock)
        return 0


def _remove_lock(lock: Path) -> None:
    # The owner's last thread lets go of it, which may be a moment after the owner counts as dead.
    deadline_s = time.monotonic() + _LOCK_WAIT_S
    while lock.exists() and not remove_free(lock) and time.monotonic() < deadline_s:
        time.sleep(0.02)


def _recovered(journal: Journal) -> bool:
    """Whether nothing of the run is left, or somebody else is at it."""
    deadline_s = time.monotonic() + _LOCK_WAIT_S
    while not journal.try_lock():
        if time.monotonic() > deadline_s:
            return True
        time.sleep(0.02)
    try:
        state = journal.state()
    except JournalError:
        return False
    if state.closed:
        journal.remove()  # killed in between, or removed already
    return state.closed or recover(journal, state).complete


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
