"""After servers have stopped, the GPU's memory must be back before others size themselves by it.

Processes, ports, folders and shared memory are each server's own and checked with it; on the CPU
memory goes with its process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.devices.nvml import NvmlUnavailableError
from fairshare.errors import ServerError
from fairshare.events import EventLog
from fairshare.spec.launcher import DeviceKind
from fairshare.units import format_bytes

# What an MPS server, or the driver after its first client, keeps; the weights that an engine
# leaves behind are more.
TOLERANCE_BYTES = 1024**3
_WAIT_S = 20.0  # the driver takes seconds to free tens of GB, and may still do so unasked
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class _Use:
    """The GPU's memory in use, and who computes on it."""

    used_bytes: int
    pids: frozenset[int]


@asynccontextmanager
async def memory_returned(
    device: Device, driver: Driver, events: EventLog, wait_s: float = _WAIT_S
) -> AsyncIterator[None]:
    """Make sure that the GPU memory which servers take within the block is free after it.

    It is waited for at most ``wait_s``; the wait is an event. Where nothing tells how much memory
    is in use, or others came to the GPU meanwhile, that is an event and no error.

    Raises:
        ServerError: it does not come back.
    """
    before = await _use(device, driver)
    if before is None:
        yield
        return
    try:
        yield
    except BaseException:
        await _missing(before, device, driver, events, wait_s)  # an event; the error goes first
        raise
    missing = await _missing(before, device, driver, events, wait_s)
    if missing is not None:
        raise ServerError(
            f"the servers have stopped, but {missing}",
            hint="what holds it can be seen with: sudo fuser -v /dev/nvidia*; if nobody does, the "
            "driver has lost it: sudo nvidia-smi --gpu-reset",
        )


async def _missing(
    before: _Use, device: Device, driver: Driver, events: EventLog, wait_s: float
) -> str | None:
    """What did not come back within the wait, None if all did."""
    started_s = time.monotonic()
    while True:
        now = await _use(device, driver)
        waited_s = round(time.monotonic() - started_s, 3)
        if now is None:
            events.emit("memory.unverified", reason="NVML does not answer any more")
            return None
        more_bytes = now.used_bytes - before.used_bytes
        if more_bytes <= TOLERANCE_BYTES:
            events.emit("memory.returned", more_bytes=max(0, more_bytes), duration_s=waited_s)
            return None
        if waited_s >= wait_s:
            break
        await asyncio.sleep(_POLL_S)
    if strangers := sorted(now.pids - before.pids):
        reason = f"others compute on the GPU now: pid {', '.join(map(str, strangers))}"
        events.emit("memory.unverified", reason=reason)
        return None
    missing = (
        f"{format_bytes(more_bytes)} more of the GPU's memory are in use than before they started, "
        f"{waited_s:.0f} s after their end"
    )
    events.emit("memory.leftover", more_bytes=more_bytes, duration_s=waited_s)
    return missing


async def _use(device: Device, driver: Driver) -> _Use | None:
    """What NVML says now; None where there is no GPU, or nothing is told."""
    if device.kind not in (DeviceKind.CUDA, DeviceKind.VIRTUAL):
        return None
    try:
        condition = await asyncio.to_thread(driver.nvml.condition, device.id)
        processes = await asyncio.to_thread(driver.nvml.compute_processes, device.id)
    except NvmlUnavailableError:
        return None
    if condition.used_bytes is None:
        return None
    return _Use(condition.used_bytes, frozenset(process.pid for process in processes))
