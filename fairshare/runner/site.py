"""Where a plan's deployments run: the seam between a session and one machine, or many."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from fairshare.events import EventLog
from fairshare.results.store import ResultStore
from fairshare.runner.budget import Budget
from fairshare.runner.outcome import Outcome
from fairshare.runner.plan import RunPlan
from fairshare.runner.search import KneeHunt
from fairshare.runner.settings import Settings


class Conductor(Protocol):
    """Runs the deployments of a plan into a result folder, until ``stop`` is set."""

    events: EventLog
    stop: asyncio.Event
    outcome: Outcome

    async def run(self, plan: RunPlan, *, trial: bool = False) -> Outcome:
        """Run everything; a cell that fails ends nothing but itself."""

    async def kill_processes(self) -> None:
        """Kill every server of this run now."""


class Place(Protocol):
    """Devices that are held, tidy and fit; ``plan`` is what can be run on them."""

    @property
    def plan(self) -> RunPlan:
        """The plan, without what cannot be run here."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Machine, software and device, as ``matrix.json`` keeps them."""

    def tell(self, events: EventLog) -> None:
        """Say what there is to say before the first deployment."""

    @property
    def devices(self) -> int:
        """How many deployments run at once."""

    def conductor(
        self,
        store: ResultStore,
        events: EventLog,
        *,
        budget: Budget | None = None,
        hunt: KneeHunt | None = None,
    ) -> Conductor:
        """Who runs the deployments here."""


class Site(Protocol):
    """How to come by a place."""

    def __call__(
        self, settings: Settings, plan: RunPlan, directory: Path, *, skip_unready: bool = False
    ) -> AbstractAsyncContextManager[Place]:
        """Hold the devices while the block lasts; ``directory`` is where results go."""
