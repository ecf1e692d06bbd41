"""Which GPU a UUID stands for, where the engine gets it wrong or takes numbers only.

vLLM turns ``CUDA_VISIBLE_DEVICES=MIG-<uuid>`` into a GPU index by asking NVML for the index of the
MIG device. That counts within the parent GPU: the second MIG device of a machine's only GPU
becomes "GPU 1", which is not there. Versions before that refuse every UUID, a whole GPU's too, as
no whole number (vllm#46132).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_MIG, _GPU = "MIG-", "GPU-"
_OF_ENTRY = "device_control_id_to_physical_device_id"
_WRAPPED = "_fairshare_mig_devices"

_log = logging.getLogger("vllm.fairshare")


def register() -> None:
    """Map UUIDs to the GPUs' numbers; called by vLLM in each of its processes.

    As a platform plugin it runs before anything can ask for a GPU's index; its answer None says
    that it is no platform.
    """
    visible = os.environ.get(_VISIBLE, "")
    if _MIG not in visible and _GPU not in visible:
        return
    try:
        from vllm.platforms.interface import Platform  # noqa: PLC0415

        if _MIG not in visible and hasattr(Platform, _OF_ENTRY):
            return  # a whole GPU's UUID is what this vLLM gets right
        from vllm.platforms import cuda  # noqa: PLC0415

        map_uuids(cuda)
    except Exception:
        _log.warning("fairshare: vLLM may not find its device %s", visible, exc_info=True)


def map_uuids(cuda: Any) -> None:
    """Change the platform of the module ``vllm.platforms.cuda``. Idempotent.

    Raises:
        AttributeError: this vLLM has neither of the functions that are known to need it.
    """
    platform = cuda.NvmlCudaPlatform
    if hasattr(platform, _OF_ENTRY):
        _replace(platform, _OF_ENTRY, cuda.pynvml, _as_it_is)
    else:
        _replace(platform, "device_id_to_physical_device_id", cuda.pynvml, _visible)


def _replace(platform: Any, name: str, nvml: Any, device_of: Callable[[Any], str | None]) -> None:
    """Answer for UUIDs, and leave all others to vLLM."""
    original = getattr(platform, name)
    if getattr(original.__func__, _WRAPPED, False):
        return

    def mapped(cls: Any, device_id: Any) -> int:
        device = device_of(device_id)
        if device is None or not device.startswith((_MIG, _GPU)):
            return int(original.__func__(cls, device_id))
        return gpu_index(nvml, device)

    setattr(mapped, _WRAPPED, True)
    setattr(platform, name, classmethod(mapped))


def gpu_index(nvml: Any, uuid: str) -> int:
    """The index of a GPU, or of the one that a MIG device is on."""
    nvml.nvmlInit()
    try:
        device = nvml.nvmlDeviceGetHandleByUUID(uuid)
        if uuid.startswith(_MIG):
            device = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device)
        return int(nvml.nvmlDeviceGetIndex(device))
    finally:
        nvml.nvmlShutdown()


def _as_it_is(device_id: Any) -> str | None:
    return str(device_id)


def _visible(device_id: Any) -> str | None:
    """The entry of the variable that a CUDA ordinal stands for."""
    visible = [entry.strip() for entry in os.environ.get(_VISIBLE, "").split(",")]
    return visible[device_id] if device_id < len(visible) else None
