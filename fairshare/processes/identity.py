"""Which process is meant: a pid alone is reused, (pid, start time, boot) is not."""

from __future__ import annotations

import functools
import os
import select
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fairshare.processes.table import ProcessRow, read_row


@functools.cache
def boot_id() -> str:
    """The kernel's random name of the present boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process for all time; ``start_ticks`` is field 22 of ``/proc/<pid>/stat``."""

    pid: int
    start_ticks: int
    boot_id: str

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        if self.boot_id != boot_id():
            return False
        row = read_row(self.pid)
        return row is not None and row.start_ticks == self.start_ticks and not row.ended

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to this very process; False if it is gone or not ours to signal."""
        descriptor = self.open()
        if descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(descriptor, number)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def open(self) -> int | None:
        """A pidfd of this very process (readable once it has ended), None if it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return None
        # Only now that the descriptor holds the process can its identity not change any more.
        if self.alive():
            return descriptor
        os.close(descriptor)
        return None


def identity_of(row: ProcessRow) -> ProcessIdentity:
    """The identity of a process of the table."""
    return ProcessIdentity(row.pid, row.start_ticks, boot_id())


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of the process that has this pid now, None if none has."""
    row = read_row(pid)
    return None if row is None or row.ended else identity_of(row)


def wait_gone(identities: Iterable[ProcessIdentity], timeout_s: float) -> list[ProcessIdentity]:
    """Block until all have ended or the time is over; return those still alive."""
    poller = select.poll()
    watched: dict[int, ProcessIdentity] = {}
    for identity in identities:
        descriptor = identity.open()
        if descriptor is not None:
            watched[descriptor] = identity
            poller.register(descriptor, select.POLLIN)
    deadline_s = time.monotonic() + timeout_s
    try:
        while watched:
            left_s = deadline_s - time.monotonic()
            if left_s < 0:
                break
            for descriptor, _ in poller.poll(left_s * 1000):
                poller.unregister(descriptor)
                os.close(descriptor)
                del watched[descriptor]
        return list(watched.values())
    finally:
        for descriptor in watched:
            os.close(descriptor)
