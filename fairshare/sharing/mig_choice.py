"""Whether mode ``mig`` on a GPU makes instances or emulates them, and why."""

from __future__ import annotations

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.errors import InfeasibleError
from fairshare.sharing import rights
from fairshare.sharing.emulated import EmulatedMig
from fairshare.sharing.mig import Mig
from fairshare.sharing.mig_facts import MigFacts, facts_unasked
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import Partitioner
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.layouts import MigHow

_CHANGE = "--allow-gpu-changes makes real MIG instances, and destroys them again"
_WITH_RESET = (
    "--allow-gpu-changes --allow-gpu-reset resets the GPU to turn MIG on, and again to turn it off"
)


def mig_partitioner(device: Device, driver: Driver, options: SharingOptions) -> Partitioner:
    """Real MIG where it is wanted, allowed and possible; else, unless only that will do, emulated.

    Raises:
        InfeasibleError: real MIG is insisted on and cannot be had; why, and what to do.
    """
    how = options.mig.how
    if how is MigHow.EMULATED:
        return EmulatedMig(device, driver, options, "It was asked for with --mig emulated")
    if device.kind is DeviceKind.VIRTUAL:
        return Mig(device, driver, options)
    lacking = _lacking(device, options, options.mig_facts or facts_unasked(device))
    if lacking is None:
        return Mig(device, driver, options)
    reason, remedy = lacking
    if how is MigHow.REAL:
        raise InfeasibleError(f"real MIG cannot be had: {reason}", hint=remedy)
    return EmulatedMig(device, driver, options, f"It is not real, because {reason}; {remedy}")


def _lacking(device: Device, options: SharingOptions, facts: MigFacts) -> tuple[str, str] | None:
    """What stands in the way of real MIG, and what to do about it; None if nothing does."""
    if not device.mig_capable:
        return f"{device.name} has no MIG", "real MIG needs another GPU"
    if facts.table is None:
        return (
            f"neither the driver nor fairshare's table of GPUs tells the profiles of {device.name}",
            "see what `nvidia-smi mig -lgip` says",
        )
    needs_reset = facts.table.toggle_needs_reset and not facts.enabled
    if not options.allow_gpu_changes:
        return "the GPU's driver state may not be changed", _WITH_RESET if needs_reset else _CHANGE
    if needs_reset and not options.allow_gpu_reset:
        reason = "on this architecture turning MIG on resets the GPU and survives a reboot"
        return reason, _WITH_RESET
    return (facts.hindrance, rights.HINT) if facts.hindrance else None
