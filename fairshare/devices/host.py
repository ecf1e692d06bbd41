"""CPU time and memory of process trees, read from ``/proc``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

HostRow = tuple[float | int | str | None, ...]


@dataclass(slots=True)
class HostReader:
    """CPU and memory of servers since the last reading.

    The first reading has no CPU figure: there is nothing to compare with.
    """

    servers: Mapping[str, Callable[[], list[int]]]
    proc: Path = PROC
    _ticks: dict[str, dict[int, int]] = field(default_factory=dict)
    _machine_ticks: int | None = None
    _read_at_s: float | None = None

    def rows(self) -> list[HostRow]:
        """Name, cpu_percent (of one core) and rss_bytes of each server and of the machine."""
        now_s = time.monotonic()
        elapsed_s = None if self._read_at_s is None else now_s - self._read_at_s
        rows = [self._server_row(name, pids(), elapsed_s) for name, pids in self.servers.items()]
        rows.append(self._machine_row(elapsed_s))
        self._read_at_s = now_s
        return rows

    def _server_row(self, name: str, pids: list[int], elapsed_s: float | None) -> HostRow:
        seen = {pid: read for pid in pids if (read := _process(self.proc, pid)) is not None}
        before = self._ticks.get(name)
        self._ticks[name] = {pid: ticks for pid, (ticks, _) in seen.items()}
        if not seen:
            return name, None, None
        rss_bytes = sum(rss for _, rss in seen.values())
        if before is None or not elapsed_s:
            return name, None, rss_bytes
        # A process that appeared since the last reading has spent all its time since then.
        spent = sum(max(0, ticks - before.get(pid, 0)) for pid, (ticks, _) in seen.items())
        return name, round(100 * spent / _TICKS_PER_S / elapsed_s, 1), rss_bytes

    def _machine_row(self, elapsed_s: float | None) -> HostRow:
        busy = _machine_busy_ticks(self.proc)
        percent = None
        if self._machine_ticks is not None and elapsed_s:
            percent = round(100 * (busy - self._machine_ticks) / _TICKS_PER_S / elapsed_s, 1)
        self._machine_ticks = busy
        return "(machine)", percent, _machine_used_bytes(self.proc)


def _process(proc: Path, pid: int) -> tuple[int, int] | None:
    """CPU ticks and resident bytes of one process; None once it is gone."""
    try:
        text = (proc / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    values = text.rpartition(")")[2].split()  # the name before it may hold anything
    return int(values[11]) + int(values[12]), int(values[21]) * _PAGE_BYTES


def _machine_busy_ticks(proc: Path) -> int:
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (
        int(v) for v in (proc / "stat").read_text("utf-8").split("\n", 1)[0].split()[1:]
    )
    return user + nice + system + irq + softirq


def _machine_used_bytes(proc: Path) -> int | None:
    values = {}
    for line in (proc / "meminfo").read_text("utf-8").splitlines():
        key, _, rest = line.partition(":")
        values[key] = int(rest.split()[0]) * 1024
    if "MemAvailable" not in values:
        return None
    return values["MemTotal"] - values["MemAvailable"]
