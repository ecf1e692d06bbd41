"""What modes have in common that change nothing on the device."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fairshare.devices.device import Device
from fairshare.devices.driver import STATE_VARIABLE, Driver
from fairshare.processes.scope import RunScope
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import Partitioner, PartitionPlan, ServerView, Slot
from fairshare.sharing.preconditions import require_whole_gpu
from fairshare.sharing.verifying import verifier_for
from fairshare.spec.launcher import DeviceKind


def device_env(device: Device, driver_env: Mapping[str, str]) -> dict[str, str]:
    """What points a server at the device, and at it alone."""
    if device.kind is DeviceKind.CPU:
        return {}
    if device.kind is DeviceKind.CUDA:
        return {"CUDA_VISIBLE_DEVICES": device.id}
    state = {STATE_VARIABLE: driver_env[STATE_VARIABLE]} if STATE_VARIABLE in driver_env else {}
    return {"CUDA_VISIBLE_DEVICES": "0", **state}


class StaticSharing(Partitioner):
    """Base of a partitioner that leaves the device as it is; subclasses add ``plan``."""

    def __init__(self, device: Device, driver: Driver, options: SharingOptions) -> None:
        self._device = device
        self._env = device_env(device, driver.env)
        self._driver = driver
        self._options = options
        self._verify = verifier_for(device, driver)

    @asynccontextmanager
    async def apply(self, plan: PartitionPlan, scope: RunScope) -> AsyncIterator[PartitionPlan]:
        """Change nothing.

        Raises:
            PartitionError: servers would not get the whole device.
        """
        await require_whole_gpu(plan.device, scope.labelled(self._driver.env))
        scope.events.emit("partition.applied", mode=plan.mode.value, label=plan.label)
        yield plan

    async def verify(self, slot: Slot, server: ServerView) -> dict[str, Any]:
        """Compare what the running server has with its slot.

        Raises:
            PartitionError: they differ.
        """
        return await self._verify(slot, server)
