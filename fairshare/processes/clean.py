"""Find runs that died without cleaning up, and clean up after them."""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from fairshare import assets, users
from fairshare.errors import PreflightError
from fairshare.processes.ending import end_all
from fairshare.processes.identity import ProcessIdentity
from fairshare.processes.journal import Journal, journals, load_state, stillborn
from fairshare.processes.journal_state import JournalError, JournalState
from fairshare.processes.labelled import JOURNAL_LABEL, RUN_LABEL, labels, owner_of
from fairshare.processes.locks import existing, holder_of, remove_free, user_name
from fairshare.processes.recovery import GRACE_S, Recovery, members, recover
from fairshare.processes.segments import SHM
from fairshare.processes.segments import existing as existing_segments
from fairshare.processes.table import command_line, namespace_of, user_of

FAILED = "FAILED: "
_LOCK_WAIT_S = 15.0


@dataclass(frozen=True, slots=True)
class DeadRun:
    """A run whose owner is gone.

    Without a journal only its labelled processes are known. ``problem`` says why its journal
    cannot be understood; then its owner is known only if a process of it still runs. ``elsewhere``
    is its journal in another state folder, with which alone it is cleaned up after.
    """

    run_id: str
    owner: ProcessIdentity | None
    uid: int
    journal: Path | None = None
    processes: tuple[ProcessIdentity, ...] = ()
    problem: str | None = None
    elsewhere: Path | None = None

    @property
    def is_ours(self) -> bool:
        """Whether to clean up after it; another user's or folder's is told of and left alone."""
        return self.journal is not None or (users.is_ours(self.uid) and self.elsewhere is None)

    @property
    def remedy(self) -> str:
        """The command that cleans up after it."""
        who = "" if users.is_ours(self.uid) else f"sudo -u {user_name(self.uid)} "
        where = f"FAIRSHARE_STATE_DIR={self.elsewhere.parent.parent} " if self.elsewhere else ""
        return f"{who}{where}fairshare clean"


@users.as_root()
def find_dead_runs() -> list[DeadRun]:
    """Every run of this user on this host that is over and left something behind.

    A journal left by another host (a shared home folder) is not judged here.
    """
    if found := journals():
        assets.state_dir()  # for its checks: what the journals name is run
    journaled = [run for path in found if (run := _journaled(path)) is not None]
    known = {run.run_id for run in journaled}
    return journaled + [run for run in _unjournaled() if run.is_ours and run.run_id not in known]


@users.as_root()
def dead_runs_of_others() -> list[DeadRun]:
    """Runs that are over and whose processes still run, of other users or other state folders."""
    known = {path.stem for path in journals()}
    return [run for run in _unjournaled() if not run.is_ours and run.run_id not in known]


@users.as_root()
def undo(run: DeadRun, dry_run: bool) -> list[str]:
    """Clean up after a dead run; one sentence per thing done (or, dry, that would be done).

    What could not be undone begins with `FAILED`.

    Raises:
        PreflightError: the run lives, is another user's, or another process cleans up after it.
    """
    if run.owner is not None and run.owner.alive():
        raise PreflightError(
            f"run {run.run_id} is alive (process {run.owner.pid}); it was left alone"
        )
    if not run.is_ours:
        raise PreflightError(
            f"run {run.run_id} is {user_name(run.uid)}'s; it was left alone", hint=run.remedy
        )
    if run.journal is None or run.problem is not None:
        told = _end_unjournaled(run, dry_run)
        return told if run.problem is None else [*told, FAILED + _unreadable(run)]
    if dry_run:
        state = load_state(run.journal)
        return [] if state is None else _would_do(state, run.journal)
    journal = _lock(run.journal, run.run_id)
    if journal is None:
        return []
    try:
        # Read under the lock: somebody may have undone a part in between.
        return _told(recover(journal, journal.state()))
    except JournalError as error:
        return [f"{FAILED}{run.journal}: {error}"]
    finally:
        journal.close()


def remove_free_locks(dry_run: bool) -> list[str]:
    """Remove lock files of this user that nobody holds; one sentence each."""
    if dry_run:
        free = [path for path in existing() if _is_free(path)]
        return [f"would remove {path}" for path in free]
    return [f"removed {path}" for path in existing() if _is_free(path) and remove_free(path)]


@users.as_root()
def remove_stillborn(dry_run: bool) -> list[str]:
    """Remove journals of runs that were killed before they had begun one; one sentence each."""
    if dry_run:
        return [f"would remove {path}" for path in stillborn()]
    told = []
    for path in stillborn():
        path.unlink(missing_ok=True)
        told.append(f"removed {path}")
    return told


def _is_free(path: Path) -> bool:
    return users.is_ours(path.lstat().st_uid) and holder_of(path) is None


def _journaled(path: Path) -> DeadRun | None:
    """The run of a journal, if it is over."""
    try:
        state = load_state(path)
    except JournalError as error:
        return _damaged(path, error.message)
    if state is None or state.header.host != os.uname().nodename:
        return None
    header = state.header
    if header.namespace == namespace_of():
        if header.owner.alive():
            return None
    elif not _can_be_locked(path):  # its pids mean nothing here, but its lock does
        return None
    found = tuple(members(header.run_id, header.uid, state.processes))
    return DeadRun(header.run_id, header.owner, header.uid, path, found)


def _damaged(path: Path, problem: str) -> DeadRun | None:
    """What can still be said of a run whose journal cannot be understood."""
    if path.is_symlink() or not path.is_file() or not _can_be_locked(path):
        return None
    run_id, uid, owner = path.stem, os.getuid(), None
    for identity, carried in labels().items():
        user, named = user_of(identity.pid), owner_of(carried)
        if carried[RUN_LABEL] != run_id or named is None or user is None:
            continue
        if users.is_ours(user):
            uid, owner = user, named
            if owner.alive():
                return None
    found = tuple(members(run_id, uid)) if owner else ()
    return DeadRun(run_id, owner, uid, path, found, problem)


def _can_be_locked(path: Path) -> bool:
    journal = Journal.lock(path)
    if journal is not None:
        journal.close()
    return journal is not None


def _unjournaled() -> list[DeadRun]:
    """Labelled processes whose owner is known and gone, by user: anybody can forge a label."""
    found: dict[tuple[str, ProcessIdentity, int], list[ProcessIdentity]] = {}
    elsewhere: dict[str, Path] = {}
    alive: set[str] = set()
    for identity, carried in labels().items():
        owner, uid = owner_of(carried), user_of(identity.pid)
        if owner is None or uid is None:
            continue
        if owner.alive():
            alive.add(carried[RUN_LABEL])
        else:
            journal = Path(carried.get(JOURNAL_LABEL) or os.devnull)
            if journal.is_file():
                elsewhere[carried[RUN_LABEL]] = journal
            found.setdefault((carried[RUN_LABEL], owner, uid), []).append(identity)
    return [
        DeadRun(run_id, owner, uid, processes=tuple(identities), elsewhere=elsewhere.get(run_id))
        for (run_id, owner, uid), identities in found.items()
        if run_id not in alive
    ]


def _end_unjournaled(run: DeadRun, dry_run: bool) -> list[str]:
    if dry_run:
        return [f"would end {_named(identity)}" for identity in run.processes]
    if not run.processes:
        return []
    ended: dict[ProcessIdentity, str] = {}

    def find() -> list[ProcessIdentity]:
        found = members(run.run_id, run.uid)
        ended.update({identity: _named(identity) for identity in found if identity not in ended})
        return list(found)

    survivors = end_all(find, GRACE_S, lambda _event, _identities: None)
    told = [f"ended {name}" for identity, name in ended.items() if identity not in survivors]
    return told + [f"{FAILED}{ended[identity]} is still there" for identity in survivors]


def _unreadable(run: DeadRun) -> str:
    return (
        f"the journal {run.journal} cannot be understood: {run.problem}. Whatever it would undo "
        "may be left: look at the device (nvidia-smi), then remove the file"
    )


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


def _would_do(state: JournalState, path: Path) -> list[str]:
    header = state.header
    found = members(header.run_id, header.uid, state.processes)
    steps = sorted(state.pending.values(), key=lambda step: -step.number)
    told = [
        f"would have the device let go of the processes of {step.name}: {shlex.join(argv)}"
        for step in state.pending.values()
        for argv in (step.release if found else ())
    ]
    told += [f"would end {_named(each)}" for each in found]
    told += [f"would undo {s.name}: {shlex.join(argv)}" for s in steps for argv in s.commands]
    gone = [header.private_dir] if header.private_dir.exists() else []
    gone += [SHM / segment.name for segment in sorted(state.segments & existing_segments())]
    gone += [header.lock] if header.lock is not None and header.lock.exists() else []
    told += [f"would remove {each}" for each in gone]
    if state.damaged:
        told.append(f"{FAILED}line {', '.join(map(str, state.damaged))} of {path} cannot be read")
    return [*told, f"would remove {path}"] if not state.damaged else told


def _told(result: Recovery) -> list[str]:
    told = [f"had the device let go of the processes of {step}" for step in result.released]
    told += [f"ended {name} (process {identity.pid})" for identity, name in result.ended.items()]
    told += [f"undid {step}" for step in result.undone]
    told += [f"removed {path}" for path in result.removed]
    told += [f"{FAILED}process {survivor.pid} is still there" for survivor in result.survivors]
    return told + [f"{FAILED}{problem}" for problem in result.failed]


def _named(identity: ProcessIdentity) -> str:
    return f"process {identity.pid} ({command_line(identity.pid)[:60]})"
