"""What a run has changed and how to undo it, on disk before it is changed.

One JSON line each, in ``<state dir>/runs/<run id>.jsonl``::

    {"kind": "run", ...}                                who owns the run and what it made
    {"kind": "intend", "n": 1, "step": ..., "undo": [[argv], ...], "env": {...},
                       "release": [[argv], ...]}
    {"kind": "done", "n": 1}                            nothing of step 1 is left to undo
    {"kind": "undone", "n": 1, "commands": 2}           so many of its commands succeeded
    {"kind": "process", "pid": ..., "start_ticks": ..., "boot_id": ...}
    {"kind": "segments", "segments": [[name, inode], ...]}

Whoever writes to a journal holds its lock (``flock``): the run while it lives, then whoever cleans
up after it. The lock falls with its holder, so a journal that can be locked has no live run.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairshare import assets, users
from fairshare.errors import FairshareError
from fairshare.processes.identity import ProcessIdentity
from fairshare.processes.segments import Segment

FORMAT_VERSION = 1
_STILLBORN_AFTER_S = 3600.0


@users.as_root()
def runs_dir() -> Path:
    """Where the journals of running experiments lie, 0700."""
    path = assets.state_dir().resolve() / "runs"
    path.mkdir(exist_ok=True, mode=0o700)
    return path


@dataclass(frozen=True, slots=True)
class RunHeader:
    """The first line: whose run this is, what was there before it, and which files it made.

    ``lock`` is the file with which it holds its device, if it holds one.
    """

    run_id: str
    owner: ProcessIdentity
    host: str
    private_dir: Path
    segments_before: frozenset[Segment] = frozenset()
    lock: Path | None = None


@dataclass(slots=True)
class Step:
    """An intended change that is not known to be undone, and the commands that undo it."""

    number: int
    name: str
    undo: list[list[str]]
    env: dict[str, str]
    release: list[list[str]] = field(default_factory=list)
    commands_undone: int = 0


@dataclass(slots=True)
class JournalState:
    """What a journal says after its last whole line."""

    header: RunHeader
    pending: dict[int, Step] = field(default_factory=dict)
    processes: list[ProcessIdentity] = field(default_factory=list)
    segments: set[Segment] = field(default_factory=set)


class Journal:
    """An open, locked journal. Every line is on the disk before the call returns."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._numbers = itertools.count(1)

    @classmethod
    @users.as_root()
    def create(cls, header: RunHeader) -> Journal:
        """Begin the journal of a new run; it appears under its name with its first line in it.

        Raises:
            FairshareError: the state folder cannot be written.
        """
        path = runs_dir() / f"{header.run_id}.jsonl"
        hidden = path.with_name(f".{path.name}.new")
        _forget_stillborn(path.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW
        try:
            journal = cls(path, os.open(hidden, flags, 0o600))
            fcntl.flock(journal._descriptor, fcntl.LOCK_EX)
            journal._write(kind="run", format_version=FORMAT_VERSION, **_header_fields(header))
            hidden.rename(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise FairshareError(
                f"cannot write the journal of this run: {error}",
                hint="FAIRSHARE_STATE_DIR names another folder for it",
            ) from error
        return journal

    @classmethod
    @users.as_root()
    def lock(cls, path: Path) -> Journal | None:
        """Open a dead run's journal to clean up after it; None if it is held or gone."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == path.lstat().st_ino:
                return cls(path, descriptor)
        except OSError:
            pass
        os.close(descriptor)
        return None

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
        """
        number = next(self._numbers)
        self._write(
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
        self._write(kind="done", n=number)

    def undone(self, number: int, commands: int) -> None:
        """Record how many of a step's undo commands have succeeded."""
        self._write(kind="undone", n=number, commands=commands)

    def add_process(self, identity: ProcessIdentity) -> None:
        """Record a process that leads a session of ours."""
        self._write(
            kind="process",
            pid=identity.pid,
            start_ticks=identity.start_ticks,
            boot_id=identity.boot_id,
        )

    def add_segments(self, segments: Iterable[Segment]) -> None:
        """Record shared-memory segments that our processes made."""
        rows = [[segment.name, segment.inode] for segment in sorted(segments)]
        if rows:
            self._write(kind="segments", segments=rows)

    def state(self) -> JournalState | None:
        """What this journal says now; None where it cannot be understood."""
        return read_state(self.path)

    @users.as_root()
    def remove(self) -> None:
        """Delete the journal: nothing is left to clean up."""
        self.path.unlink(missing_ok=True)
        _sync_folder(self.path.parent)

    def close(self) -> None:
        """Let go of the lock; what is still in the journal is for a later clean-up."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, **line: Any) -> None:
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")
        os.fsync(self._descriptor)


@users.as_root()
def read_state(path: Path) -> JournalState | None:
    """What a journal says; None where it is gone, another user's, or not one of this version."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return None
            # A line without its end was being written when the writer died: it never took effect.
            lines = [json.loads(line) for line in file if line.endswith(b"\n")]
        if not lines or lines[0].get("format_version") != FORMAT_VERSION:
            return None
        state = JournalState(_parse_header(lines[0]))
        for line in lines[1:]:
            _apply(line, state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return state


def _apply(line: Mapping[str, Any], state: JournalState) -> None:
    match line["kind"]:
        case "intend":
            state.pending[line["n"]] = Step(
                number=line["n"],
                name=line["step"],
                undo=[list(argv) for argv in line["undo"]],
                env=dict(line["env"]),
                release=[list(argv) for argv in line.get("release", ())],
            )
        case "done":
            state.pending.pop(line["n"], None)
        case "undone":
            state.pending[line["n"]].commands_undone = line["commands"]
        case "process":
            state.processes.append(
                ProcessIdentity(line["pid"], line["start_ticks"], line["boot_id"])
            )
        case "segments":
            state.segments |= {Segment(name, inode) for name, inode in line["segments"]}


def _header_fields(header: RunHeader) -> dict[str, Any]:
    owner = header.owner
    return {
        "run_id": header.run_id,
        "owner": {"pid": owner.pid, "start_ticks": owner.start_ticks, "boot_id": owner.boot_id},
        "host": header.host,
        "private_dir": str(header.private_dir),
        "segments_before": [[each.name, each.inode] for each in sorted(header.segments_before)],
        "lock": None if header.lock is None else str(header.lock),
    }


def _parse_header(line: Mapping[str, Any]) -> RunHeader:
    owner = ProcessIdentity(**line["owner"])
    before = frozenset(Segment(name, inode) for name, inode in line["segments_before"])
    lock = None if line["lock"] is None else Path(line["lock"])
    private_dir = Path(line["private_dir"])
    return RunHeader(line["run_id"], owner, line["host"], private_dir, before, lock)


def _forget_stillborn(folder: Path) -> None:
    """Remove what is left of runs that were killed before their journal had its name."""
    for path in folder.glob(".*.jsonl.new"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STILLBORN_AFTER_S:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
