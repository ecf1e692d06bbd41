"""Words and exit codes that the parts of the stand-in ``nvidia-smi`` share."""

from __future__ import annotations

from enum import IntEnum

IN_USE = "In use by another client"
INSUFFICIENT = "Insufficient Resources"
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that "
    "the latest NVIDIA driver is installed and running.\n"
)


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


def in_use_by_processes(bus_id: str) -> str:
    """The long complaint that clients hold the GPU."""
    return (
        f"{bus_id} is currently being used by one or more other processes (e.g. CUDA application "
        "or a monitoring application such as another instance of nvidia-smi). Please first kill "
        "all processes using the device and retry the command or reboot the system to make MIG "
        "mode effective."
    )
