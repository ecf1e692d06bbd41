"""Find runs that died without cleaning up, and clean up after them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from fairshare import users
from fairshare.errors import PreflightError
from fairshare.processes.ending import end_all
from fairshare.processes.identity import ProcessIdentity
from fairshare.processes.journal import Journal, JournalState, read_state, runs_dir
from fairshare.processes.labelled import RUN_LABEL, labels, owner_of
from fairshare.processes.recovery import GRACE_S, Recovery, members, recover
from fairshare.processes.table import command_line

_LOCK_WAIT_S = 15.0


@dataclass(frozen=True, slots=True)
class DeadRun:
    """A run whose owner is gone; without a journal only its labelled processes are known."""

    run_id: str
    owner: ProcessIdentity
    journal: Path | None = None
    processes: tuple[ProcessIdentity, ...] = field(default=())


@users.as_root()
def find_dead_runs() -> list[DeadRun]:
    """Every run of this user on this host that is over and left something behind.

    A journal left by another host or container (a shared home folder) is not judged here.
    """
    journaled: list[DeadRun] = []
    for path in sorted(runs_dir().glob("*.jsonl")):
        state = read_state(path)
        if state is None or state.header.host != os.uname().nodename:
            continue
        header = state.header
        if not header.owner.alive():
            found = tuple(members(header.run_id, state.processes))
            journaled.append(DeadRun(header.run_id, header.owner, path, found))
    known = {run.run_id for run in journaled}
    return journaled + [run for run in _unjournaled() if run.run_id not in known]


@users.as_root()
def undo(run: DeadRun, dry_run: bool) -> list[str]:
    """Clean up after a dead run; one sentence per thing done (or, dry, that would be done).

    Raises:
        PreflightError: the run lives, or another process is cleaning up after it.
    """
    if run.owner.alive():
        raise PreflightError(
            f"run {run.run_id} is alive (process {run.owner.pid}); it was left alone"
        )
    if run.journal is None:
        return _end_unjournaled(run, dry_run)
    state = read_state(run.journal)
    if state is None:
        return []
    if dry_run:
        return _would_do(state)
    journal = _lock(run.journal, run.run_id)
    if journal is None:
        return []
    try:
        # Read again under the lock: somebody may have undone a part in between.
        state = journal.state()
        return [] if state is None else _told(recover(journal, state))
    finally:
        journal.close()


def _unjournaled() -> list[DeadRun]:
    """Labelled processes whose owner is known and gone, and whose journal is not here."""
    found: dict[tuple[str, ProcessIdentity], list[ProcessIdentity]] = {}
    for identity, carried in labels().items():
        owner = owner_of(carried)
        if owner is not None and not owner.alive():
            found.setdefault((carried[RUN_LABEL], owner), []).append(identity)
    return [
        DeadRun(run_id, owner, processes=tuple(identities))
        for (run_id, owner), identities in found.items()
    ]


def _end_unjournaled(run: DeadRun, dry_run: bool) -> list[str]:
    if dry_run:
        return [f"would end {_named(identity)}" for identity in members(run.run_id, ())]
    ended: dict[ProcessIdentity, str] = {}

    def find() -> list[ProcessIdentity]:
        found = members(run.run_id, ())
        ended.update({identity: _named(identity) for identity in found if identity not in ended})
        return list(found)

    survivors = end_all(find, GRACE_S, lambda _event, _identities: None)
    told = [f"ended {name}" for identity, name in ended.items() if identity not in survivors]
    return told + [f"FAILED: {ended[identity]} is still there" for identity in survivors]


def _lock(path: Path, run_id: str) -> Journal | None:
    """The journal's lock, waiting for a reaper at work; None once nothing is left to do."""
    deadline_s = time.monotonic() + _LOCK_WAIT_S
    while (journal := Journal.lock(path)) is None:
        if not path.exists():
            return None
        if time.monotonic() > deadline_s:
            raise PreflightError(f"another process is cleaning up after run {run_id}")
        time.sleep(0.02)
    return journal


def _would_do(state: JournalState) -> list[str]:
    header = state.header
    told = [f"would end {_named(each)}" for each in members(header.run_id, state.processes)]
    for step in sorted(state.pending.values(), key=lambda step: -step.number):
        told += [f"would undo {step.name}"] if step.undo[step.commands_undone :] else []
    if header.private_dir.exists():
        told.append(f"would remove {header.private_dir}")
    return [*told, f"would forget run {header.run_id}"]


def _told(result: Recovery) -> list[str]:
    told = [f"had the device let go of the processes of {step}" for step in result.released]
    told += [f"ended {name} (process {identity.pid})" for identity, name in result.ended.items()]
    told += [f"undid {step}" for step in result.undone]
    told += [f"removed {path}" for path in result.removed]
    told += [f"FAILED: process {survivor.pid} is still there" for survivor in result.survivors]
    return told + [f"FAILED: {problem}" for problem in result.failed]


def _named(identity: ProcessIdentity) -> str:
    return f"process {identity.pid} ({command_line(identity.pid)[:60]})"
