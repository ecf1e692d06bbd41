"""What this process may use: open files, processes, disk, temporary files; and who we are."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fairshare import users
from fairshare.doctor.finding import Finding, fail, ok, warn
from fairshare.doctor.folders import existing, free_bytes
from fairshare.doctor.intent import Intent
from fairshare.processes.scope import LONGEST_TMPDIR
from fairshare.units import format_bytes

MIB = 1024**2
_STREAMS = 10_000  # as many answers at once as an open loop may have to hold
_SPARE_FILES = 256
_UNLIMITED = resource.RLIM_INFINITY


@dataclass(frozen=True, slots=True)
class LimitFacts:
    """Limits are the hard ones, since soft ones are raised; None: no limit."""

    open_files: int | None
    processes: int | None
    results: Path
    results_writable: bool
    results_free_bytes: int | None
    temporary: Path | None = None
    temporary_free_bytes: int | None = None
    uid: int = field(default_factory=os.geteuid)
    sudo_user: str | None = None


def gather(intent: Intent) -> LimitFacts:
    """Read the limits of this process; nothing is made for it."""
    results = existing(intent.folder)
    temporary = _temporary()
    return LimitFacts(
        open_files=_hard(resource.RLIMIT_NOFILE),
        processes=None if os.geteuid() == 0 else _hard(resource.RLIMIT_NPROC),
        results=intent.folder.expanduser().absolute(),
        results_writable=results.is_dir() and os.access(results, os.W_OK | os.X_OK),
        results_free_bytes=free_bytes(results),
        temporary=temporary,
        temporary_free_bytes=None if temporary is None else free_bytes(temporary),
        sudo_user=None if (behind := users.behind_sudo()) is None else behind.name,
    )


def check(facts: LimitFacts, intent: Intent) -> Iterator[Finding]:
    """What the limits mean for the run."""
    yield _check_files(facts.open_files)
    yield _check_processes(facts.processes)
    yield _check_results(facts)
    yield _check_temporary(facts)
    if intent.on_gpu:
        yield _check_user(facts)


def _check_files(limit: int | None) -> Finding:
    if limit is None or limit >= _STREAMS + _SPARE_FILES:
        held = "any number of" if limit is None else f"{limit:,}"
        return ok("open files", f"{held} open files allowed")
    raise_it = f"ulimit -Hn {2 * _STREAMS} as root, or 'nofile' in /etc/security/limits.conf"
    if limit < _SPARE_FILES:
        return fail("open files", f"only {limit} open files allowed", raise_it)
    says = f"{limit:,} open files allowed: too few for {_STREAMS:,} answers at once in an open loop"
    return warn("open files", says, raise_it)


def _check_processes(limit: int | None) -> Finding:
    if limit is None or limit >= 4096:
        return ok("processes", f"{'any number of' if limit is None else f'{limit:,}'} processes")
    raise_it = "ulimit -Hu 16384 as root, or 'nproc' in /etc/security/limits.conf"
    if limit < 64:
        return fail("processes", f"only {limit} processes and threads allowed", raise_it)
    says = f"{limit:,} processes and threads allowed: an engine has hundreds of threads"
    return warn("processes", says, raise_it)


def _check_results(facts: LimitFacts) -> Finding:
    name, folder = "disk", facts.results
    elsewhere = "choose another folder with --output-dir"
    if not facts.results_writable:
        return fail(name, f"results cannot be written: {folder}", elsewhere)
    if facts.results_free_bytes is None:
        return warn(name, f"the free space of {folder} is not told", elsewhere)
    free = f"{format_bytes(facts.results_free_bytes)} free for results in {folder}"
    if facts.results_free_bytes < 16 * MIB:
        return fail(name, f"only {free}", f"make room, or {elsewhere}")
    if facts.results_free_bytes < 1024 * MIB:
        return warn(name, f"only {free}: a long sweep may fill it", f"make room, or {elsewhere}")
    return ok(name, free)


def _check_temporary(facts: LimitFacts) -> Finding:
    name = "temporary"
    if facts.temporary is None or facts.temporary_free_bytes is None:
        return fail(name, "no folder for temporary files can be written", "export TMPDIR=/tmp")
    if facts.temporary_free_bytes < MIB:
        says = f"{facts.temporary} is full: sockets and logs of daemons lie there"
        return fail(name, says, "make room, or export TMPDIR=SHORT_FOLDER")
    length = len(os.fsencode(facts.temporary))
    if length > LONGEST_TMPDIR:
        says = f"{facts.temporary} is too long for sockets ({length} characters): /tmp is used"
        return warn(name, says, "export TMPDIR=/tmp")
    return ok(name, f"{facts.temporary}, short enough for sockets")


def _check_user(facts: LimitFacts) -> Finding:
    if facts.sudo_user:
        return ok("user", f"root for the driver; servers and MPS daemon are {facts.sudo_user}'s")
    if facts.uid != 0:
        return ok("user", f"user {facts.uid}, who also owns servers and MPS daemon")
    return ok("user", "root, who also owns servers and MPS daemon")


def _temporary() -> Path | None:
    """The folder that Python would take, found without writing into one."""
    named = [os.environ[name] for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)]
    for folder in map(Path, (*named, "/tmp", "/var/tmp", "/usr/tmp")):  # noqa: S108 - Python's own
        if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return folder.absolute()
    return None


def _hard(which: int) -> int | None:
    limit = resource.getrlimit(which)[1]
    return None if limit == _UNLIMITED else limit
