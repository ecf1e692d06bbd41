"""One stay on a GPU in MIG mode: what was found, what we changed, and the way back."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from fairshare.devices.constants import MigProfile
from fairshare.errors import PartitionError
from fairshare.processes.identity import boot_id
from fairshare.processes.scope import RunScope
from fairshare.sharing.mig_layout import creation_order
from fairshare.sharing.mig_state import (
    ENABLED,
    MigSnapshot,
    destroy_instances,
    make_instance,
    snapshot,
    switch_mode,
)
from fairshare.sharing.nvidia_smi import MigDevice, NvidiaSmi
from fairshare.sharing.tools import undo_env


class MigSession:
    """Journals each change before it is made; ``restore`` compares with the snapshot."""

    def __init__(
        self, smi: NvidiaSmi, found: MigSnapshot, scope: RunScope, driver_env: Mapping[str, str]
    ) -> None:
        self.found = found
        self._smi = smi
        self._scope = scope
        self._env = {**driver_env, **undo_env()}
        self._steps: list[int] = []

    @classmethod
    async def open(cls, gpu: str, scope: RunScope, driver_env: Mapping[str, str]) -> MigSession:
        """Look at the GPU, and refuse one that somebody else has arranged.

        Raises:
            PartitionError: it has no MIG, a change of mode is pending, or it has instances.
        """
        smi = NvidiaSmi(gpu, driver_env)
        found = await snapshot(smi)
        if found.mode.current != found.mode.pending:
            raise PartitionError(
                f"a change of MIG mode is pending on GPU {gpu}: {found.mode.current} now, "
                f"{found.mode.pending} after the next reset",
                hint=f"reset it (sudo nvidia-smi -i {gpu} --gpu-reset) or reboot",
            )
        if found.gpu_instances:
            names = ", ".join(i.profile for i in found.gpu_instances)
            raise PartitionError(
                f"GPU {gpu} has MIG instances that fairshare did not make: {names}",
                hint="destroy them (nvidia-smi mig -dci; nvidia-smi mig -dgi) or use another GPU",
            )
        return cls(smi, found, scope, driver_env)

    async def enable(self) -> None:
        """Turn MIG mode on if it is off.

        Raises:
            PartitionError: it cannot be turned on now.
        """
        if self.found.mode.current == ENABLED:
            return
        self._intend("mig-off")
        await switch_mode(self._smi, True)
        self._scope.events.emit("partition.mig_mode", gpu=self._smi.gpu, mode=ENABLED)

    async def make(self, profiles: Mapping[str, MigProfile]) -> dict[str, MigDevice]:
        """One instance per slot name, the largest first.

        Raises:
            PartitionError: one could not be made.
        """
        await self._check_offered(list(profiles.values()))
        self._intend("mig-instances", *(str(i.id) for i in self.found.gpu_instances))
        order = creation_order(list(profiles.values()))
        made: dict[str, MigDevice] = {}
        for name in sorted(profiles, key=lambda name: order.index(profiles[name])):
            started_s = time.monotonic()
            made[name] = await make_instance(self._smi, profiles[name])
            self._scope.events.emit(
                "partition.mig_created",
                slot=name,
                profile=profiles[name].name,
                uuid=made[name].uuid,
                duration_s=time.monotonic() - started_s,
            )
        return made

    async def restore(self) -> None:
        """Put back what was found, and say so only if it is.

        Raises:
            PartitionError: something is not as it was; the journal keeps the way back.
        """
        started_s = time.monotonic()
        await destroy_instances(self._smi, keep={i.id for i in self.found.gpu_instances})
        if await self._smi.mig_mode() != self.found.mode:
            await switch_mode(self._smi, self.found.mode.current == ENABLED)
        if wrong := self.found.differences(await snapshot(self._smi)):
            raise PartitionError(
                f"GPU {self._smi.gpu} is not as it was found",
                evidence=wrong,
                hint="nvidia-smi mig -lgi shows its instances; fairshare clean tries again",
            )
        for step in self._steps:
            self._scope.journal.done(step)
        duration_s = time.monotonic() - started_s
        self._scope.events.emit("partition.restored", gpu=self._smi.gpu, duration_s=duration_s)

    async def _check_offered(self, profiles: Sequence[MigProfile]) -> None:
        """Compare our table of profiles with the driver's, which is right where they differ."""
        offered = {p.id: p.name for p in await self._smi.profiles()}
        for profile in profiles:
            if offered.get(profile.id) != profile.name:
                instead = offered.get(profile.id, "nothing")
                raise PartitionError(
                    f"GPU {self._smi.gpu} offers {instead} as MIG profile {profile.id}, "
                    f"not {profile.name}",
                    hint="this board differs from its model's table in fairshare/devices/gpus.yaml",
                )

    def _intend(self, undoing: str, *arguments: str) -> None:
        command = [undoing, self._smi.gpu, boot_id(), *arguments]
        undo = [sys.executable, "-m", "fairshare.sharing.undo", *command]
        step = f"{undoing} on GPU {self._smi.gpu}"
        self._steps.append(self._scope.journal.intend(step, [undo], self._env))
