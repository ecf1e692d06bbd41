"""The machine: memory, swap, shared memory, cores, and what it is confined by."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fairshare.devices.cpu import cpu_quota_cores
from fairshare.doctor.finding import Finding, fail, ok, warn
from fairshare.doctor.intent import Intent
from fairshare.spec.launcher import DeviceKind
from fairshare.units import format_bytes

MIB = 1024**2
_SHM = "shared memory"
_CPUS = Path("sys/devices/system/cpu")
_SCARCE_CORES = 4  # one for the client, and as many as two tenants' servers need
_CONTAINERS = ("docker", "kubepods", "containerd", "libpod", "lxc")


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What was read of the machine; None: it does not say."""

    cores: int
    quota_cores: float | None = None
    governors: tuple[str, ...] = ()
    memory_bytes: int | None = None
    available_bytes: int | None = None
    swap_used_bytes: int = 0
    shm_bytes: int | None = None
    shm_free_bytes: int | None = None
    container: bool = False
    virtual_machine: bool = False
    cgroup_v2: bool = False
    cgroup_writable: bool = False


def gather(intent: Intent, root: Path = Path("/")) -> HostFacts:
    """Read the machine; ``root`` is where ``proc``, ``sys`` and ``dev`` are."""
    del intent
    memory = _meminfo(root)
    shm = _volume(root / "dev/shm")
    own_group = _own_group(root)
    return HostFacts(
        cores=len(os.sched_getaffinity(0)),
        quota_cores=cpu_quota_cores(root / "proc", root / "sys/fs/cgroup"),
        governors=_governors(root),
        memory_bytes=memory.get("MemTotal"),
        available_bytes=memory.get("MemAvailable"),
        swap_used_bytes=memory.get("SwapTotal", 0) - memory.get("SwapFree", 0),
        shm_bytes=None if shm is None else shm[0],
        shm_free_bytes=None if shm is None else shm[1],
        container=_in_container(root),
        virtual_machine=bool(re.search(r"^flags\s*:.*\bhypervisor\b", _cpuinfo(root), re.M)),
        cgroup_v2=own_group is not None,
        cgroup_writable=own_group is not None and os.access(own_group, os.W_OK),
    )


def check(facts: HostFacts, intent: Intent) -> Iterator[Finding]:
    """What the machine's facts mean for the run."""
    yield from _check_memory(facts, intent)
    yield from _check_shm(facts, intent)
    yield from _check_cores(facts, intent)
    if intent.on_gpu:
        yield _check_confinement(facts)
        yield _check_cgroup(facts)


def _check_memory(facts: HostFacts, intent: Intent) -> Iterator[Finding]:
    if facts.available_bytes is None:
        yield warn("memory", "/proc/meminfo does not tell the free memory", "mount /proc")
        return
    scarce = 4096 * MIB if intent.real_engine else 512 * MIB
    free = f"{format_bytes(facts.available_bytes)} of {format_bytes(facts.memory_bytes or 0)} free"
    stop = "end what uses it: ps -eo pid,rss,args --sort=-rss | head"
    if facts.available_bytes < 256 * MIB:
        yield fail("memory", f"only {free}: servers would be killed", stop)
    elif facts.available_bytes < scarce:
        yield warn("memory", f"only {free}: loading a model may fail", stop)
    else:
        yield ok("memory", free)
    if intent.kind is DeviceKind.CPU and facts.swap_used_bytes > 256 * MIB:
        used = format_bytes(facts.swap_used_bytes)
        says = f"{used} are swapped out: servers on the CPU may wait for the disk"
        yield warn("swap", says, "sudo swapoff -a && sudo swapon -a, once memory is free")


def _check_shm(facts: HostFacts, intent: Intent) -> Iterator[Finding]:
    if not intent.real_engine:
        return
    larger = (
        "start the container with --shm-size=8g"
        if facts.container
        else "sudo mount -o remount,size=8G /dev/shm"
    )
    if facts.shm_bytes is None or facts.shm_free_bytes is None:
        yield fail(_SHM, "it is not there, and engines need it", larger)
        return
    size = f"{format_bytes(facts.shm_free_bytes)} of {format_bytes(facts.shm_bytes)} free"
    if facts.shm_free_bytes < 16 * MIB:
        yield fail(_SHM, f"{size}: engines cannot start", "ls -lS /dev/shm shows what fills it")
    elif facts.shm_free_bytes < 512 * MIB:
        says = f"{size}: engines on several GPUs, or many servers, need more"
        yield warn(_SHM, says, larger)
    else:
        yield ok(_SHM, size)


def _check_cores(facts: HostFacts, intent: Intent) -> Iterator[Finding]:
    quota = facts.quota_cores
    if quota is not None and quota < facts.cores:
        says = f"a quota of {quota:g} cores' time on {facts.cores} cores: processes are paused"
        yield warn("cores", says, "raise the quota: docker --cpus, or cpu.max of the control group")
    elif facts.cores < _SCARCE_CORES:
        says = f"{facts.cores} cores: the client has none of its own beside the servers"
        more = "give the container more: docker --cpuset-cpus" if facts.container else "use more"
        yield warn("cores", says, more)
    else:
        yield ok("cores", f"{facts.cores} cores")
    slow = sorted({"powersave", "conservative"}.intersection(facts.governors))
    if intent.real_engine and slow:
        says = f"the CPU's clock is governed by {slow[0]}: it rises late and figures vary"
        yield warn("governor", says, "sudo cpupower frequency-set -g performance")


def _check_confinement(facts: HostFacts) -> Finding:
    places = ["a container"] * facts.container + ["a virtual machine"] * facts.virtual_machine
    if not places:
        return ok("confinement", "neither a container nor a virtual machine")
    says = f"inside {' in '.join(places)}: a GPU cannot be reset from here"
    if facts.container:
        says += ", and processes of others may not be seen"
    return ok("confinement", says)


def _check_cgroup(facts: HostFacts) -> Finding:
    if not facts.cgroup_v2:
        return ok("cgroup", "no cgroup v2: the driver cannot cap memory by group (not needed)")
    word = "may" if facts.cgroup_writable else "may not"
    return ok("cgroup", f"version 2, and we {word} write our own group (not needed)")


def _meminfo(root: Path) -> dict[str, int]:
    found = {}
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if rest.strip():
            found[name] = int(rest.split()[0]) * 1024
    return found


def _cpuinfo(root: Path) -> str:
    return _read(root / "proc/cpuinfo")


def _volume(path: Path) -> tuple[int, int] | None:
    """Size and free bytes of a file system."""
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize


def _governors(root: Path) -> tuple[str, ...]:
    paths = (root / _CPUS).glob("cpu[0-9]*/cpufreq/scaling_governor")
    return tuple(_read(path).strip() for path in paths)


def _in_container(root: Path) -> bool:
    if any((root / marker).exists() for marker in (".dockerenv", "run/.containerenv")):
        return True
    groups = _read(root / "proc/1/cgroup")
    return any(word in groups for word in _CONTAINERS) or "KUBERNETES_SERVICE_HOST" in os.environ


def _own_group(root: Path) -> Path | None:
    """The folder of our own group where cgroup v2 is mounted."""
    for mount in (root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"):
        if not (mount / "cgroup.controllers").exists():
            continue
        for line in _read(root / "proc/self/cgroup").splitlines():
            if line.startswith("0::"):
                return mount / line[3:].lstrip("/")
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
