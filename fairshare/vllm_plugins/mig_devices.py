"""Which GPU a MIG device is on, for engines that take its number there for a GPU's number.

vLLM turns ``CUDA_VISIBLE_DEVICES=MIG-<uuid>`` into a GPU index by asking NVML for the index of the
MIG device. That counts within the parent GPU: the second MIG device of a machine's only GPU
becomes "GPU 1", which is not there. Versions before that refuse the UUID as no whole number.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_PREFIX = "MIG-"
_WRAPPED = "_fairshare_mig_devices"

_log = logging.getLogger("vllm.fairshare")


def register() -> None:
    """Map MIG devices to their parents; called by vLLM in each of its processes.

    As a platform plugin it runs before anything can ask for a GPU's index; its answer None says
    that it is no platform.
    """
    if _PREFIX not in os.environ.get(_VISIBLE, ""):
        return
    try:
        from vllm.platforms import cuda  # noqa: PLC0415

        map_to_parents(cuda)
    except Exception:
        _log.warning("fairshare: vLLM may not find its MIG device", exc_info=True)


def map_to_parents(cuda: Any) -> None:
    """Change the platform of the module ``vllm.platforms.cuda``. Idempotent.

    Raises:
        AttributeError: this vLLM has neither of the functions that are known to need it.
    """
    platform = cuda.NvmlCudaPlatform
    if hasattr(platform, "device_control_id_to_physical_device_id"):
        _replace(platform, "device_control_id_to_physical_device_id", cuda.pynvml, _as_it_is)
    else:
        _replace(platform, "device_id_to_physical_device_id", cuda.pynvml, _visible)


def _replace(platform: Any, name: str, nvml: Any, device_of: Callable[[Any], str | None]) -> None:
    """Answer for MIG devices, and leave all others to vLLM."""
    original = getattr(platform, name)
    if getattr(original.__func__, _WRAPPED, False):
        return

    def mapped(cls: Any, device_id: Any) -> int:
        device = device_of(device_id)
        if device is None or not device.startswith(_PREFIX):
            return int(original.__func__(cls, device_id))
        return parent_index(nvml, device)

    setattr(mapped, _WRAPPED, True)
    setattr(platform, name, classmethod(mapped))


def parent_index(nvml: Any, uuid: str) -> int:
    """The index of the GPU that a MIG device is on."""
    nvml.nvmlInit()
    try:
        device = nvml.nvmlDeviceGetHandleByUUID(uuid)
        return int(
            nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device))
        )
    finally:
        nvml.nvmlShutdown()


def _as_it_is(device_id: Any) -> str | None:
    return str(device_id)


def _visible(device_id: Any) -> str | None:
    """The entry of the variable that a CUDA ordinal stands for."""
    visible = [entry.strip() for entry in os.environ.get(_VISIBLE, "").split(",")]
    return visible[device_id] if device_id < len(visible) else None
