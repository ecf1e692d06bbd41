"""What is left of the machine's memory, and of a disk: as this process may use it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Reserve:
    """Bytes that can still be had, and how many there are in all."""

    available_bytes: int
    total_bytes: int


def memory_reserve(proc: Path = PROC, cgroup: Path = CGROUP) -> Reserve | None:
    """Memory that can be had without swapping, within the limit of our control group (v2).

    What a group's files hold of the page cache can be had back, as far as it is inactive.
    """
    machine = _machine(proc)
    group = _group(cgroup)
    if machine is None or group is None:
        return machine or group
    return min(machine, group, key=lambda each: each.available_bytes)


def disk_reserve(path: Path) -> Reserve | None:
    """Space that we may still fill on the file system of a folder; None if it is gone."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return Reserve(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def _machine(proc: Path) -> Reserve | None:
    try:
        lines = (proc / "meminfo").read_text("ascii").splitlines()
        values = {line.partition(":")[0]: line.split()[1] for line in lines}
        return Reserve(int(values["MemAvailable"]) * _KIB, int(values["MemTotal"]) * _KIB)
    except (OSError, KeyError, IndexError, ValueError):
        return None


def _group(cgroup: Path) -> Reserve | None:
    try:
        limit = int((cgroup / "memory.max").read_text("ascii"))  # "max" is no limit
        used = int((cgroup / "memory.current").read_text("ascii"))
        stat = (cgroup / "memory.stat").read_text("ascii").splitlines()
        inactive = next(int(line.split()[1]) for line in stat if line.startswith("inactive_file "))
    except (OSError, StopIteration, ValueError):
        return None
    return Reserve(max(0, limit - used + inactive), limit)
