"""The CPUs of this machine as a device: the cores and the memory that we may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from fairshare.devices.device import Device
from fairshare.spec.launcher import DeviceKind

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def cpu_device(proc: Path = PROC, cgroups: Path = CGROUPS) -> Device:
    """The CPU device: affinity mask and memory of this process, within its limits."""
    cores = sorted(os.sched_getaffinity(0))
    quota = cpu_quota_cores(proc, cgroups)
    if quota is not None:
        cores = cores[: max(1, math.floor(quota))]
    limit = memory_limit_bytes(proc, cgroups)
    total = _total_memory_bytes(proc)
    return Device(
        kind=DeviceKind.CPU,
        id="cpu",
        name=_model_name(proc),
        memory_bytes=min(total, limit) if limit else total,
        cores=tuple(cores),
        architecture=os.uname().machine,
    )


def cpu_quota_cores(proc: Path = PROC, cgroups: Path = CGROUPS) -> float | None:
    """Cores' worth of time that the control groups above this process allow; None: no limit."""
    quotas = []
    for folder in _own_groups("cpu", proc, cgroups):
        if text := _read(folder / "cpu.max"):  # version 2: "<quota|max> <period>"
            quota, period = text.split()
            if quota != "max":
                quotas.append(int(quota) / int(period))
        quota_us = _read(folder / "cpu.cfs_quota_us")  # version 1: -1 is no limit
        period_us = _read(folder / "cpu.cfs_period_us")
        if quota_us and period_us and int(quota_us) > 0:
            quotas.append(int(quota_us) / int(period_us))
    return min(quotas, default=None)


def memory_limit_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """The smallest memory limit of the control groups above this process; None: no limit."""
    limits = []
    for folder in _own_groups("memory", proc, cgroups):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name)
            # Version 1 writes "no limit" as the largest multiple of a page, some 2**63.
            if text and text != "max" and int(text) < 2**60:
                limits.append(int(text))
    return min(limits, default=None)


def _own_groups(controller: str, proc: Path, cgroups: Path) -> list[Path]:
    """Folders of this process's control group and of all above it, in both hierarchies."""
    folders: list[Path] = []
    for line in _read(proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root = cgroups
        elif controller in controllers.split(","):
            root = cgroups / controller
        else:
            continue
        own = root / path.lstrip("/")
        folders += [own, *(p for p in own.parents if p.is_relative_to(root))]
    return folders


def _model_name(proc: Path) -> str:
    for line in _read(proc / "cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Model", "Hardware"}:
            return value.strip()
    return os.uname().machine


def _total_memory_bytes(proc: Path) -> int:
    for line in _read(proc / "meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
