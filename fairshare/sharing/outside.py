"""What can be seen of a server on a real GPU from outside of it: NVML, and its environment."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from fairshare.devices.constants import GIB
from fairshare.devices.device import Device
from fairshare.devices.nvml import Nvml, NvmlUnavailableError
from fairshare.errors import PartitionError
from fairshare.processes.labelled import environment_of
from fairshare.sharing.plan import Slot
from fairshare.units import format_bytes

# A limit counts allocations; the driver's own context comes on top (some hundred MiB).
_CONTEXT_ALLOWANCE_BYTES = GIB


def seen_by_nvml(device: Device, nvml: Nvml, slot: Slot, pids: Sequence[int]) -> dict[str, Any]:
    """Which processes of a server are on the GPU, and the memory they hold there.

    In a container NVML may know them by other numbers, so an empty list proves nothing.

    Raises:
        PartitionError: the server holds more memory than its cap, so it has none.
    """
    try:
        running = nvml.compute_processes(device.id)
    except NvmlUnavailableError as error:
        return {"nvml": f"does not answer: {error}"}
    own = [process for process in running if process.pid in set(pids)]
    used = [process.memory_bytes for process in own if process.memory_bytes is not None]
    if slot.memory_bytes is not None and sum(used) > slot.memory_bytes + _CONTEXT_ALLOWANCE_BYTES:
        raise PartitionError(
            f"the server {slot.name} holds {format_bytes(sum(used))} of GPU memory, its cap is "
            f"{format_bytes(slot.memory_bytes)}: the cap is not in force"
        )
    return {"gpu_pids": [p.pid for p in own], "gpu_memory_bytes": sum(used) if used else None}


def check_environment(slot: Slot, pids: Sequence[int], on_gpu: Collection[int]) -> None:
    """Make sure that a server's processes have what binds them to the share.

    ``on_gpu``: those that NVML lists; where it lists none, all of them are looked at.

    Raises:
        PartitionError: one lacks it, and so may compute without any limit.
    """
    for pid in on_gpu or pids:
        environment = environment_of(pid)
        if not environment:
            continue  # it has ended since
        lost = [name for name, value in slot.env.items() if environment.get(name) != value]
        if lost:
            raise PartitionError(
                f"process {pid} of the server {slot.name} does not have "
                f"{', '.join(sorted(lost))} as its share needs it",
                hint="the launcher or the engine changes the environment of its processes",
            )
