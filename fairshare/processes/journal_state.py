"""What a journal says: whose run it is, which changes are open, and what cannot be read of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairshare.errors import FairshareError
from fairshare.processes.identity import ProcessIdentity
from fairshare.processes.segments import Segment

FORMAT_VERSION = 2


class JournalError(FairshareError):
    """A journal cannot be understood: not even whose run it is."""


@dataclass(frozen=True, slots=True)
class RunHeader:
    """The first line: whose run this is, what was there before it, and which files it made.

    ``uid`` is the user whom its processes belong to, ``namespace`` the kernel's name of the process
    table in which its pids mean something; ``lock`` is the file with which it holds its device.
    """

    run_id: str
    owner: ProcessIdentity
    host: str
    private_dir: Path
    segments_before: frozenset[Segment] = frozenset()
    lock: Path | None = None
    uid: int = 0
    namespace: str = ""


@dataclass(slots=True)
class Step:
    """An intended change that is not known to be undone, and the commands that undo it."""

    number: int
    name: str
    undo: list[list[str]]
    env: dict[str, str]
    release: list[list[str]] = field(default_factory=list)
    commands_undone: int = 0

    @property
    def commands(self) -> list[list[str]]:
        """What is left to do of it."""
        return self.undo[self.commands_undone :]


@dataclass(slots=True)
class JournalState:
    """What a journal says after its last whole line.

    ``damaged`` are the numbers of lines that cannot be read; ``closed`` says that its run has
    nothing left to clean up.
    """

    header: RunHeader
    pending: dict[int, Step] = field(default_factory=dict)
    processes: list[ProcessIdentity] = field(default_factory=list)
    segments: set[Segment] = field(default_factory=set)
    damaged: list[int] = field(default_factory=list)
    closed: bool = False

    def apply(self, line: Mapping[str, Any]) -> None:
        """Take in one more line."""
        match line["kind"]:
            case "intend":
                self.pending[line["n"]] = _step(line)
            case "done":
                self.pending.pop(line["n"], None)
            case "undone":
                if line["n"] in self.pending:  # else its line is damaged, and listed as that
                    self.pending[line["n"]].commands_undone = int(line["commands"])
            case "process":
                self.processes.append(_identity(line))
            case "segments":
                self.segments |= {Segment(name, inode) for name, inode in line["segments"]}
            case "closed":
                self.closed = True
            case _:
                raise ValueError(f"unknown kind {line['kind']!r}")


def parse(content: bytes) -> JournalState:
    """What a journal says.

    Raises:
        JournalError: its first line cannot be understood, and why.
    """
    # A line without its end was being written when the writer died: it never took effect.
    lines = [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
    if not lines:
        raise JournalError("its first line is damaged" if content else "it is empty")
    try:
        first = json.loads(lines[0])
        version = first["format_version"]
        if version == FORMAT_VERSION:
            state = JournalState(_parse_header(first))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise JournalError("its first line is damaged") from None
    if version != FORMAT_VERSION:
        raise JournalError(f"another version of fairshare wrote it (format {version!r})")
    for number, line in enumerate(lines[1:], start=2):
        try:
            state.apply(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            state.damaged.append(number)
    return state


def header_fields(header: RunHeader) -> dict[str, Any]:
    """A header as its line has it."""
    owner = header.owner
    return {
        "run_id": header.run_id,
        "owner": {"pid": owner.pid, "start_ticks": owner.start_ticks, "boot_id": owner.boot_id},
        "host": header.host,
        "private_dir": str(header.private_dir),
        "segments_before": [[each.name, each.inode] for each in sorted(header.segments_before)],
        "lock": None if header.lock is None else str(header.lock),
        "uid": header.uid,
        "namespace": header.namespace,
    }


def _parse_header(line: Mapping[str, Any]) -> RunHeader:
    return RunHeader(
        run_id=str(line["run_id"]),
        owner=_identity(line["owner"]),
        host=line["host"],
        private_dir=Path(line["private_dir"]),
        segments_before=frozenset(Segment(name, inode) for name, inode in line["segments_before"]),
        lock=None if line["lock"] is None else Path(line["lock"]),
        uid=int(line["uid"]),
        namespace=line["namespace"],
    )


def _identity(line: Mapping[str, Any]) -> ProcessIdentity:
    return ProcessIdentity(int(line["pid"]), int(line["start_ticks"]), str(line["boot_id"]))


def _step(line: Mapping[str, Any]) -> Step:
    return Step(
        number=line["n"],
        name=line["step"],
        undo=[list(argv) for argv in line["undo"]],
        env=dict(line["env"]),
        release=[list(argv) for argv in line["release"]],
    )
