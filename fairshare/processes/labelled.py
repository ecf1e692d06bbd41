"""Find our processes by the label in their environment.

A server's engine may leave its parent, its group and its session, and rename itself; what it keeps
is the environment it was started with. setproctitle writes over that memory unless ``SPT_NOENV``
is set (its documentation, section "Environment variables"), so children get that as well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fairshare.processes.identity import ProcessIdentity, identify
from fairshare.processes.table import all_pids, namespace_of

RUN_LABEL = "FAIRSHARE_RUN"
SLOT_LABEL = "FAIRSHARE_SLOT"
OWNER_LABEL = "FAIRSHARE_OWNER"
JOURNAL_LABEL = "FAIRSHARE_JOURNAL"
KEEP_ENVIRONMENT = "SPT_NOENV"
LABELS = (RUN_LABEL, SLOT_LABEL, OWNER_LABEL, JOURNAL_LABEL)


def environment_of(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty if it is gone or not ours to read."""
    try:
        raw = (Path("/proc") / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def labels() -> dict[ProcessIdentity, dict[str, str]]:
    """The labels of every running process that carries ours, this process left out.

    Those of another process table (a container's) are its own business: the pid of their run's
    owner means somebody else here.
    """
    found: dict[ProcessIdentity, dict[str, str]] = {}
    ours = namespace_of()
    for pid in all_pids():
        if pid == os.getpid() or RUN_LABEL not in environment_of(pid):
            continue
        if namespace_of(pid) != ours:
            continue
        identity = identify(pid)
        # Read once more: only now is it certain whose environment it is.
        carried = {k: v for k, v in environment_of(pid).items() if k in LABELS}
        if RUN_LABEL in carried and identity is not None and identity.alive():
            found[identity] = carried
    return found


def labelled(run_id: str | None = None, slot: str | None = None) -> list[ProcessIdentity]:
    """Running processes that carry the label, of one run (and of one slot of it) if named."""
    return [
        identity
        for identity, carried in labels().items()
        if run_id in (None, carried[RUN_LABEL]) and slot in (None, carried.get(SLOT_LABEL))
    ]


def spawned(run_id: str) -> list[ProcessIdentity]:
    """Servers, daemons and workers of a run, without a driver tool that is making a change."""
    return [
        identity
        for identity, carried in labels().items()
        if carried[RUN_LABEL] == run_id and SLOT_LABEL in carried
    ]


def owner_label(owner: ProcessIdentity) -> str:
    """The value of the label that names a run's owner."""
    return f"{owner.pid}:{owner.start_ticks}:{owner.boot_id}"


def owner_of(carried: Mapping[str, str]) -> ProcessIdentity | None:
    """The run's owner as a process's labels name it; None where they do not."""
    parts = carried.get(OWNER_LABEL, "").split(":")
    if len(parts) != 3 or not (parts[0].isdigit() and parts[1].isdigit()):
        return None
    return ProcessIdentity(int(parts[0]), int(parts[1]), parts[2])
