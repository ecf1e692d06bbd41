"""What the machine's facts mean for a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairshare.doctor.finding import Level
from fairshare.doctor.host import HostFacts, check, gather
from tests.doctor_cases import GIB, intent, told


def facts(**changes: Any) -> HostFacts:
    """A machine on which everything is fine."""
    usual: dict[str, Any] = {
        "cores": 16,
        "memory_bytes": 64 * GIB,
        "available_bytes": 60 * GIB,
        "shm_bytes": 32 * GIB,
        "shm_free_bytes": 32 * GIB,
        "governors": ("performance",),
    }
    return HostFacts(**(usual | changes))


@pytest.mark.parametrize("kind", ["cuda", "cpu", "virtual"])
def test_a_good_machine_is_fine_for_everything(kind: str) -> None:
    """Nothing is said against a machine that has enough of all."""
    assert set(told(check(facts(), intent(kind))).values()) == {"ok"}


@pytest.mark.parametrize(
    ("changes", "name", "level"),
    [
        ({"available_bytes": GIB // 8}, "memory", "fail"),
        ({"available_bytes": GIB}, "memory", "warn"),
        ({"available_bytes": None}, "memory", "warn"),
        ({"shm_free_bytes": GIB // 1024}, "shared memory", "fail"),
        ({"shm_bytes": GIB // 16, "shm_free_bytes": GIB // 16}, "shared memory", "warn"),
        ({"shm_bytes": None}, "shared memory", "fail"),
        ({"cores": 2}, "cores", "warn"),
        ({"quota_cores": 1.5}, "cores", "warn"),
        ({"governors": ("performance", "powersave")}, "governor", "warn"),
        ({"swap_used_bytes": GIB}, "swap", "warn"),
    ],
)
def test_what_a_machine_lacks_is_told(changes: dict[str, Any], name: str, level: str) -> None:
    """Each shortage has its own line, and says what mends it."""
    assert told(check(facts(**changes), intent("cpu")))[name] == level


def test_a_simulation_needs_less() -> None:
    """Neither shared memory nor the memory of a model is asked for where no engine is real."""
    small = facts(available_bytes=GIB, shm_bytes=None, governors=("powersave",))
    assert set(told(check(small, intent("virtual"))).values()) == {"ok"}


def test_a_container_is_mended_from_outside() -> None:
    """In a container /dev/shm is made larger by the one who starts it."""
    lines = {f.name: f for f in check(facts(shm_bytes=None, container=True), intent("cuda"))}
    assert "--shm-size" in (lines["shared memory"].fix or "")
    assert "a container" in lines["confinement"].says
    assert lines["confinement"].level is Level.OK


def test_the_machine_is_read(tmp_path: Path) -> None:
    """Memory, governors, container, virtual machine and cgroup come from their files."""
    for name, text in {
        "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 600 kB\n"
        "SwapTotal: 50 kB\nSwapFree: 20 kB\n",
        "proc/cpuinfo": "model name : x\nflags\t\t: fpu hypervisor lm\n",
        "proc/1/cgroup": "0::/system.slice/docker-abc.scope\n",
        "proc/self/cgroup": "0::/mine\n",
        "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = gather(intent(), tmp_path)
    assert (found.memory_bytes, found.available_bytes) == (1000 * 1024, 600 * 1024)
    assert found.swap_used_bytes == 30 * 1024
    assert found.governors == ("powersave",)
    assert found.container
    assert found.virtual_machine
    assert found.cgroup_v2
    assert not found.cgroup_writable
    assert found.shm_bytes is None


def test_a_machine_that_tells_nothing_is_no_traceback(tmp_path: Path) -> None:
    """Without /proc and /sys the facts are empty, and the checks still speak."""
    assert told(check(gather(intent(), tmp_path), intent()))["memory"] == "warn"
