"""A sweep over many machines: deployments are handed out, and what comes home is filed.

Each device has one deployment at a time. What a lost machine had not completed is handed out again;
what it had is here already. This process alone writes the result folder.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fairshare.cluster.messages import (
    KILL,
    STOP,
    CellSent,
    Ended,
    Failed,
    Happened,
    Job,
    LostError,
    Message,
    Part,
    Piece,
    ServersStarted,
    packed,
)
from fairshare.cluster.roster import Member, Roster
from fairshare.errors import FairshareError, StoppedEarlyError
from fairshare.events import EventLog
from fairshare.records import CellResult, CellStatus
from fairshare.results.intake import Intake
from fairshare.results.store import ResultStore
from fairshare.runner.budget import Budget
from fairshare.runner.cell import file_unmeasured, tell_finished
from fairshare.runner.outcome import Outcome
from fairshare.runner.plan import Deployment, PlannedCell, RunPlan, plain
from fairshare.runner.settings import Settings
from fairshare.runner.shortage import Shortage
from fairshare.sharing.plan import PartitionPlan

_TRIES_PER_DEPLOYMENT = 2  # where one machine's servers fail, another's may not
_LOSSES_PER_CELL = 2  # one machine may die of anything; two that die of the same cell die of it
_AGAIN_S = 1.0
_TIDY_S = 60.0
_OWN_WORDS = {"stop.requested"}  # said here, for all machines


@dataclass(slots=True)
class _Work:
    """Cells of a deployment that are still to be had; ``current`` is the one being measured.

    ``refused`` has the machines that gave it up before all of its cells were measured.
    """

    deployment: Deployment
    left: dict[str, PlannedCell]
    current: str | None = None
    refused: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Visit:
    """One deployment on one machine."""

    member: Member
    work: _Work
    intake: Intake
    starts: list[dict[str, Any]] = field(default_factory=list)
    ended: Ended | None = None
    failed: Failed | None = None
    refused: bool = False
    """Whether the machine gave the deployment up, and another one is to try it."""


class ClusterSweep:
    """Runs a plan on the machines of a roster. ``stop`` ends it early, everywhere.

    A machine that gives up ``max_like_failures`` deployments in a row gets no more (0: it does).
    """

    def __init__(
        self, roster: Roster, store: ResultStore, events: EventLog, budget: Budget | None
    ) -> None:
        self.events = events
        self.stop = asyncio.Event()
        self.outcome = Outcome()
        self.max_like_failures = roster.settings.matrix.max_like_failures
        self._roster = roster
        self._settings: Settings = roster.settings
        self._store = store
        self._budget = budget
        self._earlier_starts = list(store.matrix.get("starts", ()))
        self._visits: list[_Visit] = []
        self._queue: deque[_Work] = deque()
        self._running: dict[asyncio.Task[bool], Member] = {}
        self._lost_in: dict[str, list[str]] = {}
        self._present = {member.agent.name for member in roster.members}
        self._gave_up: Counter[str] = Counter()
        self._spent = False
        self._broken: FairshareError | None = None

    async def run(self, plan: RunPlan, *, trial: bool = False) -> Outcome:
        """Run everything; neither a cell that fails nor a machine that is lost ends the sweep.

        Raises:
            StoppedEarlyError: no machine is left, or the results can no longer be written.
            ResultsError: what a machine sent cannot be filed.
        """
        if trial:
            raise StoppedEarlyError("modes are not tried on many machines")
        for infeasible in plan.infeasible:
            self._settle(infeasible.cell, None, CellStatus.INFEASIBLE, infeasible.reason)
        self._queue.extend(_Work(d, {c.id: c for c in d.cells}) for d in plan.deployments)
        shortage = Shortage(self._store.dir)
        async with self._passing_on_stops(), shortage.watching(partial(self._heed, shortage)):
            await self._hand_out()
        if self._broken is not None:
            raise self._broken
        self.outcome.stopped = self.stop.is_set() and self.outcome.short is None
        if self._spent:
            settled = {result.id for result in self.outcome.results}
            self.outcome.left = [cell.id for cell in plan.cells if cell.id not in settled]
            self.events.emit("budget.spent", left=self.outcome.left, next_s=self.outcome.next_s)
        return self.outcome

    async def kill_processes(self) -> None:
        """Have every machine kill its servers now, and wait until all have tidied up."""
        self._say(KILL)
        if self._running:
            await asyncio.wait(set(self._running), timeout=_TIDY_S)

    @property
    def _ending(self) -> bool:
        return self.stop.is_set() or self._spent or self._broken is not None

    def _heed(self, shortage: Shortage) -> None:
        """Stop everywhere while the results still fit on the disk here."""
        if shortage.disk is not None and self.outcome.short is None:
            self.outcome.short = shortage.disk
            self.events.emit("sweep.short", reason=shortage.disk)
            self.stop.set()

    async def _hand_out(self) -> None:
        idle = list(self._roster.members)
        while True:
            for member in list(idle):
                work = None if self._ending else self._work_for(member)
                if work is not None:
                    idle.remove(member)
                    self._running[asyncio.create_task(self._visit(member, work))] = member
            if not self._running:
                break
            done, _ = await asyncio.wait(set(self._running), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                member = self._running.pop(task)
                if task.result():
                    idle.append(member)
                else:
                    self._present.discard(member.agent.name)
        if self._queue and not self._ending:
            left = sum(len(work.left) for work in self._queue)
            raise StoppedEarlyError(
                f"no machine is left for {left} cell{'s' * (left != 1)}",
                hint="run the same command with --resume when the cluster has machines again: "
                "complete cells are kept",
            )

    def _work_for(self, member: Member) -> _Work | None:
        """The next deployment for a machine; not one that it gave up, while others are there."""
        name = member.agent.name
        for work in self._queue:
            if name not in work.refused or self._present <= set(work.refused):
                self._queue.remove(work)
                return work
        return None

    async def _visit(self, member: Member, work: _Work) -> bool:
        """Have a machine run what is left of a deployment; whether it can be given another."""
        visit = _Visit(member, work, Intake(self._store, member.agent.name))
        self._visits.append(visit)
        work.current = None
        for cell_id in work.left:
            visit.intake.begin(cell_id)
        lost: LostError | None = None
        try:
            async with aclosing(member.agent.run(self._job(member, work))) as messages:
                async for message in messages:
                    self._take_or_break(message, visit)
        except LostError as error:
            lost = error
        if lost is not None:
            self._lose(visit, str(lost))
        elif visit.refused:
            return self._hand_on(visit)
        elif (failed := self._failure(visit)) is not None:
            self._leave_out(visit, failed)
        if work.left and not self._ending:
            self._queue.appendleft(work)
        return lost.agent_lives if lost is not None else failed is None

    def _hand_on(self, visit: _Visit) -> bool:
        """Leave a deployment that a machine gave up to another; whether it is given others."""
        name, limit = visit.member.agent.name, self.max_like_failures
        visit.work.refused.append(name)
        self._queue.append(visit.work)
        self._gave_up[name] += 1
        if not limit or self._gave_up[name] < limit:
            return True
        told = f"it gave up {limit} deployments in a row, which others are to try"
        self._leave_out(visit, Failed(told, "fairshare doctor, run there, may say why"))
        return False

    def _failure(self, visit: _Visit) -> Failed | None:
        """Why a machine that is still there cannot be given another deployment, if so."""
        if visit.failed is not None or not visit.work.left or self._ending:
            return visit.failed
        short = visit.ended and visit.ended.short
        return Failed(short or "it ended before it had run all that it was given")

    def _job(self, member: Member, work: _Work) -> bytes:
        budget_s = None if self._budget is None else self._budget.left_s()
        cells = {cell.id: plain(cell.definition) for cell in work.left.values()}
        part = Part(work.deployment.id, cells, budget_s)
        return packed(Job(member.inputs, self._store.dir.absolute(), part))

    def _take_or_break(self, message: Message, visit: _Visit) -> None:
        """File a message. Once results cannot be written, machines only tidy up."""
        if self._broken is not None and not isinstance(message, Ended | Failed):
            return
        try:
            self._take(message, visit)
        except FairshareError as error:
            self._broken = error
            self._say(STOP)

    def _take(self, message: Message, visit: _Visit) -> None:
        match message:
            case Piece():
                visit.intake.add(message.path, message.data, first=message.first)
            case CellSent() if visit.refused:
                visit.intake.begin(message.id)  # what others are to measure, failed here
            case CellSent():
                result = visit.intake.finish(message.folder, complete=message.complete)
                self._note(result, visit)
            case ServersStarted():
                visit.starts = [
                    {**start, "machine": visit.member.agent.name} for start in message.starts
                ]
                self._save_starts()
            case Happened():
                self._pass_on(message, visit)
            case Ended():
                visit.ended = message
                if message.left and not self.stop.is_set():
                    self._spent, self.outcome.next_s = True, message.next_s
            case Failed():
                visit.failed = message

    def _note(self, result: CellResult, visit: _Visit) -> None:
        self.outcome.results.append(result)
        if result.status is not CellStatus.INTERRUPTED:
            visit.work.left.pop(result.id, None)
        if result.status is CellStatus.OK:
            self._gave_up.pop(visit.member.agent.name, None)

    def _pass_on(self, message: Happened, visit: _Visit) -> None:
        if message.event == "cell.started":
            visit.work.current = message.fields["cell"]
        elif message.event == "cell.finished":
            visit.work.current = None
        event, fields = message.event, {**message.fields, "machine": visit.member.agent.name}
        if event == "deployment.left":
            event = self._left(visit)
        if event not in _OWN_WORDS and not (visit.refused and event == "cell.finished"):
            self.events.emit(event, **fields)

    def _left(self, visit: _Visit) -> str:
        """What it means that a machine gives up the rest of its deployment: the event to tell.

        It may be the machine's fault, so another one tries it; of the second the cells have failed,
        and then it was not the first one's.
        """
        work, name = visit.work, visit.member.agent.name
        elsewhere = self._present - {*work.refused, name}
        if len(work.refused) + 1 < _TRIES_PER_DEPLOYMENT and elsewhere and not self._ending:
            visit.refused = True
            return "deployment.moved"
        for other in work.refused:
            self._gave_up[other] = max(0, self._gave_up[other] - 1)
        return "deployment.left"

    def _save_starts(self) -> None:
        starts = [start for visit in self._visits for start in visit.starts]
        self.outcome.starts = [*self._earlier_starts, *starts]
        self._store.save_matrix({**self._store.matrix, "starts": self.outcome.starts})

    def _lose(self, visit: _Visit, reason: str) -> None:
        """Note what was lost with a machine or with our process there."""
        name, work = visit.member.agent.name, visit.work
        self.events.emit(
            "machine.lost", machine=name, reason=reason, cell=work.current, left=list(work.left)
        )
        cell_id = work.current or next(iter(work.left), None)
        if cell_id is None or self._ending:
            return
        losses = self._lost_in.setdefault(cell_id, [])
        losses.append(name)
        if len(losses) >= _LOSSES_PER_CELL:
            cell = work.left.pop(cell_id)
            told = f"its machine was lost each time: {', '.join(losses)} (last: {reason})"
            self._settle(cell, work.deployment.plan, CellStatus.FAILED, told)

    def _leave_out(self, visit: _Visit, failed: Failed) -> None:
        """A machine that cannot go on gets nothing more; others run what it leaves."""
        reason = "; ".join([failed.message, *failed.evidence])
        name = visit.member.agent.name
        self.events.emit("machine.left_out", machine=name, reason=reason, hint=failed.hint)

    def _settle(
        self, cell: PlannedCell, plan: PartitionPlan | None, status: CellStatus, reason: str
    ) -> None:
        """File a cell that was never measured."""
        result = file_unmeasured(
            self._store, cell, self._settings, plan, status=status, reason=reason
        )
        self.outcome.results.append(result)
        tell_finished(self.events, result)

    def _say(self, what: bytes) -> None:
        for member in self._running.values():
            member.agent.say(what)

    @asynccontextmanager
    async def _passing_on_stops(self) -> AsyncIterator[None]:
        """Tell every machine to stop, once that is wanted; again, for those that just begin."""

        async def tell() -> None:
            await self.stop.wait()
            while True:
                self._say(STOP)
                await asyncio.sleep(_AGAIN_S)

        task = asyncio.create_task(tell())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
