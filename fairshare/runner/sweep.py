"""The whole matrix: for each deployment share the device, serve, measure, put back."""

from __future__ import annotations

import asyncio
import math
import secrets
import signal
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

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
from fairshare.runner.breaker import Breaker
from fairshare.runner.budget import Budget
from fairshare.runner.cell import (
    CellContext,
    blank_result,
    file_unmeasured,
    run_cell,
    tell_finished,
)
from fairshare.runner.conducting import unless_stopped
from fairshare.runner.outcome import Outcome
from fairshare.runner.plan import Deployment, PlannedCell, RunPlan, partitioner_of, plain
from fairshare.runner.scheduling import policy_failure
from fairshare.runner.search import KneeHunt
from fairshare.runner.served import ServerLogs, shares_of
from fairshare.runner.settings import Settings
from fairshare.runner.shortage import Shortage
from fairshare.runner.trial import failing_modes
from fairshare.serving.aftermath import memory_returned
from fairshare.serving.fleet import Fleet, fleet
from fairshare.sharing.clocks import locked_clocks
from fairshare.sharing.mig_table import smi_name
from fairshare.sharing.plan import Partitioner, PartitionPlan
from fairshare.sharing.probing import probe_shares

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
        self._ahead: list[tuple[Deployment, list[PlannedCell]]] = []
        self._breaker = Breaker(settings.matrix.max_like_failures)
        self._shortage = Shortage(store.dir)
        self._running: Fleet | None = None
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
            await stack.enter_async_context(self._shortage.watching(self._heed_shortage))
            self._ahead = [(each, list(each.cells)) for each in plan.deployments]
            while await self._pass(stage):
                self._ahead = [(each, left) for each, left in self._ahead if left]
        self.outcome.stopped = self.stop.is_set() and self.outcome.short is None
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

    async def _pass(self, stage: _Stage) -> bool:
        """Deploy what is ahead, each once; whether anything ran.

        Only a time budget leaves cells for another pass: some may have turned out shorter.
        """
        ran = False
        for deployment, left in self._ahead:
            if left and (reason := self._breaker.open(deployment.id)) is not None:
                self._leave_out(deployment, left, reason)
            elif left and self._goes_on(deployment, left[0]):
                self._budget.deploys(deployment)
                await self._deploy(deployment, left, stage)
                self._budget.deployed(deployment)
                ran = True
        return ran

    def _goes_on(self, deployment: Deployment, cell: PlannedCell) -> bool:
        """Whether the cell is to be run: nobody stopped the sweep, and there is room and time."""
        if self._shortage.look() is not None:
            self._heed_shortage()
        if self.stop.is_set():
            return False
        ahead = [(each, waits) for each, left in self._ahead for waits in left]
        if self._budget.unlimited or cell.id in self._budget.kept(ahead):
            return True
        if not self._spent:
            self._spent = True
            self.outcome.next_s = self._budget.needed_s(deployment, cell)
        return False

    def _heed_shortage(self) -> None:
        """Stop while the results still fit; memory that servers may be using, they give back."""
        short = self._shortage
        if short.memory is not None and short.disk is None and self._running is not None:
            for server in self._running.servers.values():
                if not server.died.is_set():
                    server.give_up(f"is stopped: {short.memory}")
        elif self.outcome.short is None:
            self.outcome.short = short.disk or short.memory
            self.events.emit("sweep.short", reason=self.outcome.short)
            self.stop.set()

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

    async def _deploy(self, deployment: Deployment, left: list[PlannedCell], stage: _Stage) -> None:
        partitioner = partitioner_of(self.settings, deployment.plan.mode)
        self.events.emit(
            "deployment.started", deployment=deployment.id, cells=[cell.id for cell in left]
        )
        changed_before = stage.scope.open_changes()
        try:
            async with AsyncExitStack() as stack:
                sharing = partitioner.apply(deployment.plan, stage.scope)
                shared = await stack.enter_async_context(sharing)
                await stack.enter_async_context(self._clocks(stage.scope))
                for start in range(STARTS_PER_DEPLOYMENT):
                    if self._is_run(deployment, left):
                        if start:
                            self.events.emit("deployment.restarted", deployment=deployment.id)
                        await partitioner.until_usable()
                        await self._serve(deployment, shared, partitioner, left, stage)
                given_up = self._breaker.open(deployment.id)
                if left and (given_up or self._goes_on(deployment, left[0])):
                    crashed = "not run: a server of its deployment crashed twice"
                    self._leave_out(deployment, left, given_up or crashed)
        except StoppedEarlyError:
            raise
        except FairshareError as error:
            self.events.emit("deployment.failed", deployment=deployment.id, reason=str(error))
            changed = stage.scope.open_changes() - changed_before
            if not (left or changed) or not await stage.scope.put_back(changed):
                raise  # something of ours is left, and would be in the way of all that follows
            self._breaker.failed(deployment.id, str(error))
            self._leave_out(deployment, left, str(error))

    def _is_run(self, deployment: Deployment, left: list[PlannedCell]) -> bool:
        """Whether the next of its cells is to be run."""
        given_up = self._breaker.open(deployment.id) is not None
        return bool(left) and not given_up and self._goes_on(deployment, left[0])

    def _leave_out(self, deployment: Deployment, left: list[PlannedCell], reason: str) -> None:
        """File cells, if any, as failed that were not run; ``--retry-failed`` runs them."""
        if not left:
            return
        self.events.emit(
            "deployment.left", deployment=deployment.id, cells=len(left), reason=reason
        )
        while left:
            self._settle(left.pop(0), deployment.plan, CellStatus.FAILED, reason)

    def _clocks(self, scope: RunScope) -> AbstractAsyncContextManager[None]:
        """The GPU's clocks as the user wants them."""
        clocks, device = self.settings.matrix.lock_clocks, self.settings.device
        if clocks is None:
            return nullcontext()
        return locked_clocks(smi_name(device), self.settings.driver.env, clocks, scope)

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
            running = await unless_stopped(stack.enter_async_context(starting), self.stop)
            if running is None:
                return
            self._note_starts(deployment, running)
            shares = await shares_of(deployment.plan, partitioner, running, probes)
            context = self._context(deployment, running, shares, partitioner, stage)
            logs = ServerLogs(log_dir)
            self._running = running
            stack.callback(setattr, self, "_running", None)
            while running.dead() is None and self._is_run(planned, left):
                self._budget.begins()
                await self._cell(left[0], context, logs)
                self._budget.ended(left[0])
                ended = left.pop(0)  # only now: a cell that was cut off is not done
                left += self._found_next(ended)
                self._learn(planned, self.outcome.results[-1])
                self.outcome.condense()

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

    async def _cell(self, cell: PlannedCell, context: CellContext, logs: ServerLogs) -> None:
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
        if result.status is CellStatus.INTERRUPTED and self.outcome.short is not None:
            result.reason = self.outcome.short
        if result.status is CellStatus.OK and (failure := policy_failure(*told)) is not None:
            result.status, result.reason = CellStatus.FAILED, failure
        self._close(writer, result)

    def _learn(self, deployment: Deployment, result: CellResult) -> None:
        """What a cell says of those that come after it."""
        if result.status is CellStatus.OK or result.id in self.outcome.overloaded:
            self._breaker.worked(deployment.id)
        elif result.status is CellStatus.FAILED:
            self._breaker.failed(deployment.id, result.reason or "")
        self._shortage.measured(self.store.cells_dir / cell_folder(result.id))

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
        self._tell(result)

    def _settle(
        self, cell: PlannedCell, plan: PartitionPlan | None, status: CellStatus, reason: str
    ) -> None:
        """File a cell that was never measured."""
        filed = file_unmeasured(self.store, cell, self.settings, plan, status=status, reason=reason)
        self._tell(filed)

    def _tell(self, result: CellResult) -> None:
        self.outcome.results.append(result)
        tell_finished(self.events, result)

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
