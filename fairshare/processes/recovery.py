"""Clean up after one run, from its journal: the same steps at its end, after its death, and later.

Order: have the device let go of its processes, end them, undo its changes (the last first), remove
its private folder, its shared memory and its device's lock. The caller holds the journal's lock, so
that no two do it at once.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fairshare import users
from fairshare.processes import locks
from fairshare.processes.ending import end_all, reap
from fairshare.processes.identity import ProcessIdentity, boot_id, identity_of
from fairshare.processes.journal import Journal
from fairshare.processes.journal_state import JournalState, RunHeader, Step
from fairshare.processes.labelled import LABELS, labelled
from fairshare.processes.segments import SHM, held_by, remove_unheld
from fairshare.processes.table import snapshot, user_of, with_descendants

GRACE_S = 2.0
_RELEASE_S = 2.0
_UNDO_TIMEOUT_S = 60.0
MARKER = ".fairshare-run"


@dataclass(slots=True)
class Recovery:
    """What was found and done; ``failed`` and ``survivors`` are empty when nothing is left."""

    ended: dict[ProcessIdentity, str] = field(default_factory=dict)
    survivors: list[ProcessIdentity] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing of the run is left."""
        return not self.failed and not self.survivors


def members(
    run_id: str, uid: int, leaders: Iterable[ProcessIdentity] = ()
) -> dict[ProcessIdentity, str]:
    """A run's processes and their names: labelled, in a session of its leaders, or below those.

    A label counts only on a process of the run's own user: anybody can put it on theirs. A session
    counts only while its leader lives, since only then is its number certainly ours.
    """
    table = snapshot()
    sessions = {leader.pid for leader in leaders if leader.alive()}
    roots = {each.pid for each in labelled(run_id) if user_of(each.pid) == uid}
    roots |= {row.pid for row in table.values() if row.session in sessions}
    ours = with_descendants(table, roots) - {os.getpid()}
    return {identity_of(table[pid]): table[pid].name for pid in ours if not table[pid].ended}


@users.as_root()
def recover(journal: Journal, state: JournalState, grace_s: float = GRACE_S) -> Recovery:
    """Do all that is left to do for a run; blocks. The journal stays where something failed.

    ``state`` is the journal's own.
    """
    result = Recovery()
    # The files of an earlier boot are gone, and their inodes may be somebody else's now.
    this_boot = state.header.owner.boot_id == boot_id()
    segments = set(state.segments) if this_boot else set()
    run_id = state.header.run_id

    def find() -> list[ProcessIdentity]:
        # Who was seen once stays ours, also when what it was told by has ended.
        seen = {each: name for each, name in result.ended.items() if each.alive()}
        found = seen | members(run_id, state.header.uid, state.processes)
        result.ended.update(found)
        held = held_by(identity.pid for identity in found)
        segments.update(held - state.header.segments_before)
        return list(found)

    steps = [step for step in state.pending.values() if step.release]
    if steps and find():
        _release(journal, steps, result)
    result.survivors = end_all(find, grace_s, lambda _event, _identities: None)
    reap(identity.pid for identity in result.ended if identity not in state.processes)
    _undo_all(journal, state.pending.values(), result)
    _remove_private_dir(state.header, result)
    result.removed += [str(SHM / name) for name in remove_unheld(segments, state.header.uid)]
    lock = state.header.lock
    if lock is not None and locks.remove_free(lock):
        result.removed.append(str(lock))
    for survivor in result.survivors:
        result.ended.pop(survivor, None)
    if state.damaged:
        result.failed.append(_damage(journal.path, state))
    if result.complete:
        journal.remove()
    return result


@users.as_root()
def put_back(journal: Journal, steps: Iterable[Step]) -> Recovery:
    """Undo changes of a run that goes on, the last first; blocks. Who used them has ended."""
    result = Recovery()
    _undo_all(journal, steps, result)
    return result


def _undo_all(journal: Journal, steps: Iterable[Step], result: Recovery) -> None:
    for step in sorted(steps, key=lambda step: -step.number):
        _undo(journal, step, result)


def _damage(path: Path, state: JournalState) -> str:
    return (
        f"line {', '.join(map(str, state.damaged))} of {path} cannot be read, so a change may be "
        "left: look at the device (nvidia-smi), then remove the file"
    )


def _release(journal: Journal, steps: Iterable[Step], result: Recovery) -> None:
    """Run the release commands within a limit; whatever comes of it, the processes end next."""
    deadline_s = time.monotonic() + _RELEASE_S
    for step in steps:
        for argv in step.release:
            left_s = deadline_s - time.monotonic()
            if left_s > 0 and _run(journal, argv, step.env, left_s) is None:
                result.released.append(step.name)


def _undo(journal: Journal, step: Step, result: Recovery) -> None:
    for index in range(step.commands_undone, len(step.undo)):
        problem = _run(journal, step.undo[index], step.env, _UNDO_TIMEOUT_S)
        if problem is not None:
            result.failed.append(f"{step.name}: {shlex.join(step.undo[index])}: {problem}")
            return
        journal.undone(step.number, index + 1)
    journal.done(step.number)
    if step.undo:
        result.undone.append(step.name)


def _run(journal: Journal, argv: list[str], env: Mapping[str, str], timeout_s: float) -> str | None:
    """Run one command outside the run; return what went wrong, None if nothing did.

    It holds the journal's lock with us, and after us should we be killed: nobody cleans up after
    the run, and no new one begins, beside a command that is still at work.
    """
    own = {name: value for name, value in os.environ.items() if name not in LABELS}
    try:
        process = subprocess.Popen(
            argv,
            env=own | dict(env),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[journal.descriptor],
            **users.root_ids(),
        )
    except OSError as error:
        return str(error)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        # All of it: a program that hangs was mostly started by the one that we know.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return f"did not end within {timeout_s:.3g} s"
    finally:
        if process.stdout is not None:
            process.stdout.close()
    if process.returncode == 0:
        return None
    last = output.decode(errors="replace").strip().splitlines()[-1:]
    return f"exit code {process.returncode}{''.join(f': {line}' for line in last)}"


def _remove_private_dir(header: RunHeader, result: Recovery) -> None:
    """Remove it if the run's own user made it, whoever cleans up: root may do so at boot."""
    folder = header.private_dir
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == header.uid
    if not ours or not _is_marked(folder, header.run_id):
        result.failed.append(f"{folder} is not the folder this run made; it was left alone")
        return
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        result.failed.append(f"{folder} could not be removed")
    else:
        result.removed.append(str(folder))


def _is_marked(folder: Path, run_id: str) -> bool:
    """Whether the folder carries the run's mark, or died before it got one."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / MARKER).read_text(encoding="ascii") == run_id
    return not any(folder.iterdir())
