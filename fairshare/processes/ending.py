"""End a set of processes for certain: ask, wait, kill, wait, verify."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable

from fairshare.processes.identity import ProcessIdentity, wait_gone
from fairshare.processes.table import command_line

Find = Callable[[], list[ProcessIdentity]]
Notice = Callable[[str, list[ProcessIdentity]], None]
BeforeKill = Callable[[list[ProcessIdentity]], None]

TRACKER_GRACE_S = 2.0
_KILL_WAIT_S = 2.0
_ROUNDS = 5


def is_resource_tracker(identity: ProcessIdentity) -> bool:
    """Whether this is multiprocessing's helper that removes shared memory once all others died."""
    return "multiprocessing.resource_tracker" in command_line(identity.pid)


def end_all(
    find: Find,
    grace_s: float,
    notice: Notice,
    before_kill: BeforeKill = lambda _identities: None,
) -> list[ProcessIdentity]:
    """End whatever ``find`` finds, again and again until it finds nothing; return survivors.

    Every found process gets SIGTERM and ``grace_s`` to go, then SIGKILL. Resource trackers ignore
    SIGTERM and end by themselves when the last process they serve has gone, removing its shared
    memory; they are killed last, and only if they do not. ``find`` is asked again after each round
    since a process may fork while it is being ended. Blocks; ``notice`` hears of each signal sent,
    and ``before_kill`` once, ahead of it, of each process that will be killed.
    """
    found = find()
    asked = [identity for identity in found if not is_resource_tracker(identity)]
    if asked and grace_s > 0:
        _send(asked, signal.SIGTERM, notice)
        wait_gone(found, grace_s)
    told: set[ProcessIdentity] = set()
    for _ in range(_ROUNDS):
        found = find()
        if not found:
            break
        if new := [identity for identity in found if identity not in told]:
            before_kill(new)
            told.update(new)
        trackers = [identity for identity in found if is_resource_tracker(identity)]
        others = [identity for identity in found if identity not in trackers]
        _send(others, signal.SIGKILL, notice)
        wait_gone(others, _KILL_WAIT_S)
        stubborn = wait_gone(trackers, TRACKER_GRACE_S)
        _send(stubborn, signal.SIGKILL, notice)
        wait_gone(stubborn, _KILL_WAIT_S)
    return find()


def reap(pids: Iterable[int]) -> None:
    """Take the exit status of children that were not started by us but fell to us as sub-reaper."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue


def _send(identities: list[ProcessIdentity], number: signal.Signals, notice: Notice) -> None:
    reached = [identity for identity in identities if identity.signal(number)]
    if reached:
        notice(number.name.lower(), reached)
