"""The whole matrix: for each deployment share the device, serve, measure, put back."""

from __future__ import annotations

import asyncio
import math
import secrets
import shutil
import signal
import time
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fairshare.devices.telemetry import GpuSampler, gpu_sampler
from fairshare.errors import FairshareError, StoppedEarlyError
from fairshare.events import EventLog
from fairshare.processes.labelled import spawned
from fairshare.processes.scope import RunScope, Watched, run_scope
from fairshare.records import CellResult, CellStatus, mode_label
from fairshare.results.files import writing
from fairshare.results.layout import SCHEDULING, SERVERS, cell_folder
from fairshare.results.store import ResultStore, StoredCell
from fairshare.results.writer import CellWriter
from fairshare.runner.budget import Budget
from fairshare.runner.cell import CellContext, blank_result, run_cell
from fairshare.runner.outcome import Outcome
from fairshare.runner.plan import Deployment, PlannedCell, RunPlan, partitioner_of, plain
from fairshare.runner.scheduling import policy_failure
from fairshare.runner.search import KneeHunt
from fairshare.runner.settings import Settings
from fairshare.runner.trial import failing_modes
from fairshare.serving.aftermath import memory_returned
from fairshare.serving.fleet import Fleet, fleet
from fairshare.sharing.plan import Partitioner, PartitionPlan, Slot
from fairshare.sharing.probing import probe_shares

T = TypeVar("T")
STARTS_PER_DEPLOYMENT = 2  # once, and once more for the cells that a crashed server left over


@dataclass(frozen=True, slots=True)
class _Stage:
    """What all deployments of a sweep have in common."""

    scope: RunScope
    sampler: GpuSampler | None


class Sweep:
    """Runs a plan into a result folder. ``stop`` ends it early: the cell in flight is lost.

    With a ``hunt`` the plan holds the first cells of searches, and each says what comes after it.
    A ``scope`` that is given is not closed at the end, but by whoever opened it.
    """

    def __init__(
        self,
        settings: Settings,
        store: ResultStore,
        events: EventLog,
        stop: asyncio.Event,
        watch: Watched,
        *,
        budget: Budget | None = None,
        hunt: KneeHunt | None = None,
        scope: RunScope | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.events = events
        self.stop = stop
        self._budget = budget or Budget(math.inf, settings.launcher.engine)
        self._hunt = hunt
        self._planned: list[PlannedCell] = []
        self._spent = False
        self.outcome = Outcome(starts=list(store.matrix.get("starts", ())))
        self._api_key = secrets.token_urlsafe(24)
        self._watch = watch
        self._scope = scope

    async def run(self, plan: RunPlan, *, trial: bool = False) -> Outcome:
        """Run everything; a cell that fails never ends the sweep.

        With a ``trial`` each mode is tried first, and cells of one that fails are infeasible.

        Raises:
            StoppedEarlyError: the results can no longer be written.
            PartitionError, ServerError: something of ours could not be put back or ended.
        """
        for infeasible in plan.infeasible:
            self._settle(infeasible.cell, None, CellStatus.INFEASIBLE, infeasible.reason)
        if not plan.deployments:
            return self.outcome
        async with AsyncExitStack() as stack:
            scope = self._scope
            if scope is None:
                scope = await stack.enter_async_context(run_scope(self.events, self._watch))
                self._scope = scope
            if trial:
                plan = await self._tried(plan, scope)
            self._planned = plan.cells
            stage = _Stage(scope, self._sampler(stack))
            for deployment in plan.deployments:
                if not self._goes_on(deployment, deployment.cells[0]):
                    break
                self._budget.deploys(deployment)
                await self._deploy(deployment, stage)
                self._budget.deployed(deployment)
        self.outcome.stopped = self.stop.is_set()
        if self._spent:
            self._tell_left()
        return self.outcome

    async def _tried(self, plan: RunPlan, scope: RunScope) -> RunPlan:
        reasons = await failing_modes(self.settings, plan, scope)
        for mode, reason in reasons.items():
            self.events.emit("mode.unready", mode=mode.value, reason=reason)
        tried = plan.without_modes(reasons)
        for infeasible in tried.infeasible[len(plan.infeasible) :]:
            self._settle(infeasible.cell, None, CellStatus.INFEASIBLE, infeasible.reason)
        told = {each.cell.id: each.reason for each in tried.infeasible}
        self.store.save_matrix({**self.store.matrix, "infeasible": told})
        return tried

    def _goes_on(self, deployment: Deployment, cell: PlannedCell) -> bool:
        """Whether the cell is to be run: nobody stopped the sweep, and there is time for it."""
        if self._ending:
            return False
        if not self._budget.fits(deployment, cell):
            self._spent = True
            self.outcome.next_s = self._budget.needed_s(deployment, cell)
        return not self._spent

    @property
    def _ending(self) -> bool:
        return self.stop.is_set() or self._spent

    def _tell_left(self) -> None:
        settled = {result.id for result in self.outcome.results}
        self.outcome.left = [cell.id for cell in self._planned if cell.id not in settled]
        self.events.emit("budget.spent", left=self.outcome.left, next_s=self.outcome.next_s)

    async def kill_processes(self) -> None:
        """Kill every server of this run now; the scopes then find them gone and tidy up."""
        if self._scope is None:
            return
        found = spawned(self._scope.run_id)
        await self._scope.guards.ask([identity.pid for identity in found])
        for identity in found:
            identity.signal(signal.SIGKILL)

    def _sampler(self, stack: AsyncExitStack) -> GpuSampler | None:
        """Who reads the device's gauges."""
        sampler, reason = gpu_sampler(self.settings.device, self.settings.driver)
        if sampler is not None:
            stack.callback(sampler.close)
        else:
            self.events.emit("telemetry.absent", reason=reason)
            self.store.save_matrix({**self.store.matrix, "no_gpu_telemetry": reason})
        return sampler

    async def _deploy(self, deployment: Deployment, stage: _Stage) -> None:
        partitioner = partitioner_of(self.settings, deployment.plan.mode)
        left = list(deployment.cells)
        self.events.emit(
            "deployment.started", deployment=deployment.id, cells=[cell.id for cell in left]
        )
        try:
            async with partitioner.apply(deployment.plan, stage.scope) as shared:
                for _ in range(STARTS_PER_DEPLOYMENT):
                    if left and self._goes_on(deployment, left[0]):
                        await partitioner.until_usable()
                        await self._serve(deployment, shared, partitioner, left, stage)
                for cell in left if not self._ending else ():
                    reason = "not run: a server of its deployment crashed twice"
                    self._settle(cell, deployment.plan, CellStatus.FAILED, reason)
        except StoppedEarlyError:
            raise
        except FairshareError as error:
            self.events.emit("deployment.failed", deployment=deployment.id, reason=str(error))
            if not left:
                raise  # nothing left to blame it on: what we made could not be put back
            for cell in left:
                self._settle(cell, deployment.plan, CellStatus.FAILED, str(error))

    async def _serve(
        self,
        planned: Deployment,
        shared: PartitionPlan,
        partitioner: Partitioner,
        left: list[PlannedCell],
        stage: _Stage,
    ) -> None:
        """Start the servers and run cells, taken off ``left``, until one of the servers dies."""
        deployment = replace(planned, plan=shared)
        log_dir = self.store.dir / SERVERS / f"{deployment.id}-{len(self.outcome.starts) + 1}"
        driver = self.settings.driver
        probing = replace(driver, env=stage.scope.labelled(driver.env))
        probes = await probe_shares(deployment.plan, probing)
        async with AsyncExitStack() as stack:
            returning = memory_returned(self.settings.device, driver, self.events)
            await stack.enter_async_context(returning)
            starting = fleet(
                deployment.plan,
                deployment.launcher,
                self.settings.models,
                stage.scope,
                log_dir,
                self._api_key,
            )
            running = await self._unless_stopped(stack.enter_async_context(starting))
            if running is None:
                return
            self._note_starts(deployment, running)
            shares = await _shares(deployment.plan, partitioner, running, probes)
            context = self._context(deployment, running, shares, partitioner, stage)
            logs = _ServerLogs(log_dir)
            while left and running.dead() is None and self._goes_on(planned, left[0]):
                self._budget.begins()
                await self._cell(left[0], context, logs)
                self._budget.ended(left[0])
                ended = left.pop(0)  # only now: a cell that was cut off is not done
                left += self._found_next(ended)

    def _context(
        self,
        deployment: Deployment,
        running: Fleet,
        shares: list[dict[str, Any]],
        partitioner: Partitioner,
        stage: _Stage,
    ) -> CellContext:
        return CellContext(
            settings=self.settings,
            plan=deployment.plan,
            fleet=running,
            deployment=deployment.id,
            shares=shares,
            health=partitioner.health,
            sampler=stage.sampler,
            events=self.events,
            scope=stage.scope,
            stop=self.stop,
        )

    async def _unless_stopped(self, starting: Coroutine[Any, Any, T]) -> T | None:
        """What ``starting`` returns, or None if the user stops the run first.

        A large model takes minutes to load; nobody should have to wait for it in order to stop.
        """
        start = asyncio.create_task(starting)
        stop = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait((start, stop), return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                return start.result()
            return None
        finally:
            for task in (start, stop):
                task.cancel()
            await asyncio.gather(start, stop, return_exceptions=True)

    async def _cell(self, cell: PlannedCell, context: CellContext, logs: _ServerLogs) -> None:
        writer = self.store.begin_cell(cell.id)
        writer.write_config(plain(cell.definition))
        label = mode_label(context.plan.label, cell.key.policy, cell.key.scheduling)
        self.events.emit("cell.started", cell=cell.id, label=label)
        try:
            result = await run_cell(cell, context, writer)
        except asyncio.CancelledError:
            result = blank_result(cell, self.settings, context.plan, CellStatus.INTERRUPTED)
            result.reason = "stopped at once by the user"
            self._close(writer, result)
            raise
        with writing(writer.dir):
            logs.copy_new(writer.dir / SERVERS)
            logs.copy_decisions(context.fleet, writer.dir / SCHEDULING)
        inside = [each.engine_decisions for each in context.fleet.servers.values()]
        told = (writer.dir / SCHEDULING, *(path for path in inside if path is not None))
        if result.status is CellStatus.OK and (failure := policy_failure(*told)) is not None:
            result.status, result.reason = CellStatus.FAILED, failure
        self._close(writer, result)

    def _found_next(self, cell: PlannedCell) -> list[PlannedCell]:
        """The cell that a search wants after this one, if any."""
        result = self.outcome.results[-1]
        if self._hunt is None or result.status is CellStatus.INTERRUPTED:
            return []
        stored = StoredCell(self.store.cells_dir / cell_folder(cell.id), result)
        found = self._hunt.after(cell, stored)
        self.outcome.overloaded = self._hunt.overloaded
        for each in found:
            self.events.emit("search.asked", cell=each.id)
        self._planned = [*self._planned, *found]
        return found

    def _close(self, writer: CellWriter, result: CellResult) -> None:
        """File the result under what became of it, and tell whoever listens."""
        if result.status is CellStatus.INTERRUPTED:
            writer.abandon(result)
        else:
            writer.finish(result)
        self.outcome.results.append(result)
        self.events.emit(
            "cell.finished",
            cell=result.id,
            label=result.mode_label,
            status=result.status.value,
            reason=result.reason,
        )

    def _settle(
        self, cell: PlannedCell, plan: PartitionPlan | None, status: CellStatus, reason: str
    ) -> None:
        """File a cell that was never measured."""
        writer = self.store.begin_cell(cell.id)
        writer.write_config(plain(cell.definition))
        result = blank_result(cell, self.settings, plan, status)
        result.reason = reason
        self._close(writer, result)

    def _note_starts(self, deployment: Deployment, running: Fleet) -> None:
        for name, server in running.servers.items():
            self.outcome.starts.append(
                {
                    "deployment": deployment.id,
                    "slot": name,
                    "model": server.served_model,
                    "start_s": server.start_s,
                    "cold": server.cold,
                    "ready_at": time.time(),
                }
            )
        self.store.save_matrix({**self.store.matrix, "starts": self.outcome.starts})


async def _shares(
    plan: PartitionPlan,
    partitioner: Partitioner,
    running: Fleet,
    probes: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """What each server was meant to get, and what is seen from inside."""
    shares = []
    for slot in plan.slots:
        view = running.servers[slot.name].view(probes.get(slot.name))
        shares.append({**_planned(slot), **await partitioner.verify(slot, view)})
    return shares


def _planned(slot: Slot) -> dict[str, Any]:
    """What a slot was meant to get, beside what is then seen from inside."""
    return {
        "slot": slot.name,
        "tenants": list(slot.tenants),
        "planned": {
            "compute_fraction": slot.compute_fraction,
            "memory_fraction": slot.memory_fraction,
            "memory_bytes": slot.memory_bytes,
            "cpu_set": None if slot.cpu_set is None else list(slot.cpu_set),
            "threads": slot.threads,
            "mig_profile": slot.mig_profile,
        },
    }


class _ServerLogs:
    """Gives each cell the part of its servers' logs that was written since the cell before."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._seen: dict[Path, int] = {}

    def copy_new(self, target: Path) -> None:
        if not self._log_dir.is_dir():
            return
        target.mkdir(exist_ok=True)
        for path in sorted(self._log_dir.iterdir()):
            if path.suffix != ".log":
                shutil.copy2(path, target / path.name)
                continue
            with path.open("rb") as source, (target / path.name).open("wb") as copy:
                source.seek(self._seen.get(path, 0))
                shutil.copyfileobj(source, copy)
                self._seen[path] = source.tell()

    def copy_decisions(self, running: Fleet, target: Path) -> None:
        """What the scheduler inside the engine decided since the cell before, with its first line.

        There is one where there is one server for all tenants.
        """
        for server in running.servers.values():
            path = server.engine_decisions
            if path is None or not path.exists():
                continue
            with path.open("rb") as source, target.open("wb") as copy:
                if (begun := self._seen.get(path, 0)) > 0:
                    copy.write(source.readline())
                    source.seek(begun)
                shutil.copyfileobj(source, copy)
                self._seen[path] = source.tell()
