"""Our own folders: usable, free of what killed runs left behind, and the device not held."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fairshare import assets, users
from fairshare.doctor.finding import Finding, fail, ok, warn
from fairshare.doctor.folders import existing, free_bytes
from fairshare.doctor.intent import Intent
from fairshare.errors import PreflightError
from fairshare.processes import locks
from fairshare.processes.journal import read_state
from fairshare.processes.labelled import RUN_LABEL, labels, owner_of
from fairshare.sharing.lease import lock_path

_JOURNAL_BYTES = 1024**2


@dataclass(frozen=True, slots=True)
class StateFacts:
    """What lies in the state folder.

    ``problem`` says why it cannot be used; ``dead`` are runs that are over and have left something,
    ``unreadable`` journals that nobody can act upon; ``holder`` is another run on the device.
    """

    folder: Path
    problem: str | None = None
    remedy: str = ""
    free_bytes: int | None = None
    dead: tuple[str, ...] = ()
    unreadable: tuple[Path, ...] = ()
    lock_problem: str | None = None
    holder: locks.Holder | None = None


def gather(intent: Intent) -> StateFacts:
    """Look at the state folder, without making it, and at processes that carry our label."""
    folder = assets.state_path()
    problem, remedy = _problem(folder)
    lock_problem, holder = _lock(intent)
    if problem is not None:
        return StateFacts(folder, problem, remedy, lock_problem=lock_problem, holder=holder)
    dead = set(_dead_by_label())
    unreadable = []
    for path in _journals(folder / "runs"):
        state = read_state(path)
        if state is None:
            unreadable += [path] if path.exists() else []
        elif state.header.host == os.uname().nodename and not state.header.owner.alive():
            dead.add(state.header.run_id)
    free = free_bytes(existing(folder))
    return StateFacts(
        folder,
        free_bytes=free,
        dead=tuple(sorted(dead)),
        unreadable=tuple(unreadable),
        lock_problem=lock_problem,
        holder=holder,
    )


def check(facts: StateFacts, intent: Intent) -> Iterator[Finding]:
    """What the state means for the run."""
    yield _check_lock(facts, intent)
    if facts.problem is not None:
        yield fail("state folder", facts.problem, facts.remedy)
        return
    if facts.free_bytes is not None and facts.free_bytes < _JOURNAL_BYTES:
        says = f"the disk of {facts.folder} is full: changes could not be journaled"
        yield fail("state folder", says, "make room, or FAIRSHARE_STATE_DIR names another folder")
    else:
        yield ok("state folder", str(facts.folder))
    if facts.dead:
        says = f"something is left of killed runs: {', '.join(facts.dead)}"
        yield warn("killed runs", says, "fairshare clean (--dry-run shows what it would do)")
    else:
        yield ok("killed runs", "none has left anything")
    if facts.unreadable:
        said = ", ".join(path.name for path in facts.unreadable)
        says = f"journals that cannot be read, so what they tell cannot be undone: {said}"
        remove = f"read them, put back by hand, then rm {shlex.join(map(str, facts.unreadable))}"
        yield warn("journals", says, remove)


def _journals(folder: Path) -> list[Path]:
    """None where only root may look: a run under sudo has undone dead runs before it asks."""
    return sorted(folder.glob("*.jsonl")) if os.access(folder, os.R_OK | os.X_OK) else []


def _check_lock(facts: StateFacts, intent: Intent) -> Finding:
    name = "device lock"
    if facts.lock_problem is not None:
        return fail(name, facts.lock_problem, "FAIRSHARE_LOCK_DIR names another folder for locks")
    if facts.holder is not None:
        held = intent.device.id if intent.device else intent.kind.value
        wait = "wait for it, or stop it; fairshare status shows who holds what"
        return fail(name, f"another run holds {held}: {facts.holder}", wait)
    return ok(name, "no other run holds the device")


def _lock(intent: Intent) -> tuple[str | None, locks.Holder | None]:
    """Why locks cannot be used, and which other run holds the device."""
    named = os.environ.get("FAIRSHARE_LOCK_DIR")
    if intent.device is None or (named and not Path(named).expanduser().exists()):
        return None, None  # it would be made
    try:
        holder = locks.holder_of(lock_path(intent.device, intent.driver))
    except PreflightError as error:
        return error.message, None
    return None, None if holder is None or holder.pid == os.getpid() else holder


def _problem(folder: Path) -> tuple[str | None, str]:
    """Why the folder cannot be used, and the remedy."""
    remedy = "FAIRSHARE_STATE_DIR names another folder"
    try:
        if os.path.lexists(folder):
            assets.check_private(folder, "FAIRSHARE_STATE_DIR")
    except PreflightError as error:
        return error.message, error.hint or remedy
    above = existing(folder)
    if not above.is_dir():
        return f"{above} is not a folder", remedy
    if not users.has_root() and not os.access(above, os.W_OK | os.X_OK):
        return f"{folder} cannot be written", remedy
    return None, ""


def _dead_by_label() -> Iterator[str]:
    """Runs of which only processes are left."""
    for carried in labels().values():
        owner = owner_of(carried)
        if owner is not None and not owner.alive():
            yield carried[RUN_LABEL]
