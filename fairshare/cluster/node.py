"""The process on a node that runs one job: a deployment as on a single machine, told of at home.

Started by an agent as ``python -m fairshare.cluster.node FD``. It ends what it started and puts the
device back when it is told to stop, and also when the agent is gone; should it be killed, its
reaper does so, as on a single machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import threading
from contextlib import AsyncExitStack
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fairshare.cluster.courier import Courier
from fairshare.cluster.inputs import unfold
from fairshare.cluster.messages import (
    KILL,
    Ended,
    Failed,
    Job,
    Part,
    ServersStarted,
    Surveyed,
    unpacked,
)
from fairshare.errors import FairshareError, PreflightError
from fairshare.events import EventLog
from fairshare.processes.scope import run_scope
from fairshare.results.store import ResultStore
from fairshare.runner.budget import Budget
from fairshare.runner.changes import changes, told
from fairshare.runner.conducting import conduct
from fairshare.runner.foresight import foresee
from fairshare.runner.ground import Ground, ground
from fairshare.runner.plan import RunPlan, make_plan, plain
from fairshare.runner.preflight import reservations
from fairshare.runner.settings import Settings, settle
from fairshare.runner.sweep import Sweep

_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # two of the same might come as one
_INPUTS = "fs-in-"
_RESULTS = "home"  # the slot folder whose contents are sent home


class _SentStore(ResultStore):
    """A result folder for the time of one job; what its ``matrix.json`` gains is sent."""

    def __init__(self, directory: Path, matrix: dict[str, Any], courier: Courier) -> None:
        super().__init__(directory, matrix)
        self._courier = courier
        self.cells_dir.mkdir()

    def save_matrix(self, matrix: dict[str, Any]) -> None:
        """Send the starts of servers home, where the folder's ``matrix.json`` is."""
        self.matrix = matrix
        if starts := matrix.get("starts"):
            self._courier.send(ServersStarted(starts))


class _Line:
    """The line to the agent while the job is at work: what is said on it, and its end.

    Either becomes what a terminal would send: one signal to stop, a second one to stop at once.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._heeded = False
        self._asked = self._sent = 0
        threading.Thread(target=self._listen, name="line", daemon=True).start()

    def heed(self, heeded: bool) -> None:
        """Whether somebody waits for signals now; what was asked for before is then sent."""
        with self._lock:
            self._heeded = heeded
            self._send()

    def _listen(self) -> None:
        while True:
            try:
                what = self._connection.recv_bytes()
            except (EOFError, OSError):
                what = b""
            with self._lock:
                self._asked = max(self._asked, len(_SIGNALS) if what == KILL else 1)
                self._send()
            if not what:
                return

    def _send(self) -> None:
        while self._heeded and self._sent < self._asked:
            self._sent += 1
            os.kill(os.getpid(), _SIGNALS[self._sent - 1])


def main(descriptor: int) -> int:
    """Do the job that comes first on the line; whatever becomes of it is said there."""
    # Ray keeps Ctrl-C from its processes, which must not be handed on to servers.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever wants this to end says so on the line
    connection = Connection(descriptor)
    job: Job = unpacked(connection.recv_bytes())
    courier = Courier(connection)
    try:
        with tempfile.TemporaryDirectory(prefix=_INPUTS) as below:
            settings = _settled(job, Path(below))
            asyncio.run(_work(job, settings, courier, _Line(connection), below))
    except FairshareError as error:
        courier.send(Failed(error.message, error.hint, error.evidence))
    finally:
        courier.close()
    return 0


async def _work(job: Job, settings: Settings, courier: Courier, line: _Line, below: str) -> None:
    plan = make_plan(settings)
    if job.part is None:
        await _survey(job, settings, plan, courier)
        return
    plan = _part(plan, job.part)
    async with ground(settings, plan, job.results) as held:
        await _run(job.part, held, courier, line, below)


def _settled(job: Job, below: Path) -> Settings:
    inputs = job.inputs
    scenarios = [(each, unfold(inputs, each.name, below)) for each in inputs.scenarios]
    return settle(inputs.matrix, inputs.flags, scenarios=scenarios, launcher=inputs.launcher)


async def _survey(job: Job, settings: Settings, plan: RunPlan, courier: Courier) -> None:
    async with ground(settings, plan, job.results) as held:
        warned = [{"check": f.name, "says": f.says} for f in reservations(held.findings)]
        surveyed = Surveyed.of(settings, plan, held.provenance, warned)
    courier.send(surveyed)  # now that others can have the device


def _part(plan: RunPlan, part: Part) -> RunPlan:
    """The cells of the plan that this job is about.

    Raises:
        PreflightError: the plan comes out otherwise here; says in what.
    """
    found = plan.without({cell.id for cell in plan.cells} - set(part.cells))
    if missing := set(part.cells) - {cell.id for cell in found.cells}:
        keys = {cell.key.slug: cell for cell in plan.cells}
        differences = [
            changes(defined, plain(keys[slug].definition))
            for cell_id, defined in part.cells.items()
            if cell_id in missing and (slug := cell_id.rpartition("-")[0]) in keys
        ]
        raise PreflightError(
            "this node comes to other cells than the one that was asked first",
            evidence=told(differences),
            hint="give all nodes the same engine, models and files",
        )
    return replace(found, infeasible=())  # these are filed where the command is


async def _run(part: Part, held: Ground, courier: Courier, line: _Line, below: str) -> None:
    events = EventLog()
    events.listen(courier.hear)
    held.tell(events)
    async with AsyncExitStack() as stack:
        scope = await stack.enter_async_context(run_scope(events, held.watch))
        scope.journal.intend("files of scenarios", [["rm", "-rf", "--", below]])
        store = _SentStore(scope.slot_dir(_RESULTS), {}, courier)
        courier.watch(store.dir)
        budget = await asyncio.to_thread(_budget, part, held)
        sweep = Sweep(
            held.settings, store, events, asyncio.Event(), held.watch, budget=budget, scope=scope
        )
        # By then it has set its handlers.
        asyncio.get_running_loop().call_soon(line.heed, True)
        try:
            outcome = await conduct(sweep, held.plan)
        finally:
            line.heed(False)
    courier.send(Ended(outcome.left, outcome.next_s, outcome.short))


def _budget(part: Part, held: Ground) -> Budget | None:
    if part.budget_s is None:
        return None
    foreseen = foresee(held.settings, held.plan)
    return Budget(part.budget_s, held.settings.launcher.engine, foreseen)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
