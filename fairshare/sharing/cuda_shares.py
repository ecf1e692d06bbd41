"""What a process sees of a real GPU, compared with the slot it was given. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fairshare.devices.constants import MIB
from fairshare.devices.device import Device
from fairshare.sharing.plan import Slot
from fairshare.sharing.slots import Binding, binding_of
from fairshare.units import format_bytes

# A thread percentage is rounded to whole pairs of SMs and to what the GPU's clusters allow: 25 % of
# 188 SMs are 46, not 47. Coarser rounding is allowed for; a share that is not in force at all, or
# that is another tenant's, differs by more wherever shares do.
_SM_PAIR = 2
_SM_FRACTION = 0.04
# CUDA leaves out what the driver keeps for itself, NVML and the tables of MIG profiles do not.
_TOTAL_FRACTION = 0.04
_TOTAL_BYTES = 512 * MIB
# Free memory is told in whole pages of the driver; more than this is no rounding.
_CAP_SLACK_BYTES = 64 * MIB


def differences(device: Device, slot: Slot, seen: Mapping[str, Any]) -> list[str]:
    """What of a share is not as planned: a line for each, none where it is in force.

    ``seen`` holds ``uuid sm_count total_bytes free_bytes``; what it lacks counts as a difference.
    """
    missing = [key for key in ("sm_count", "total_bytes", "free_bytes") if seen.get(key) is None]
    if missing:
        return [f"{key}: not told" for key in missing]
    return [
        *_place(device, slot, seen),
        *_compute(device, slot, seen),
        *_memory(device, slot, seen),
    ]


def _place(device: Device, slot: Slot, seen: Mapping[str, Any]) -> Iterator[str]:
    """CUDA names a MIG device by its own UUID or, in older versions, by its GPU's."""
    known = {_digits(device.id), _digits(slot.env.get("CUDA_VISIBLE_DEVICES", device.id))}
    if seen.get("uuid") is None or _digits(str(seen["uuid"])) not in known:
        yield f"device: planned {device.id}, has {seen.get('uuid')}"
    if seen.get("devices", 1) != 1:
        yield f"devices: planned 1, sees {seen['devices']}"


def _compute(device: Device, slot: Slot, seen: Mapping[str, Any]) -> Iterator[str]:
    if device.sm_count is None:
        yield f"SMs: how many {device.name} has is not known, so no share of them can be told"
        return
    planned = slot.compute_fraction * device.sm_count
    tolerance = float(_SM_PAIR)
    if binding_of(slot) is Binding.MPS:
        tolerance = max(tolerance, _SM_FRACTION * device.sm_count)
    if abs(seen["sm_count"] - planned) > tolerance:
        yield f"SMs: planned {planned:.0f} of {device.sm_count}, has {seen['sm_count']}"


def _memory(device: Device, slot: Slot, seen: Mapping[str, Any]) -> Iterator[str]:
    free, total = int(seen["free_bytes"]), int(seen["total_bytes"])
    if binding_of(slot) is Binding.MPS:  # the cap shows as what is free, not as the total
        cap = slot.memory_bytes
        if cap is not None and free > cap + _CAP_SLACK_BYTES:
            yield f"memory: planned {format_bytes(cap)}, but {format_bytes(free)} are free"
        if seen.get("beyond_cap_refused") is False:
            yield "memory: more than the cap could be allocated"
        return
    planned = device.memory_bytes if slot.memory_bytes is None else slot.memory_bytes
    if abs(total - planned) > max(_TOTAL_BYTES, _TOTAL_FRACTION * planned):
        yield f"memory: planned {format_bytes(planned)}, sees {format_bytes(total)}"


def _digits(uuid: str) -> str:
    return uuid.rpartition("GPU-")[2].rpartition("MIG-")[2].lower()
