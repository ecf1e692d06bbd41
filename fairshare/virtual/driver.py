"""A simulated GPU: its state, its board, and stand-in driver programs for PATH.

As a real GPU it is there before a run and after it: what a killed run has changed stays changed.
"""

from __future__ import annotations

import os
import re
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
from fairshare.errors import PreflightError, SpecError
from fairshare.spec.launcher import DeviceKind
from fairshare.virtual.board import Board
from fairshare.virtual.failing import KNOBS, unknown_knobs
from fairshare.virtual.nvml import StandInNvml
from fairshare.virtual.state import (
    FORMAT_VERSION,
    STATE_ENV,
    DamagedStateError,
    boot_id,
    locked,
    read_state,
    write_state,
)

_PROGRAMS = {
    "nvidia-smi": "fairshare.virtual.nvidia_smi",
    "nvidia-cuda-mps-control": "fairshare.virtual.mps_control",
}
DRIVER_VERSION = "580.105.08"  # whose output formats the stand-ins imitate by default
DRIVER_ENV = "FAIRSHARE_VIRTUAL_DRIVER"
_VERSION = re.compile(r"\d{3}(\.\d{1,3}){1,2}")
_MIB = 1024**2


def install(directory: Path, gpu: str, *, driver_version: str = DRIVER_VERSION) -> dict[str, str]:
    """Make a simulated GPU in ``directory``; the environment that points programs at it.

    ``gpu`` is a name of the catalogue (``a100-40``) or a product name as the driver gives it. A
    new GPU starts idle, with MIG disabled. The formats of the stand-in tools are those of the
    driver version.

    Raises:
        SpecError: the GPU is not known.
    """
    spec = spec_of_product(gpu) or gpu_spec(gpu)
    directory.mkdir(parents=True, mode=0o700, exist_ok=True)
    with locked(directory):
        _make(directory, spec, driver_version)
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
        SpecError: the simulated GPU is not known, or a variable that says how it is to be is wrong.
        PreflightError: what lies in its folder cannot be used.
    """
    if device.kind is not DeviceKind.VIRTUAL:
        return
    directory, spec = _directory(device), gpu_spec(_name(device))
    if STATE_ENV not in os.environ:
        assets.own_state_dir()  # for its checks: what lies in it is run
    try:
        found = _made_or_taken_over(directory, spec, _wanted_version())
    except OSError as error:
        raise PreflightError(
            f"the simulated GPU cannot be made in {directory}: {error.strerror}",
            hint=f"{STATE_ENV} names another folder for it",
        ) from None
    if found != spec.product:
        raise SpecError(
            f"{directory} holds a simulated {found}, the device is {device.id}",
            hint=f"name another folder in {STATE_ENV}, or throw it away: rm -r {directory}",
        )
    if unknown := unknown_knobs(directory):
        raise SpecError(
            f"there is no failure knob {unknown[0]!r} of the simulated GPU",
            hint=f"known: {', '.join(sorted(KNOBS))}",
        )


def _made_or_taken_over(directory: Path, spec: GpuSpec, version: str | None) -> str:
    """Make the GPU unless it is there; the product name of the one that is."""
    directory.mkdir(parents=True, mode=0o700, exist_ok=True)
    with locked(directory):
        if (directory / "state.json").exists():
            return _take_over(directory, version)
        _make(directory, spec, version or DRIVER_VERSION)
        return spec.product


def _take_over(directory: Path, version: str | None) -> str:
    """Use the GPU that is there, with another driver if one is asked for; its product name."""
    try:
        state = read_state(directory)
    except DamagedStateError as error:
        raise PreflightError(error.problem, hint=error.remedy) from None
    if version is not None and version != state["gpu"]["driver_version"]:
        state["gpu"]["driver_version"] = version
        write_state(directory, state)
    _write_programs(directory)
    return str(state["gpu"]["name"])


def _wanted_version() -> str | None:
    version = os.environ.get(DRIVER_ENV)
    if version is not None and not _VERSION.fullmatch(version):
        raise SpecError(
            f"{DRIVER_ENV}={version} is no driver version", hint=f"such as {DRIVER_VERSION}"
        )
    return version


def _name(device: Device) -> str:
    return device.id.removeprefix("virtual:")


def folders() -> list[Path]:
    """The simulated GPUs that there are: ours, and the one that ``FAIRSHARE_VIRTUAL_GPU`` names."""
    found = sorted(
        path for path in (assets.own_state_path() / "virtual").glob("*") if path.is_dir()
    )
    named = os.environ.get(STATE_ENV)
    return [*found, Path(named)] if named and Path(named) not in found else found


def _directory(device: Device) -> Path:
    """The folder that ``FAIRSHARE_VIRTUAL_GPU`` names, else one in our state folder."""
    named = os.environ.get(STATE_ENV)
    return Path(named) if named else assets.own_state_path() / "virtual" / _name(device)


def _environment(directory: Path) -> dict[str, str]:
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": f"{directory / 'bin'}{os.pathsep}{path}", STATE_ENV: str(directory)}


def _make(directory: Path, spec: GpuSpec, driver_version: str) -> None:
    (directory / "servers").mkdir(mode=0o700, exist_ok=True)
    Board.create(directory / "board")
    _write_programs(directory)
    write_state(directory, _fresh_state(spec, driver_version))


def _write_programs(directory: Path) -> None:
    """The stand-in programs, for the interpreter that we run in; somebody may be running them."""
    binaries = directory / "bin"
    binaries.mkdir(mode=0o700, exist_ok=True)
    for name, module in _PROGRAMS.items():
        program, text = binaries / name, _wrapper(module, directory)
        if program.exists() and program.read_text(encoding="utf-8") == text:
            continue
        fresh = binaries / f"{name}.new"
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o700)
        fresh.replace(program)


def _fresh_state(spec: GpuSpec, driver_version: str) -> dict[str, Any]:
    gpu: dict[str, Any] = {
        "name": spec.product,
        "uuid": f"GPU-{uuid.uuid4()}",
        "bus_id": "00000000:07:00.0",
        "driver_version": driver_version,
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
        "boot_id": boot_id(),
        "gpu": gpu,
        "mig_mode": {"current": "Disabled", "pending": "Disabled"},
        "compute_mode": "Default",
        "time_slice": "DEFAULT",
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
