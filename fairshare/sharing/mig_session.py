"""One stay on a GPU in MIG mode: what was found, what we changed, and the way back."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from fairshare.devices.constants import MigProfile
from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.errors import FairshareError, PartitionError
from fairshare.processes.identity import boot_id
from fairshare.processes.scope import RunScope
from fairshare.sharing.mig_layout import Placed, choose_in_room
from fairshare.sharing.mig_state import (
    ANY_BOOT,
    DISABLED,
    ENABLED,
    MigSnapshot,
    Place,
    destroy_instances,
    make_instance,
    snapshot,
    switch_mode,
    turn_off,
)
from fairshare.sharing.mig_table import MigTable, smi_name
from fairshare.sharing.nvidia_smi import GpuInstance, MigDevice, NvidiaSmi
from fairshare.sharing.tools import undo_env
from fairshare.spec.launcher import DeviceKind


class MigSession:
    """Journals each change before it is made; ``restore`` compares with the snapshot."""

    def __init__(
        self,
        smi: NvidiaSmi,
        found: MigSnapshot,
        table: MigTable,
        scope: RunScope,
        driver: Driver,
        *,
        may_reset: bool,
        boot: str,
    ) -> None:
        self.found = found
        self._smi = smi
        self._table = table
        self._scope = scope
        self._driver = driver
        self._may_reset = may_reset and table.toggle_needs_reset
        self._boot = boot
        self._mode_step: int | None = None
        self._made: dict[Place, int] = {}

    @classmethod
    async def open(
        cls, device: Device, table: MigTable, scope: RunScope, driver: Driver, *, may_reset: bool
    ) -> MigSession:
        """Look at the GPU, and refuse one whose state is not settled.

        Raises:
            PartitionError: it has no MIG, or a change of mode is pending.
        """
        gpu = smi_name(device)
        smi = NvidiaSmi(gpu, scope.labelled(driver.env))
        found = await snapshot(smi)
        mode = found.modes.mig
        if mode.current not in (ENABLED, DISABLED):
            raise PartitionError(f"GPU {gpu} has no MIG: its mode is {mode.current}")
        if mode.current != mode.pending:
            raise PartitionError(
                f"a change of MIG mode is pending on GPU {gpu}: {mode.current} now, "
                f"{mode.pending} after the next reset",
                hint=f"reset it (sudo nvidia-smi --gpu-reset -i {gpu}) or reboot; where a run of "
                "fairshare was killed, fairshare clean",
            )
        boot = boot_id() if device.kind is DeviceKind.CUDA else ANY_BOOT
        return cls(smi, found, table, scope, driver, may_reset=may_reset, boot=boot)

    async def enable(self) -> None:
        """Turn MIG mode on if it is off.

        Raises:
            PartitionError: it cannot be turned on now.
        """
        if self.found.modes.mig.current == ENABLED:
            return
        if self._table.toggle_needs_reset and not self._may_reset:
            raise PartitionError(
                f"MIG mode is off on GPU {self._smi.gpu}, and on this architecture turning it on "
                "resets the GPU and survives a reboot",
                hint="allow it with --allow-gpu-reset (it is turned off again at the end), or turn "
                f"it on yourself: sudo nvidia-smi -i {self._smi.gpu} -mig 1",
            )
        if self._driver.nvml.is_held():
            raise PartitionError("our own NVML still holds the GPU open; MIG mode cannot change")
        keeps = "kept" if self._table.toggle_needs_reset else "lost"
        reset = "reset" if self._may_reset else "no-reset"
        modes = (self.found.modes.compute, self.found.modes.persistence)
        self._mode_step = self._intend("MIG mode", "mig-off", keeps, reset, *modes)
        await switch_mode(self._smi, True, may_reset=self._may_reset)
        self._scope.events.emit("partition.mig_mode", gpu=self._smi.gpu, mode=ENABLED)

    async def make(self, profiles: Mapping[str, MigProfile]) -> dict[str, MigDevice]:
        """One instance per slot name in the room that is free, the largest first.

        Raises:
            PartitionError: there is not enough room, or one could not be made.
        """
        await self._check_offered(profiles)
        taken = [_placed(self._table, i) for i in await self._smi.gpu_instances()]
        starts = choose_in_room(self._table, list(profiles.values()), taken)
        placed = dict(zip(profiles, starts, strict=True))
        made: dict[str, MigDevice] = {}
        for name in sorted(profiles, key=lambda name: -profiles[name].memory_slices):
            made[name] = await self._make_one(name, profiles[name], placed[name])
        return {name: made[name] for name in profiles}

    async def restore(self, after: BaseException | None = None) -> None:
        """Put back what was found, and say so only if it is; ``after`` is what went wrong before.

        Raises:
            PartitionError: something is not as it was; the journal keeps the way back.
        """
        try:
            await self._restore()
        except PartitionError as error:
            if "fairshare clean" not in (error.hint or ""):
                again = "the GPU is left changed: fairshare clean tries again to put it back"
                error.hint = f"{error.hint}; {again}" if error.hint else again
            if isinstance(after, FairshareError):
                error.evidence = (*error.evidence, f"before that: {after.message}")
            raise

    async def _restore(self) -> None:
        started_s = time.monotonic()
        if self._made:
            await destroy_instances(self._smi, self._made)
        for place in list(self._made):
            self._scope.journal.done(self._made.pop(place))
        if self._mode_step is not None:
            await turn_off(self._smi, self.found.modes, may_reset=self._may_reset)
        if wrong := self.found.differences(await snapshot(self._smi)):
            raise PartitionError(
                f"GPU {self._smi.gpu} is not as it was found",
                evidence=wrong,
                hint="nvidia-smi mig -lgi shows its instances; what others changed meanwhile was "
                "left alone",
            )
        if self._mode_step is not None:
            self._scope.journal.done(self._mode_step)
        duration_s = time.monotonic() - started_s
        self._scope.events.emit("partition.restored", gpu=self._smi.gpu, duration_s=duration_s)

    async def _make_one(self, name: str, profile: MigProfile, start: int) -> MigDevice:
        started_s = time.monotonic()
        place = Place(profile.id, start)
        what = f"MIG instance {profile.name} at {start}"
        step = self._intend(what, "mig-instance", str(profile.id), str(start))
        self._made[place] = step
        device = await make_instance(self._smi, profile, start)
        if device is None:
            self._scope.journal.done(self._made.pop(place))
            raise PartitionError(
                f"somebody else made a MIG instance on GPU {self._smi.gpu} where {profile.name} "
                f"was to be made, at {start}; it was left alone",
                hint="nvidia-smi mig -lgi shows its instances",
            )
        self._scope.events.emit(
            "partition.mig_created",
            slot=name,
            profile=profile.name,
            start=start,
            uuid=device.uuid,
            duration_s=time.monotonic() - started_s,
        )
        return device

    async def _check_offered(self, profiles: Mapping[str, MigProfile]) -> None:
        """Compare the table that was planned with and the driver's, which is right."""
        offered = {p.id: p.name for p in await self._smi.profiles()}
        for profile in profiles.values():
            if offered.get(profile.id) != profile.name:
                instead = offered.get(profile.id, "nothing")
                raise PartitionError(
                    f"GPU {self._smi.gpu} offers {instead} as MIG profile {profile.id}, "
                    f"not {profile.name}",
                    hint="this board differs from its model's table in fairshare/devices/gpus.yaml",
                )

    def _intend(self, what: str, undoing: str, *arguments: str) -> int:
        command = [undoing, self._smi.gpu, self._boot, *arguments]
        undo = [sys.executable, "-m", "fairshare.sharing.undo", *command]
        env = {**self._driver.env, **undo_env()}
        return self._scope.journal.intend(f"{what} on GPU {self._smi.gpu}", [undo], env)


def _placed(table: MigTable, instance: GpuInstance) -> Placed:
    """An instance that is there, as a profile; the driver may have it under a name of its own."""
    for profile in table.profiles:
        if (profile.id, profile.memory_slices) == (instance.profile_id, instance.size):
            return profile, instance.start
    compute = int(instance.profile.partition("g.")[0].rpartition(".")[2] or 0)
    unknown = MigProfile(
        name=instance.profile,
        id=instance.profile_id,
        instances=table.memory_slices,
        memory_gib=0.0,
        sm_count=0,
        compute_slices=compute,
        memory_slices=instance.size,
        starts=(instance.start,),
        engines=(0, 0, 0, 0, 0),
    )
    return unknown, instance.start
