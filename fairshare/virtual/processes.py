"""Who uses a simulated GPU, as its driver knows them. Standard library only.

Servers leave a report in ``servers/``, open NVML sessions a note in ``nvml/``, MPS servers one in
``mps/``; what dead processes left behind is passed over.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none or it is dead."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123  # on the path of each step
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def live_servers(directory: Path) -> list[dict[str, Any]]:
    """The reports of the servers that are alive."""
    found: list[dict[str, Any]] = []
    for path in sorted((directory / "servers").glob("*.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # it ended just now
        if start_ticks(report["pid"]) == report["start_ticks"]:
            found.append(report)
    return found


def open_client(directory: Path) -> Path:
    """Note that this process holds NVML open; the note is for :func:`close_client`.

    Raises:
        OSError: the simulated GPU is gone.
    """
    return _note(directory / "nvml", os.getpid())


def note_mps_server(directory: Path, pid: int) -> Path:
    """Note that a process is an MPS server; the note is for :func:`close_client`.

    Raises:
        OSError: the simulated GPU is gone.
    """
    return _note(directory / "mps", pid)


def mps_servers(directory: Path) -> list[int]:
    """The MPS servers that are alive, by pid."""
    return sorted(_noted(directory / "mps"))


def close_client(note: Path) -> None:
    """Take back a note."""
    note.unlink(missing_ok=True)


def in_use(directory: Path) -> bool:
    """Whether anything keeps the driver from changing the whole GPU: a server or a session."""
    noted = _noted(directory / "nvml") | _noted(directory / "mps")
    return bool(noted or live_servers(directory))


def _note(folder: Path, pid: int) -> Path:
    """All that a note says is in its name, so that it can be made on a full disk."""
    folder.mkdir(mode=0o700, exist_ok=True)
    note = folder / f"{pid}-{start_ticks(pid)}-{secrets.token_hex(4)}"
    note.touch(mode=0o600)
    return note


def _noted(folder: Path) -> set[int]:
    """The processes with a note that are alive."""
    found = set()
    for note in folder.glob("*-*-*"):
        pid, ticks, _ = note.name.split("-")
        if pid.isdigit() and str(start_ticks(int(pid))) == ticks:
            found.add(int(pid))
    return found
