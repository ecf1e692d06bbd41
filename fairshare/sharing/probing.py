"""Tries a share before a server is started on it: a small CUDA program in the same environment."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.errors import PartitionError
from fairshare.sharing.cuda_shares import differences
from fairshare.sharing.plan import PartitionPlan, Slot
from fairshare.sharing.slots import Binding, binding_of
from fairshare.sharing.tools import run_tool
from fairshare.spec.launcher import DeviceKind

_PROGRAM = Path(__file__).with_name("probe_cuda.py")
_TIMEOUT_S = 60.0  # the first context on a machine with many GPUs takes seconds
_NOT_READY = 807  # the MPS server starts, or recovers from a fault
_ATTEMPTS = 10
_PAUSE_S = 1.0

_HINTS = {
    805: "the MPS daemon is not reached: look at its log in the run's folder",
    46: "the GPU is in compute mode EXCLUSIVE_PROCESS and taken: is somebody else's process on it?",
    100: "no GPU is visible: is CUDA_VISIBLE_DEVICES of the launcher right?",
    None: "the driver's libcuda is needed, which comes with it",
}


async def probe_shares(plan: PartitionPlan, driver: Driver) -> dict[str, dict[str, Any]]:
    """What a process with each slot's environment sees of a real GPU; nothing on other devices.

    Raises:
        PartitionError: it is not what was planned, or there is no GPU to be seen.
    """
    if plan.device.kind is not DeviceKind.CUDA:
        return {}
    return {slot.name: await probe(plan.device, slot, driver) for slot in plan.slots}


async def probe(device: Device, slot: Slot, driver: Driver) -> dict[str, Any]:
    """What a process with the slot's environment sees.

    Raises:
        PartitionError: it is not what was planned, or there is no GPU to be seen.
    """
    seen = await _run(slot, driver)
    for _ in range(_ATTEMPTS):
        if seen.get("code") != _NOT_READY:
            break
        await asyncio.sleep(_PAUSE_S)
        seen = await _run(slot, driver)
    if "error" in seen:
        raise PartitionError(
            f"a process with the environment of server {slot.name} cannot use the GPU: "
            f"{seen['error']}",
            hint=_HINTS.get(seen.get("code")),
        )
    if wrong := differences(device, slot, seen):
        raise PartitionError(
            f"the share of server {slot.name} is not in force: a process with its environment "
            "sees another one",
            evidence=wrong,
        )
    return seen


async def _run(slot: Slot, driver: Driver) -> dict[str, Any]:
    capped = binding_of(slot) is Binding.MPS and slot.memory_bytes
    argv = [sys.executable, "-I", "-S", str(_PROGRAM), str(slot.memory_bytes if capped else 0)]
    # Servers do not inherit what the user's own MPS clients are told, so the probe must not either.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_MPS_")}
    answer = await run_tool(argv, {**ours, **driver.env, **slot.env}, timeout_s=_TIMEOUT_S)
    try:
        seen: dict[str, Any] = json.loads(answer.lines[-1])
    except (ValueError, IndexError):
        raise PartitionError(
            f"the probe of server {slot.name}'s share ended with code {answer.returncode}",
            evidence=answer.lines[-10:],
        ) from None
    return seen
