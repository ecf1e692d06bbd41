"""The MIG profiles of one GPU and where they may lie: as its driver lists them, else as known.

A board may differ from its model's table in ``devices/gpus.yaml`` (other memory, other firmware);
what its own driver lists is right then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fairshare.devices.constants import MigProfile, spec_of_product
from fairshare.devices.device import Device
from fairshare.errors import PartitionError
from fairshare.sharing.nvidia_smi import ListedProfile, NvidiaSmi
from fairshare.spec.launcher import DeviceKind

_AMPERE = "ampere"


@dataclass(frozen=True, slots=True)
class MigTable:
    """What a GPU can be cut into. ``toggle_needs_reset``: Ampere, which keeps the mode, too."""

    product: str
    sm_count: int
    profiles: tuple[MigProfile, ...]
    toggle_needs_reset: bool = False

    @property
    def compute_slices(self) -> int:
        """Compute slices of the whole GPU."""
        return max(profile.compute_slices for profile in self.profiles)

    @property
    def memory_slices(self) -> int:
        """Memory slices of the whole GPU: the unit of placements."""
        return max(start + p.memory_slices for p in self.profiles for start in p.starts)


def smi_name(device: Device) -> str:
    """How ``nvidia-smi`` is told which GPU: by UUID, the simulated one by index."""
    return device.id if device.kind is DeviceKind.CUDA else str(device.index or 0)


def known_table(device: Device) -> MigTable | None:
    """The table of the device's model; None where the model has no MIG or is not known."""
    spec = spec_of_product(device.name)
    if spec is None or not spec.mig_capable:
        return None
    return MigTable(spec.product, spec.sm_count, spec.mig_profiles, spec.mig_toggle_needs_reset)


async def read_table(device: Device, smi: NvidiaSmi) -> MigTable | None:
    """The table as the GPU's own driver has it, else the model's; changes nothing.

    A profile whose placements the driver does not tell has those of the model's table; where that
    does not have it either, it is left out.
    """
    known = known_table(device)
    try:
        listed = await smi.profiles()
        placements = {each.profile_id: each for each in await smi.placements()}
    except PartitionError:
        return known
    by_name = {profile.name: profile for profile in known.profiles} if known else {}
    profiles: list[MigProfile] = []
    for row in listed:
        told = placements.get(row.id)
        starts = told.starts if told else ()
        size = told.size if told else 0
        if not starts and (model := by_name.get(row.name)):
            starts, size = model.starts, model.memory_slices
        if starts:
            profiles.append(_profile(row, starts, size))
    if not profiles:
        return known
    if known:
        return replace(known, profiles=tuple(profiles))
    sm_count = device.sm_count or max(profile.sm_count for profile in profiles)
    return MigTable(device.name, sm_count, tuple(profiles), device.architecture == _AMPERE)


def _profile(row: ListedProfile, starts: tuple[int, ...], size: int) -> MigProfile:
    return MigProfile(
        name=row.name,
        id=row.id,
        instances=row.total,
        memory_gib=row.memory_gib,
        sm_count=row.sm_count,
        compute_slices=int(row.name.partition("g")[0]),
        memory_slices=size,
        starts=starts,
        engines=row.engines,
    )
