"""What a partitioner is told to look at in a running server, by kind of device."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.sharing.affinity import verify_affinity
from fairshare.sharing.outside import verify_outside
from fairshare.sharing.plan import ServerView, Slot
from fairshare.sharing.reported import verify_reported
from fairshare.spec.launcher import DeviceKind

Verifier = Callable[[Slot, ServerView], Awaitable[dict[str, Any]]]


def verifier_for(device: Device, driver: Driver) -> Verifier:
    """How a share is verified on this kind of device."""

    async def on_cpu(slot: Slot, server: ServerView) -> dict[str, Any]:
        return verify_affinity(slot, server.pids)

    async def on_virtual(slot: Slot, server: ServerView) -> dict[str, Any]:
        return verify_reported(device, driver.env, slot, server.pids)

    async def on_cuda(slot: Slot, server: ServerView) -> dict[str, Any]:
        return verify_outside(device, driver.nvml, slot, server.pids)

    by_kind: dict[DeviceKind, Verifier] = {
        DeviceKind.CPU: on_cpu,
        DeviceKind.VIRTUAL: on_virtual,
        DeviceKind.CUDA: on_cuda,
    }
    return by_kind[device.kind]
