"""The MIG state of one GPU: a snapshot, making instances, and putting everything back.

Only what we made is ever destroyed. What counts is what the driver lists afterwards: a command
that says it succeeded may have left the instance, and one that says "All done." a pending mode.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass

from fairshare.devices.constants import MigProfile
from fairshare.errors import PartitionError
from fairshare.sharing.nvidia_smi import (
    ComputeInstance,
    GpuInstance,
    MigDevice,
    MigMode,
    NvidiaSmi,
    said,
)
from fairshare.sharing.tools import Answer

ENABLED, DISABLED = "Enabled", "Disabled"
_GONE_S = 20.0  # an instance may be in use for a moment after its last process
_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class MigSnapshot:
    """Mode and instances of a GPU at one moment."""

    mode: MigMode
    gpu_instances: tuple[GpuInstance, ...]
    compute_instances: tuple[ComputeInstance, ...]

    def differences(self, later: MigSnapshot) -> list[str]:
        """What is not as it was, in words; empty if everything is."""
        pairs = (
            ("MIG mode", self.mode, later.mode),
            ("GPU instances", self.gpu_instances, later.gpu_instances),
            ("compute instances", self.compute_instances, later.compute_instances),
        )
        return [f"{what}: was {was}, is {now}" for what, was, now in pairs if was != now]


async def snapshot(smi: NvidiaSmi) -> MigSnapshot:
    """The GPU's MIG state now."""
    return MigSnapshot(
        mode=await smi.mig_mode(),
        gpu_instances=tuple(sorted(await smi.gpu_instances())),
        compute_instances=tuple(sorted(await smi.compute_instances())),
    )


async def switch_mode(smi: NvidiaSmi, enabled: bool) -> None:
    """Turn MIG mode on or off and see that it is.

    Raises:
        PartitionError: it is not, or only after a reset ("pending").
    """
    wanted = ENABLED if enabled else DISABLED
    answer = await smi.set_mig_mode(enabled)
    mode = await smi.mig_mode()
    if mode != MigMode(wanted, wanted):
        refused = any("Insufficient Permissions" in line for line in said([answer]))
        remedy = (
            "the mode may be changed by root only: run fairshare with sudo"
            if refused
            else "stop whatever else uses the GPU (persistence daemon, DCGM, a display)"
        )
        raise PartitionError(
            f"MIG mode of GPU {smi.gpu} is {mode.current} (pending: {mode.pending}) and should be "
            f"{wanted}",
            evidence=said([answer]),
            hint=f"{remedy}, or leave out --allow-gpu-changes",
        )


async def make_instance(smi: NvidiaSmi, profile: MigProfile) -> MigDevice:
    """Create an instance of a profile; return the MIG device that CUDA can use.

    Raises:
        PartitionError: it was not created, or cannot be told from the others.
    """
    before = {device.uuid for device in await smi.mig_devices()}
    answer = await smi.create(profile.id)
    new = [device for device in await smi.mig_devices() if device.uuid not in before]
    if len(new) != 1:
        raise PartitionError(
            f"the MIG instance {profile.name} was not created on GPU {smi.gpu}",
            evidence=said([answer]),
        )
    if new[0].profile != profile.name:
        raise PartitionError(
            f"GPU {smi.gpu} made a MIG device {new[0].profile}, {profile.name} was asked for",
            evidence=said([answer]),
        )
    return new[0]


async def destroy_instances(smi: NvidiaSmi, keep: Collection[int]) -> None:
    """Destroy every GPU instance but those to keep, compute instances first, newest first.

    Raises:
        PartitionError: one is still there after some time.
    """
    deadline = time.monotonic() + _GONE_S
    while True:
        answers: list[Answer] = []
        for compute in sorted(await smi.compute_instances(), reverse=True):
            if compute.gpu_instance not in keep:
                answers.append(await smi.destroy_compute_instance(compute.gpu_instance, compute.id))
        for instance in sorted(await smi.gpu_instances(), reverse=True):
            if instance.id not in keep:
                answers.append(await smi.destroy_gpu_instance(instance.id))
        left = [i for i in await smi.gpu_instances() if i.id not in keep]
        if not left:
            return
        if time.monotonic() > deadline:
            raise PartitionError(
                f"MIG instances of GPU {smi.gpu} cannot be destroyed: "
                + ", ".join(f"{i.profile} (id {i.id})" for i in left),
                evidence=said(answers),
                hint="DCGM often holds one without showing up as a process: restart it, "
                "then run fairshare clean",
            )
        await asyncio.sleep(_RETRY_S)
