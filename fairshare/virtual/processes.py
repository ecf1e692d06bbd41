"""The servers that run on a simulated GPU, as its driver knows them. Standard library only."""

from __future__ import annotations

import json
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
    """The reports of the servers that are alive; what dead ones left behind is passed over."""
    found: list[dict[str, Any]] = []
    for path in sorted((directory / "servers").glob("*.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # it ended just now
        if start_ticks(report["pid"]) == report["start_ticks"]:
            found.append(report)
    return found
