"""The ground that deployments run on: a device that is held, tidy, and fit for what is planned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairshare.doctor.finding import Finding
from fairshare.events import EventLog
from fairshare.processes.clean import FAILED, find_dead_runs, undo
from fairshare.processes.scope import Watched, watched
from fairshare.results.provenance import gather
from fairshare.results.store import ResultStore
from fairshare.runner.budget import Budget
from fairshare.runner.plan import RunPlan
from fairshare.runner.preflight import require_fit, reservations, unready_modes
from fairshare.runner.search import KneeHunt
from fairshare.runner.settings import Settings
from fairshare.runner.sweep import Sweep
from fairshare.sharing.lease import lease, lock_path
from fairshare.virtual.driver import switch_on


@dataclass(frozen=True, slots=True)
class Ground:
    """This machine's device; ``plan`` is what can be run on it, ``cleaned`` what dead runs left."""

    settings: Settings
    plan: RunPlan
    watch: Watched
    cleaned: Mapping[str, list[str]]
    findings: Sequence[Finding]

    @property
    def devices(self) -> int:
        """One deployment after the other."""
        return 1

    @property
    def provenance(self) -> dict[str, Any]:
        """Machine, software and device, as ``matrix.json`` keeps them."""
        settings = self.settings
        return gather(settings.device, settings.launcher, engine_version=settings.engine_version)

    def tell(self, events: EventLog) -> None:
        """Say what was cleaned up, and what results should carry."""
        for run_id, told in self.cleaned.items():
            failed = [line for line in told if line.startswith(FAILED)]
            done = [line for line in told if line not in failed]
            events.emit("run.cleaned", run=run_id, done=done, failed=failed)
        for finding in reservations(self.findings):
            events.emit("preflight.warned", check=finding.name, says=finding.says)

    def conductor(
        self,
        store: ResultStore,
        events: EventLog,
        *,
        budget: Budget | None = None,
        hunt: KneeHunt | None = None,
    ) -> Sweep:
        """Who runs the plan's deployments here."""
        stop, watch = asyncio.Event(), self.watch
        return Sweep(self.settings, store, events, stop, watch, budget=budget, hunt=hunt)


@asynccontextmanager
async def ground(
    settings: Settings, plan: RunPlan, directory: Path, *, skip_unready: bool = False
) -> AsyncIterator[Ground]:
    """Hold this machine's device while the block lasts; ``directory`` is where results go.

    With ``skip_unready`` the cells of modes that the machine is not ready for become infeasible.

    Raises:
        DeviceBusyError: another run holds the device.
        PreflightError: something stands against what is planned.
    """
    # The reaper first: the lock is removed however early this process is killed. Then the device:
    # a run that is refused must not leave a folder that refuses the next one.
    async with AsyncExitStack() as stack:
        watch = stack.enter_context(watched(lock_path(settings.device, settings.driver)))
        await stack.enter_async_context(lease(settings.device, settings.driver, directory))
        switch_on(settings.device)
        # Dead runs before the checks: what they left behind is no reason to refuse this one.
        cleaned = {run.run_id: undo(run, dry_run=False) for run in find_dead_runs()}
        if skip_unready:
            unready = await asyncio.to_thread(unready_modes, settings, plan, directory)
            plan = plan.without_modes(unready)
        findings = await asyncio.to_thread(require_fit, settings, plan, directory)
        yield Ground(settings, plan, watch, cleaned, findings)
