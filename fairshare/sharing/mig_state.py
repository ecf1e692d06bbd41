"""The MIG state of one GPU: a snapshot, one change at a time, and each one's way back.

Only what we made is ever destroyed: an instance of our profile at the memory slice that we chose.
What counts is what the driver lists afterwards: a command that says it succeeded may have left the
instance, and one that says "All done." a pending mode.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass

from fairshare.devices.constants import MigProfile
from fairshare.errors import PartitionError
from fairshare.sharing import rights
from fairshare.sharing.nvidia_smi import (
    ComputeInstance,
    GpuInstance,
    GpuModes,
    MigDevice,
    MigMode,
    NvidiaSmi,
    said,
)
from fairshare.sharing.tools import Answer

ENABLED, DISABLED = "Enabled", "Disabled"
PATIENCE_S = 5.0  # an instance may be in use for a moment after its last process
_RETRY_S = 0.5
_MADE = "Successfully created GPU instance"
_REFUSED = "Insufficient Permissions"
_IN_USE = "In use by another client"
ANY_BOOT = "-"  # in place of a boot id: a simulated GPU is a folder and survives every reboot
_STOP_OTHERS = "stop whatever else uses the GPU (persistence daemon, DCGM, a display)"
_EMULATE = ", or run with --mig emulated"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance of ours lies or is to lie; nobody else's can lie there as well."""

    profile_id: int
    start: int

    def holds(self, instance: GpuInstance) -> bool:
        """Whether this is the instance at this place."""
        return (instance.profile_id, instance.start) == (self.profile_id, self.start)


@dataclass(frozen=True, slots=True)
class MigSnapshot:
    """Modes and instances of a GPU at one moment."""

    modes: GpuModes
    gpu_instances: tuple[GpuInstance, ...]
    compute_instances: tuple[ComputeInstance, ...]

    def differences(self, later: MigSnapshot) -> list[str]:
        """What is not as it was, in words; empty if everything is."""
        return [
            *_differing("MIG mode", self.modes.mig, later.modes.mig),
            *_other_differences(self.modes, later.modes),
            *_differing("GPU instances", self.gpu_instances, later.gpu_instances),
            *_differing("compute instances", self.compute_instances, later.compute_instances),
        ]


async def snapshot(smi: NvidiaSmi) -> MigSnapshot:
    """The GPU's MIG state now."""
    return MigSnapshot(
        modes=await smi.modes(),
        gpu_instances=tuple(sorted(await smi.gpu_instances())),
        compute_instances=tuple(sorted(await smi.compute_instances())),
    )


async def switch_mode(smi: NvidiaSmi, enabled: bool, *, may_reset: bool = False) -> GpuModes:
    """Turn MIG mode on or off and see that it is; ``may_reset`` the GPU if it is only pending.

    Raises:
        PartitionError: it is not, or only after a reset ("pending").
    """
    wanted = ENABLED if enabled else DISABLED
    answers = [await smi.set_mig_mode(enabled)]
    modes = await smi.modes()
    if may_reset and modes.mig.pending == wanted != modes.mig.current:
        answers.append(await smi.reset())
        modes = await smi.modes()
    if modes.mig != MigMode(wanted, wanted):
        raise PartitionError(
            f"MIG mode of GPU {smi.gpu} is {modes.mig.current} (pending: {modes.mig.pending}) and "
            f"should be {wanted}",
            evidence=said(answers),
            hint=rights.HINT if _refused(answers) else _STOP_OTHERS + (_EMULATE if enabled else ""),
        )
    return modes


async def turn_off(smi: NvidiaSmi, found: GpuModes | None, *, may_reset: bool) -> None:
    """Turn MIG mode off where nobody uses it, and set again what a reset may have changed.

    Compute and persistence mode become as ``found``; None leaves them as they are.

    Raises:
        PartitionError: there are instances (turning it off would leave a pending change), it
            cannot be turned off now, or another mode could not be set again.
    """
    now = await smi.modes()
    if now.mig != MigMode(DISABLED, DISABLED):
        if there := await smi.gpu_instances():
            raise PartitionError(
                f"MIG mode of GPU {smi.gpu} was left on, since it has instances: "
                + ", ".join(map(_told, there)),
                hint="fairshare clean turns it off once they are gone",
            )
        now = await switch_mode(smi, False, may_reset=may_reset)
    if found is not None:
        await _set_others(smi, now, found)


async def _set_others(smi: NvidiaSmi, now: GpuModes, found: GpuModes) -> None:
    answers = []
    if now.compute != found.compute:
        answers.append(await smi.set_compute_mode(found.compute))
    if now.persistence != found.persistence:
        answers.append(await smi.set_persistence_mode(found.persistence))
    if answers and (wrong := _other_differences(found, await smi.modes())):
        raise PartitionError(
            f"GPU {smi.gpu} is not as it was found: {'; '.join(wrong)}",
            evidence=said(answers),
            hint=rights.HINT if _refused(answers) else None,
        )


async def make_instance(smi: NvidiaSmi, profile: MigProfile, start: int) -> MigDevice | None:
    """Create an instance at a place that is free; return the MIG device that CUDA can use.

    None: the driver refused, and what lies there now is somebody else's.

    Raises:
        PartitionError: it was not created, or in part, or cannot be told from the others.
    """
    before = {device.uuid for device in await smi.mig_devices()}
    answer = await smi.create(profile.id, start)
    place = Place(profile.id, start)
    there = any(place.holds(instance) for instance in await smi.gpu_instances())
    if not there:
        raise PartitionError(
            f"the MIG instance {profile.name} was not created at {start} on GPU {smi.gpu}",
            evidence=said([answer]),
            hint=rights.HINT if _refused([answer]) else None,
        )
    if answer.returncode != 0 and _MADE not in answer.output:
        return None
    new = [
        device
        for device in await smi.mig_devices()
        if device.uuid not in before and device.profile == profile.name
    ]
    if len(new) != 1:
        what = "has no compute instance" if not new else "cannot be told from another new one"
        raise PartitionError(
            f"the MIG instance {profile.name} at {start} on GPU {smi.gpu} {what}",
            evidence=said([answer]),
        )
    return new[0]


async def destroy_instances(
    smi: NvidiaSmi, places: Collection[Place], patience_s: float = PATIENCE_S
) -> None:
    """Destroy our instances at these places, compute instances first, and see them gone.

    Raises:
        PartitionError: one is still there after some time; what is left, and why.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        answers: list[Answer] = []
        ours = {i.id for i in await smi.gpu_instances() if any(p.holds(i) for p in places)}
        for number in sorted(ours, reverse=True):
            answers.append(await smi.destroy_compute_instances(number))
            if _IN_USE not in answers[-1].output:
                answers.append(await smi.destroy_gpu_instance(number))
        left = [i for i in await smi.gpu_instances() if i.id in ours] if ours else []
        if not left:
            return
        if time.monotonic() > deadline_s or _refused(answers):
            raise PartitionError(
                f"MIG instances of GPU {smi.gpu} cannot be destroyed: "
                + ", ".join(map(_told, left)),
                evidence=said(answers),
                hint=rights.HINT
                if _refused(answers)
                else "DCGM often holds one without showing up as a process: restart it, "
                "then run fairshare clean",
            )
        await asyncio.sleep(_RETRY_S)


def _other_differences(found: GpuModes, later: GpuModes) -> list[str]:
    return [
        *_differing("compute mode", found.compute, later.compute),
        *_differing("persistence mode", found.persistence, later.persistence),
    ]


def _differing(what: str, was: object, now: object) -> list[str]:
    return [] if was == now else [f"{what}: was {_told(was)}, is {_told(now)}"]


def _refused(answers: Collection[Answer]) -> bool:
    return any(_REFUSED in answer.output for answer in answers)


def _told(value: object) -> str:
    """A mode, or instances, as people write them."""
    if isinstance(value, MigMode):
        pending = "" if value.pending == value.current else f" (pending: {value.pending})"
        return value.current + pending
    if isinstance(value, tuple):
        return ", ".join(map(_told, value)) or "none"
    if isinstance(value, GpuInstance):
        return f"{value.profile} at {value.start} (id {value.id})"
    if isinstance(value, ComputeInstance):
        return f"{value.id} of GPU instance {value.gpu_instance}"
    return str(value)
