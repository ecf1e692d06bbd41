"""What is to be known of a GPU's MIG before anything is planned; asking changes nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fairshare import users
from fairshare.devices.device import Device
from fairshare.devices.driver import STATE_VARIABLE, Driver
from fairshare.errors import PartitionError
from fairshare.sharing import rights
from fairshare.sharing.mig_state import ENABLED
from fairshare.sharing.mig_table import MigTable, known_table, read_table, smi_name
from fairshare.sharing.nvidia_smi import NvidiaSmi
from fairshare.sharing.tools import run_tool, tool_env
from fairshare.spec.launcher import DeviceKind

_SUDO_S = 5.0
_CONFIG = Path("/proc/driver/nvidia/capabilities/mig/config")


@dataclass(frozen=True, slots=True)
class MigFacts:
    """``table``: what the GPU can be cut into, if that is known; ``enabled``: its mode now.

    ``hindrance`` says why this user cannot change MIG at all, None if it may be possible.
    """

    table: MigTable | None
    enabled: bool = False
    hindrance: str | None = None


def facts_unasked(device: Device) -> MigFacts:
    """What the table of GPU models knows, without asking the driver."""
    return MigFacts(known_table(device))


async def ask_facts(device: Device, driver: Driver) -> MigFacts:
    """Ask the GPU's driver; a simulated GPU that was never switched on is as its model."""
    if device.kind is DeviceKind.VIRTUAL and not _is_switched_on(driver):
        return facts_unasked(device)
    smi = NvidiaSmi(smi_name(device), driver.env)
    try:
        if await smi.product() != device.name:  # another simulated GPU, which will be replaced
            return facts_unasked(device)
        enabled = (await smi.mig_mode()).current == ENABLED
    except PartitionError as error:
        return MigFacts(known_table(device), hindrance=error.message)
    return MigFacts(await read_table(device, smi), enabled, await _hindrance(driver, enabled))


def _is_switched_on(driver: Driver) -> bool:
    return (Path(driver.env[STATE_VARIABLE]) / "bin" / "nvidia-smi").exists()


async def _hindrance(driver: Driver, enabled: bool) -> str | None:
    """Root can change MIG, whom sudo lets, and once it is on whoever may read its file."""
    if users.has_root() or STATE_VARIABLE in driver.env:
        return None
    if enabled and os.access(_CONFIG, os.R_OK):
        return None
    if rights.prefix(driver.env) and await _sudo_lets(driver):
        return None
    return "only root may change MIG, and sudo does not let this user without a password"


async def _sudo_lets(driver: Driver) -> bool:
    """Ask sudo whether it would, without doing anything."""
    try:
        answer = await run_tool(
            ["sudo", "-n", "-l", "nvidia-smi"], tool_env(driver.env), timeout_s=_SUDO_S
        )
    except PartitionError:
        return False
    return answer.returncode == 0
