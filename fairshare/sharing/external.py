"""Servers that somebody else shares a device between: nothing to do, nothing to verify."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fairshare.devices.device import Device
from fairshare.processes.scope import RunScope
from fairshare.records import Mode, Provenance
from fairshare.sharing.plan import (
    Partitioner,
    PartitionPlan,
    ServerView,
    Slot,
    TenantDemand,
)


class ExternalPartitioner(Partitioner):
    """Takes the mode on its owner's word. A tenant's ``model`` is the name of its endpoint."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode

    def plan(self, device: Device, tenants: Sequence[TenantDemand]) -> PartitionPlan:
        """One slot per endpoint."""
        endpoints: dict[str, list[str]] = {}
        for tenant in tenants:
            endpoints.setdefault(tenant.model, []).append(tenant.name)
        return PartitionPlan(
            mode=self.mode,
            label=self.mode.value,
            provenance=Provenance.MEASURED_UNVERIFIED,
            device=device,
            slots=tuple(
                Slot(name=name, tenants=tuple(users), model=name)
                for name, users in endpoints.items()
            ),
            notes=("The mode is as declared by whoever runs the servers; it was not verified.",),
        )

    @asynccontextmanager
    async def apply(self, plan: PartitionPlan, scope: RunScope) -> AsyncIterator[PartitionPlan]:
        """Nothing is changed."""
        yield plan

    async def verify(self, slot: Slot, server: ServerView) -> dict[str, Any]:
        """Say that nothing could be seen."""
        return {"slot": slot.name, "verified": False, "why": "the server is somebody else's"}
