"""A simulated GPU: its state, its board, and stand-in driver programs for PATH.

As a real GPU it is there before a run and after it: what a killed run has changed stays changed.
"""

from __future__ import annotations

import os
import shlex
import sys
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fairshare
from fairshare import assets
from fairshare.devices.constants import GpuSpec, gpu_spec, spec_of_product
from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.devices.nvml import Nvml
from fairshare.spec.launcher import DeviceKind
from fairshare.virtual.board import Board
from fairshare.virtual.nvml import StandInNvml
from fairshare.virtual.state import FORMAT_VERSION, STATE_ENV, read_state, write_state

_PROGRAMS = {
    "nvidia-smi": "fairshare.virtual.nvidia_smi",
    "nvidia-cuda-mps-control": "fairshare.virtual.mps_control",
}
_DRIVER_VERSION = "580.105.08"  # whose output formats the stand-ins imitate
_MIB = 1024**2


def install(directory: Path, gpu: str) -> dict[str, str]:
    """Make a simulated GPU in ``directory``; the environment that points programs at it.

    ``gpu`` is a name of the catalogue (``a100-40``) or a product name as the driver gives it. A
    new GPU starts idle, with MIG disabled.

    Raises:
        SpecError: the GPU is not known.
    """
    spec = spec_of_product(gpu) or gpu_spec(gpu)
    (directory / "servers").mkdir(parents=True, mode=0o700, exist_ok=True)
    write_state(directory, _fresh_state(spec))
    Board.create(directory / "board")
    _write_programs(directory)
    return _environment(directory)


def driver_for(device: Device) -> Driver:
    """NVIDIA's driver, or the stand-ins of a simulated GPU (which `switch_on` makes ready)."""
    if device.kind is not DeviceKind.VIRTUAL:
        return Driver()
    directory = _directory(device)
    return Driver(env=_environment(directory), nvml=Nvml(StandInNvml(directory)))


def switch_on(device: Device) -> None:
    """Make a simulated GPU unless it is there already; nothing to do for other devices.

    Raises:
        SpecError: the simulated GPU is not known.
    """
    if device.kind is not DeviceKind.VIRTUAL:
        return
    directory, name = _directory(device), _name(device)
    if STATE_ENV not in os.environ:
        assets.state_dir()  # for its checks: what lies in it is run
    if _is(directory, name):
        _write_programs(directory)
    else:
        install(directory, name)


def _name(device: Device) -> str:
    return device.id.removeprefix("virtual:")


def _directory(device: Device) -> Path:
    """The folder that ``FAIRSHARE_VIRTUAL_GPU`` names, else one in our state folder."""
    named = os.environ.get(STATE_ENV)
    return Path(named) if named else assets.state_path() / "virtual" / _name(device)


def _is(directory: Path, name: str) -> bool:
    """Whether the folder holds a simulated GPU of that model."""
    try:
        return bool(read_state(directory)["gpu"]["name"] == gpu_spec(name).product)
    except (OSError, ValueError):
        return False


def _environment(directory: Path) -> dict[str, str]:
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": f"{directory / 'bin'}{os.pathsep}{path}", STATE_ENV: str(directory)}


def _write_programs(directory: Path) -> None:
    """The stand-in programs, for the interpreter that we run in."""
    binaries = directory / "bin"
    binaries.mkdir(mode=0o700, exist_ok=True)
    for name, module in _PROGRAMS.items():
        program = binaries / name
        program.write_text(_wrapper(module, directory), encoding="utf-8")
        program.chmod(0o700)


def _fresh_state(spec: GpuSpec) -> dict[str, Any]:
    gpu: dict[str, Any] = {
        "name": spec.product,
        "uuid": f"GPU-{uuid.uuid4()}",
        "bus_id": "00000000:07:00.0",
        "driver_version": _DRIVER_VERSION,
        "compute_capability": spec.compute_capability,
        "memory_mib": spec.memory_bytes // _MIB,
        "fp16_tflops": spec.fp16_tflops,
        "memory_gb_s": spec.memory_gb_s,
        "sm_count": spec.sm_count,
        "mig_memory_slices": spec.mig_memory_slices,
        "mig_compute_slices": spec.mig_compute_slices,
        "mig_toggle_needs_reset": spec.mig_toggle_needs_reset,
        "mig_profiles": [_profile(asdict(profile)) for profile in spec.mig_profiles],
    }
    return {
        "format_version": FORMAT_VERSION,
        "gpu": gpu,
        "mig_mode": {"current": "Disabled", "pending": "Disabled"},
        "compute_mode": "Default",
        "persistence_mode": "Enabled",
        "instances": [],
    }


def _profile(profile: dict[str, Any]) -> dict[str, Any]:
    return {**profile, "sm": profile.pop("sm_count")}


def _wrapper(module: str, directory: Path) -> str:
    """A program that runs a module of ours without reading any site-packages."""
    root = Path(fairshare.__file__).resolve().parent.parent
    return (
        "#!/bin/sh\n"
        f"{STATE_ENV}={shlex.quote(str(directory))} PYTHONPATH={shlex.quote(str(root))} "
        f'exec {shlex.quote(sys.executable)} -S -P -m {module} "$@"\n'
    )
