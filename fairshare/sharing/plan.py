"""What will be done to a device before servers start on it: plans, slots, and who makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fairshare.devices.device import Device
from fairshare.processes.scope import RunScope
from fairshare.records import Mark, Mode, Provenance


@dataclass(frozen=True, slots=True)
class TenantDemand:
    """What a partitioner needs to know of a tenant. ``model`` is a resolved path or name."""

    name: str
    model: str
    adapter: str | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """One server's share of the device.

    ``compute_fraction`` and ``memory_fraction`` are of the whole device; ``cpu_set`` are the
    logical CPUs the server may run on and ``threads`` how many compute threads it gets (CPU
    device only); ``memory_bytes`` is an enforced cap where there is one; ``mig_profile`` names the
    MIG profile that the slot has or emulates; ``env`` is what binds the server to its share.
    """

    name: str
    tenants: tuple[str, ...]
    model: str
    adapters: Mapping[str, str] = field(default_factory=dict)  # tenant -> adapter path
    compute_fraction: float = 1.0
    memory_fraction: float = 1.0
    memory_bytes: int | None = None
    cpu_set: tuple[int, ...] | None = None
    threads: int | None = None
    mig_profile: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """A device, a mode and the slots that the mode cuts it into.

    ``label`` is the mode as shown to people (``mps-cpu``, ``mig-emulated``); ``steps`` are the
    commands that change the device, in order, for people to read; ``notes`` are sentences that
    belong beside every figure; ``details`` say what of the making defines a cell, if anything does.
    """

    mode: Mode
    label: str
    provenance: Provenance
    device: Device
    slots: tuple[Slot, ...]
    steps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerView:
    """What there is to look at a running server by.

    ``reports`` is the folder where the engine reports from inside (None: this one does not),
    ``kv_bytes`` the KV cache that it was told to hold, ``probe`` what a process with the server's
    environment saw before the start.
    """

    pids: Sequence[int]
    reports: Path | None = None
    kv_bytes: int | None = None
    probe: Mapping[str, Any] | None = None


class Partitioner(Protocol):
    """Plans and makes the shares of one mode on one kind of device."""

    def plan(self, device: Device, tenants: Sequence[TenantDemand]) -> PartitionPlan:
        """What would be done; pure.

        Raises:
            InfeasibleError: this mode cannot serve these tenants on this device, and why.
        """
        ...

    def apply(
        self, plan: PartitionPlan, scope: RunScope
    ) -> AbstractAsyncContextManager[PartitionPlan]:
        """Make the shares; yield the plan with what was learned (UUIDs, pipe paths) filled in.

        On exit the device is as it was found.

        Raises:
            PartitionError: a share could not be made, or the device not put back.
        """
        ...

    async def verify(self, slot: Slot, server: ServerView) -> dict[str, Any]:
        """Look from inside the running server whether it has the slot's share.

        Returns what was seen, for ``cell.json`` (key ``verified``: bool, and the evidence).

        Raises:
            PartitionError: the server does not have the share it was given, or that cannot be
                told.
        """
        ...

    async def health(self) -> str | None:
        """Why the verified shares are not in force any more, None while they are.

        All servers of the deployment have to be stopped then.
        """
        return None

    async def until_usable(self) -> None:
        """Return when servers can be started again on the shares, all earlier ones being gone.

        Raises:
            PartitionError: they cannot.
        """
        return
