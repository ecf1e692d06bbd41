"""Installs a simulated GPU: its state, its board, and stand-in driver programs for PATH."""

from __future__ import annotations

import os
import shlex
import sys
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fairshare
from fairshare.devices.constants import GpuSpec, gpu_spec, spec_of_product
from fairshare.virtual.board import Board
from fairshare.virtual.state import FORMAT_VERSION, STATE_ENV, write_state

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
    binaries = directory / "bin"
    binaries.mkdir(parents=True, mode=0o700, exist_ok=True)
    (directory / "servers").mkdir(mode=0o700, exist_ok=True)
    write_state(directory, _fresh_state(spec))
    Board.create(directory / "board")
    for name, module in _PROGRAMS.items():
        program = binaries / name
        program.write_text(_wrapper(module, directory), encoding="utf-8")
        program.chmod(0o700)
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": f"{binaries}{os.pathsep}{path}", STATE_ENV: str(directory)}


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
