"""Words and exit codes that the parts of the stand-in ``nvidia-smi`` share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

IN_USE = "In use by another client"
INSUFFICIENT = "Insufficient Resources"
NOT_PERMITTED = "Insufficient Permissions"
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that "
    "the latest NVIDIA driver is installed and running.\n"
)


_LOOK_S = 0.1  # how long the real driver averages is of this order


class Exit(IntEnum):
    """nvidia-smi exits with NVML's return codes."""

    OK = 0
    INVALID = 2
    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    NOT_FOUND = 6
    NO_DRIVER = 9
    IN_USE = 19
    INSUFFICIENT = 23
    OTHER = 255


CODES = {
    IN_USE: Exit.IN_USE,
    INSUFFICIENT: Exit.INSUFFICIENT,
    NOT_PERMITTED: Exit.NO_PERMISSION,
    "Invalid Argument": Exit.INVALID,
    "Not Supported": Exit.NOT_SUPPORTED,
    "Not Found": Exit.NOT_FOUND,
}


def selects(state: Mapping[str, Any], wanted: str | None) -> bool:
    """Whether ``-i``'s value means our GPU: index, UUID or bus id."""
    gpu = state["gpu"]
    return wanted is None or wanted in ("0", gpu["uuid"], gpu["bus_id"])


def driver_branch(state: Mapping[str, Any]) -> int:
    """The first number of the driver's version, by which the formats differ."""
    return int(state["gpu"]["driver_version"].partition(".")[0])


def in_use_by_processes(bus_id: str) -> str:
    """The long complaint that clients hold the GPU."""
    return (
        f"{bus_id} is currently being used by one or more other processes (e.g. CUDA application "
        "or a monitoring application such as another instance of nvidia-smi). Please first kill "
        "all processes using the device and retry the command or reboot the system to make MIG "
        "mode effective."
    )


def reset_refused(bus_id: str) -> str:
    """Why a used GPU is not reset."""
    return (
        f"GPU {bus_id} is currently in use by another process.\n\n"
        "1 device is currently being used by one or more other processes (e.g., Fabric Manager, "
        "CUDA application, graphics application such as an X server, or a monitoring application "
        "such as another instance of nvidia-smi). Please first kill all processes using this "
        "device and all compute applications running in the system."
    )


def utilisation_percent(directory: Path, state: Mapping[str, Any]) -> str:
    """How busy the GPU is while we look; as on a real GPU there is no figure in MIG mode."""
    if state["mig_mode"]["current"] == "Enabled":
        return "[N/A]"
    from fairshare.virtual.telemetry import BusyMeter  # noqa: PLC0415  (seldom needed)

    meter = BusyMeter(directory)
    meter.utilisation()
    time.sleep(_LOOK_S)
    return str(round(100 * (meter.utilisation() or 0.0)))
