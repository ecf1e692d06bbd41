"""What a run has changed and how to undo it, on disk before it is changed.

One JSON line each, in ``<state dir>/runs/<run id>.jsonl``::

    {"kind": "run", ...}                                who owns the run and what it made
    {"kind": "intend", "n": 1, "step": ..., "undo": [[argv], ...], "env": {...},
                       "release": [[argv], ...]}
    {"kind": "done", "n": 1}                            nothing of step 1 is left to undo
    {"kind": "undone", "n": 1, "commands": 2}           so many of its commands succeeded
    {"kind": "process", "pid": ..., "start_ticks": ..., "boot_id": ...}
    {"kind": "segments", "segments": [[name, inode], ...]}
    {"kind": "closed"}                                  nothing at all is left

Whoever writes to a journal holds its lock (``flock``): the run while it lives, then whoever cleans
up after it, and the command that undoes a change. The lock falls with its last holder, so a journal
that can be locked has no live run. The writer remembers what it wrote: the journal may be lost or
full while its run goes on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairshare import assets, users
from fairshare.errors import FairshareError, StoppedEarlyError
from fairshare.processes.identity import ProcessIdentity, boot_id
from fairshare.processes.journal_state import (
    FORMAT_VERSION,
    JournalError,
    JournalState,
    RunHeader,
    header_fields,
    parse,
)
from fairshare.processes.segments import Segment

# A journal before its first line: its run and, in case that dies, its run's owner.
_HIDDEN = re.compile(r"\..+\.(\d+)\.(\d+)\.new")
_FULL = (errno.ENOSPC, errno.EDQUOT)


@users.as_root()
def runs_dir() -> Path:
    """Where the journals of running experiments lie, 0700."""
    path = assets.state_dir().resolve() / "runs"
    path.mkdir(exist_ok=True, mode=0o700)
    return path


@users.as_root()
def journals() -> list[Path]:
    """The journals that there are; makes nothing."""
    return sorted((assets.state_path() / "runs").glob("*.jsonl"))


def journal_path(run_id: str) -> Path:
    """Where the journal of a run lies, once it has begun."""
    return runs_dir() / f"{run_id}.jsonl"


class Journal:
    """An open journal. Every line is on the disk before the call returns."""

    def __init__(self, path: Path, descriptor: int, state: JournalState | None = None) -> None:
        self.path = path
        self._descriptor = descriptor
        self._state = state
        self._numbers = itertools.count(1)

    @classmethod
    @users.as_root()
    def create(cls, header: RunHeader) -> Journal:
        """Begin the journal of a new run; it appears under its name with its first line in it.

        Raises:
            StoppedEarlyError: no space is left for it.
            FairshareError: the state folder cannot be written.
        """
        path = journal_path(header.run_id)
        owner = header.owner
        hidden = path.with_name(f".{path.stem}.{owner.pid}.{owner.start_ticks}.new")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW
        try:
            journal = cls(path, os.open(hidden, flags, 0o600), JournalState(header))
            fcntl.flock(journal._descriptor, fcntl.LOCK_EX)
            journal._write(kind="run", format_version=FORMAT_VERSION, **header_fields(header))
            hidden.rename(path)
            _sync_folder(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                hidden.unlink()
            raise _unwritable(path, error) from error
        return journal

    @classmethod
    @users.as_root()
    def open(cls, path: Path) -> Journal | None:
        """Open a journal that may be locked later; None if it is gone or not ours."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        if os.fstat(descriptor).st_uid == os.geteuid():
            return cls(path, descriptor)
        os.close(descriptor)
        return None

    @classmethod
    @users.as_root()
    def lock(cls, path: Path) -> Journal | None:
        """Open a dead run's journal to clean up after it; None if it is held or gone."""
        journal = cls.open(path)
        if journal is None:
            return None
        with contextlib.suppress(OSError):
            named = os.path.samestat(os.fstat(journal._descriptor), path.lstat())
            if named and journal.try_lock():
                return journal
        journal.close()
        return None

    @property
    def descriptor(self) -> int:
        """The open file that holds the lock, with every process that inherits it."""
        return self._descriptor

    def try_lock(self) -> bool:
        """Hold the journal if nobody else does."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def intend(
        self,
        step: str,
        undo: Sequence[Sequence[str]] = (),
        env: Mapping[str, str] | None = None,
        release: Sequence[Sequence[str]] = (),
    ) -> int:
        """Record, before it is made, a change and the commands that undo it; return its number.

        Should the run die, the commands run in order, those of the last step first, with ``env``
        added to their environment. Each must do no harm where its change was never made. The
        commands of ``release`` run first of all, before any process of the run is ended: they let
        the device go of processes that it would be harmful to kill. They have a few seconds.

        Raises:
            StoppedEarlyError: it cannot be recorded, so the change must not be made.
        """
        number = next(self._numbers)
        self._record(
            kind="intend",
            n=number,
            step=step,
            undo=[list(argv) for argv in undo],
            env=dict(env or {}),
            release=[list(argv) for argv in release],
        )
        return number

    def done(self, number: int) -> None:
        """Record that nothing of a step is left to undo."""
        self._note(kind="done", n=number)

    def undone(self, number: int, commands: int) -> None:
        """Record how many of a step's undo commands have succeeded."""
        self._note(kind="undone", n=number, commands=commands)

    def add_process(self, identity: ProcessIdentity) -> None:
        """Record a process that leads a session of ours.

        Raises:
            StoppedEarlyError: it cannot be recorded.
        """
        self._record(
            kind="process",
            pid=identity.pid,
            start_ticks=identity.start_ticks,
            boot_id=identity.boot_id,
        )

    def add_segments(self, segments: Iterable[Segment]) -> None:
        """Record shared-memory segments that our processes made."""
        rows = [[segment.name, segment.inode] for segment in sorted(segments)]
        if rows:
            self._note(kind="segments", segments=rows)

    def state(self) -> JournalState:
        """What the journal says: of our own what we wrote, of another's what is in it.

        Raises:
            JournalError: it cannot be understood.
        """
        if self._state is None:
            self._state = parse(_content(self._descriptor))
        return self._state

    @users.as_root()
    def remove(self) -> None:
        """Delete the journal: nothing is left to clean up."""
        self._note(kind="closed")
        with contextlib.suppress(OSError):  # somebody may have removed it, with all its folders
            self.path.unlink(missing_ok=True)
            _sync_folder(self.path.parent)

    def close(self) -> None:
        """Let go of the lock; what is still in the journal is for a later clean-up."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _record(self, **line: Any) -> None:
        """Write a line that must be on the disk before anything is done."""
        try:
            self._write(**line)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self.state().apply(line)

    def _note(self, **line: Any) -> None:
        """Write a line whose loss only means that something is undone a second time."""
        with contextlib.suppress(OSError):
            self._write(**line)
        with contextlib.suppress(JournalError):
            self.state().apply(line)

    def _write(self, **line: Any) -> None:
        data = json.dumps(line).encode() + b"\n"
        size = os.fstat(self._descriptor).st_size
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError:
            # Half a line would spoil the next one.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise


@users.as_root()
def load_state(path: Path) -> JournalState | None:
    """What a journal says; None where there is none, or one of another user.

    Raises:
        JournalError: it cannot be understood, and why.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(f"it cannot be opened: {error.strerror}") from None
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            return None
        return parse(_content(descriptor))
    except OSError as error:
        raise JournalError(f"it cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)


def read_state(path: Path) -> JournalState | None:
    """What a journal says; None where it is gone, another user's, or not to be understood."""
    try:
        return load_state(path)
    except JournalError:
        return None


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _unwritable(path: Path, error: OSError) -> FairshareError:
    if error.errno in _FULL:
        return StoppedEarlyError(
            f"no space left to journal a change in {path}, so it was not made",
            hint="free some space, then run the same command with --resume; or "
            "FAIRSHARE_STATE_DIR names another folder",
        )
    problem = f"cannot write the journal of this run, {path}: {error.strerror or error}"
    return StoppedEarlyError(problem, hint="FAIRSHARE_STATE_DIR names another folder for it")


@users.as_root()
def stillborn() -> list[Path]:
    """What is left of runs that were killed before their journal had its name."""
    found = []
    for path in sorted((assets.state_path() / "runs").glob(".*.new")):
        named = _HIDDEN.fullmatch(path.name)
        if named and not ProcessIdentity(int(named[1]), int(named[2]), boot_id()).alive():
            found.append(path)
    return found


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
