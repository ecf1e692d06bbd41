"""Which CPU cores a process may use; a wish that cannot be met is an error, never ignored."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fairshare.errors import PreflightError

_ONLINE = Path("/sys/devices/system/cpu/online")


def parse_cpu_list(text: str) -> set[int]:
    """The numbers of the kernel's list format, such as ``0-3,8``."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return found


def online_cpus() -> set[int]:
    """The cores that are switched on now."""
    try:
        return parse_cpu_list(_ONLINE.read_text(encoding="ascii"))
    except OSError:
        return os.sched_getaffinity(0)


def check_cpu_set(name: str, cpu_set: Sequence[int]) -> None:
    """Fail unless every core of the set exists.

    Raises:
        PreflightError: the set is empty or names a core that is not there.
    """
    online = online_cpus()
    absent = sorted(set(cpu_set) - online)
    if not cpu_set or absent:
        wrong = f"core {', '.join(map(str, absent))} does not exist" if absent else "it is empty"
        raise PreflightError(
            f"{name} cannot have the CPU set {list(cpu_set)}: {wrong}",
            hint=f"cores of this machine: {', '.join(map(str, sorted(online)))}",
        )


def check_granted(name: str, pid: int, cpu_set: Sequence[int]) -> None:
    """Fail unless the kernel granted a process exactly the cores it was to have.

    Raises:
        PreflightError: a container or cgroup withholds some of them.
    """
    try:
        granted = os.sched_getaffinity(pid)
    except ProcessLookupError:
        return
    if granted != set(cpu_set):
        raise PreflightError(
            f"{name} was to have the cores {sorted(set(cpu_set))} and got {sorted(granted)}",
            hint="this container or cgroup may not use all cores of the machine",
        )
