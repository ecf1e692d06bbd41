"""What can be seen of a server's share of a real GPU from outside of the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairshare.devices.constants import GIB
from fairshare.devices.device import Device
from fairshare.devices.nvml import Nvml, NvmlUnavailableError
from fairshare.errors import PartitionError
from fairshare.sharing.plan import Slot
from fairshare.units import format_bytes

# A limit counts allocations; the driver's own context comes on top (some hundred MiB).
_CONTEXT_ALLOWANCE_BYTES = GIB


def verify_outside(device: Device, nvml: Nvml, slot: Slot, pids: Sequence[int]) -> dict[str, Any]:
    """Look with NVML for the server on the device; caps cannot be proved from here.

    Raises:
        PartitionError: the server holds more memory than its cap, so it has none.
    """
    try:
        running = nvml.compute_processes(device.id)
    except NvmlUnavailableError as error:
        return {"verified": False, "why": f"NVML does not answer: {error}"}
    own = [process for process in running if process.pid in set(pids)]
    if not own:
        why = "NVML lists no process of this server on the GPU (other process ids in a container?)"
        return {"verified": False, "why": why}
    used = [process.memory_bytes for process in own if process.memory_bytes is not None]
    seen = {"gpu_pids": [p.pid for p in own], "gpu_memory_bytes": sum(used) if used else None}
    if slot.memory_bytes is not None and sum(used) > slot.memory_bytes + _CONTEXT_ALLOWANCE_BYTES:
        raise PartitionError(
            f"the server {slot.name} holds {format_bytes(sum(used))} of GPU memory, its cap is "
            f"{format_bytes(slot.memory_bytes)}: the cap is not in force"
        )
    if slot.memory_bytes is None and slot.compute_fraction == 1.0:
        return {"verified": True, **seen}
    why = "the server runs on the GPU; whether its caps are in force shows only from inside it"
    return {"verified": False, "why": why, **seen}
