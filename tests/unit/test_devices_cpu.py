"""The CPU device: what the kernel lets us use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fairshare.devices.cpu import cpu_device, cpu_quota_cores, memory_limit_bytes
from fairshare.spec.launcher import DeviceKind

MEMINFO = "MemTotal:       16000000 kB\nMemFree:  1 kB\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc of a machine with 16 GB whose process is in groups /a/b (both hierarchies)."""
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "self/cgroup").write_text("4:memory:/a/b\n3:cpu,cpuacct:/a/b\n0::/a/b\n")
    (folder / "meminfo").write_text(MEMINFO)
    (folder / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n")
    return folder


def write(path: Path, text: str) -> None:
    """A file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_limits_everything_is_ours(proc: Path, tmp_path: Path) -> None:
    """No control-group files: the affinity mask and the machine's memory."""
    device = cpu_device(proc, tmp_path / "cgroups")
    assert device.kind is DeviceKind.CPU
    assert device.id == "cpu"
    assert device.name == "Some CPU @ 3 GHz"
    assert device.cores == tuple(sorted(os.sched_getaffinity(0)))
    assert device.memory_bytes == 16000000 * 1024


def test_the_tightest_limit_of_version_2_counts(proc: Path, tmp_path: Path) -> None:
    """A limit may stand in any group above us; 'max' is none."""
    groups = tmp_path / "cgroups"
    write(groups / "a/b/cpu.max", "max 100000")
    write(groups / "a/cpu.max", "150000 100000")
    write(groups / "a/b/memory.max", str(8 * 1024**3))
    write(groups / "a/memory.max", "max")
    assert cpu_quota_cores(proc, groups) == 1.5
    assert memory_limit_bytes(proc, groups) == 8 * 1024**3
    device = cpu_device(proc, groups)
    assert len(device.cores) == 1
    assert device.memory_bytes == 8 * 1024**3


def test_limits_of_version_1_count(proc: Path, tmp_path: Path) -> None:
    """Version 1 writes -1 and a huge number for 'no limit'."""
    groups = tmp_path / "cgroups"
    write(groups / "cpu/a/b/cpu.cfs_quota_us", "-1")
    write(groups / "cpu/a/b/cpu.cfs_period_us", "100000")
    write(groups / "cpu/a/cpu.cfs_quota_us", "50000")
    write(groups / "cpu/a/cpu.cfs_period_us", "100000")
    write(groups / "memory/a/b/memory.limit_in_bytes", "9223372036854771712")
    assert cpu_quota_cores(proc, groups) == 0.5
    assert memory_limit_bytes(proc, groups) is None
    assert len(cpu_device(proc, groups).cores) == 1
