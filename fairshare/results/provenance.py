"""Where results come from: machine, software, device. Part of ``matrix.json`` and every report."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from fairshare.devices.device import Device
from fairshare.spec.launcher import Launcher

_PACKAGES = ("fairshare", "aiohttp", "numpy", "orjson", "pandas", "matplotlib", "seaborn")
# Values of these say how engines and drivers behave, and never hold a secret.
_ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "VLLM_CPU_KVCACHE_SPACE",
    "VLLM_CPU_OMP_THREADS_BIND",
    "VLLM_USE_V1",
)
_CHECKOUT = Path(__file__).resolve().parents[2]


def gather(
    device: Device | None = None,
    launcher: Launcher | None = None,
    *,
    engine_version: str | None = None,
) -> dict[str, Any]:
    """What must be known to judge or repeat the figures; unknown values are None.

    Of the environment only an allow-list is kept.
    """
    return {
        "fairshare": {"version": _version("fairshare"), **_git_state()},
        "machine": {
            "cpu": _cpu_model(),
            "logical_cpus": os.cpu_count(),
            "usable_cpus": len(os.sched_getaffinity(0)),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "architecture": platform.machine(),
            "kernel": platform.release(),
            "system": _system(),
        },
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": _device(device),
        "launcher": None if launcher is None else launcher.name,
        "engine": None
        if launcher is None
        else {"name": launcher.engine.value, "version": engine_version},
        "environment": {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    }


def with_machines(now: Mapping[str, Any], earlier: object) -> dict[str, Any]:
    """What is known now, with the machines that cells of earlier calls were measured on."""
    machines = earlier.get("machines") if isinstance(earlier, Mapping) else None
    if not isinstance(machines, Mapping):
        return dict(now)
    return {**now, "machines": {**machines, **now.get("machines", {})}}


def _device(device: Device | None) -> dict[str, Any] | None:
    if device is None:
        return None
    return {
        "kind": device.kind.value,
        "id": device.id,
        "name": device.name,
        "memory_bytes": device.memory_bytes,
        "sm_count": device.sm_count,
        "architecture": device.architecture,
        "driver": device.driver,
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any]:
    """Commit of the checkout that this code runs from; None for an installed wheel."""
    if not (_CHECKOUT / ".git").exists():
        return {"commit": None, "modified": None}
    return {
        "commit": _git("rev-parse", "HEAD"),
        "modified": None if (changes := _git("status", "--porcelain")) is None else bool(changes),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_CHECKOUT), *arguments],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return None


def _system() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return sys.platform
    return release.get("PRETTY_NAME", sys.platform)
