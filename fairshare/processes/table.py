"""One reading of ``/proc``: who runs, whose child and in which session each process is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One line of the process table; ``start_ticks`` counts clock ticks since boot."""

    pid: int
    ppid: int
    session: int
    start_ticks: int
    state: str
    name: str

    @property
    def ended(self) -> bool:
        """Whether only its entry is left (a zombie) or not even that."""
        return self.state in "ZXx"


def read_row(pid: int) -> ProcessRow | None:
    """The row of one process, or None if there is none (any more)."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name may hold blanks and parentheses, so the fields are counted from its last ")".
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return ProcessRow(
        pid=pid,
        ppid=int(fields[1]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
        state=fields[0],
        name=head.partition("(")[2],
    )


def all_pids() -> list[int]:
    """The pids of every process that can be seen now."""
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def snapshot() -> dict[int, ProcessRow]:
    """Every process that can be seen now, by pid."""
    rows = (read_row(pid) for pid in all_pids())
    return {row.pid: row for row in rows if row is not None}


def with_descendants(table: Mapping[int, ProcessRow], roots: Iterable[int]) -> set[int]:
    """The roots and everything below them in the tree of parents."""
    children: dict[int, list[int]] = {}
    for row in table.values():
        children.setdefault(row.ppid, []).append(row.pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in table]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def user_of(pid: int) -> int | None:
    """The real user id of a process, None if it is gone."""
    try:
        text = (_PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return next((int(line.split()[1]) for line in text.splitlines() if line[:4] == "Uid:"), None)


def namespace_of(pid: int | str = "self") -> str | None:
    """The kernel's name of the process table that a process sees; None if it does not say."""
    try:
        return str((_PROC / str(pid) / "ns" / "pid").readlink())
    except OSError:
        return None


def started_at(pid: int) -> float | None:
    """When a process started, in seconds since the epoch; None if it is gone."""
    row = read_row(pid)
    if row is None:
        return None
    lines = (_PROC / "stat").read_text(encoding="ascii").splitlines()
    booted = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    return booted + row.start_ticks / os.sysconf("SC_CLK_TCK")


def command_line(pid: int) -> str:
    """The arguments of a process joined by blanks, empty if it cannot be read."""
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()
