"""A cluster as the place of a session, where a single machine's device would be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairshare.cluster.roster import Roster
from fairshare.cluster.sweep import ClusterSweep
from fairshare.errors import SpecError
from fairshare.events import EventLog
from fairshare.results.store import ResultStore
from fairshare.runner.budget import Budget
from fairshare.runner.plan import RunPlan
from fairshare.runner.search import KneeHunt
from fairshare.runner.settings import Settings


@dataclass(frozen=True, slots=True)
class ClusterPlace:
    """The devices of a roster; each is held by its own machine while a deployment runs there."""

    roster: Roster
    plan: RunPlan

    @property
    def devices(self) -> int:
        """How many deployments run at once."""
        return len(self.roster.members)

    @property
    def provenance(self) -> dict[str, Any]:
        """Those of the first machine, and of each by its name."""
        each = {m.agent.name: m.surveyed.provenance for m in self.roster.members}
        return {**self.roster.members[0].surveyed.provenance, "machines": each}

    def tell(self, events: EventLog) -> None:
        """Say who takes part, who does not, and what results should carry."""
        for name, reason in self.roster.left_out.items():
            events.emit("machine.left_out", machine=name, reason=reason, hint=None)
        for member in self.roster.members:
            for warning in member.surveyed.reservations:
                events.emit("preflight.warned", machine=member.agent.name, **warning)

    def conductor(
        self,
        store: ResultStore,
        events: EventLog,
        *,
        budget: Budget | None = None,
        hunt: KneeHunt | None = None,
    ) -> ClusterSweep:
        """Who hands out the deployments."""
        if hunt is not None:
            raise SpecError("a search runs on one machine", hint="leave out --on ray")
        return ClusterSweep(self.roster, store, events, budget)


@dataclass(frozen=True, slots=True)
class ClusterSite:
    """Comes by the devices of a roster, which were looked at already."""

    roster: Roster

    @asynccontextmanager
    async def __call__(
        self, settings: Settings, plan: RunPlan, directory: Path, *, skip_unready: bool = False
    ) -> AsyncIterator[ClusterPlace]:
        """The place; nothing is held before a deployment needs it."""
        if skip_unready:
            raise SpecError(
                "--skip-unready-modes tries each mode on one machine",
                hint="leave it out, or leave out --on ray",
            )
        yield ClusterPlace(self.roster, plan)
