"""Handing deployments out to machines that follow a script, and filing what they send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'fairshare[ray]'")

from fairshare.cluster.inputs import inputs_of
from fairshare.cluster.messages import (
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
    Surveyed,
    unpacked,
)
from fairshare.cluster.node import _part
from fairshare.cluster.roster import Member, Roster, group
from fairshare.cluster.sweep import ClusterSweep
from fairshare.errors import PreflightError, StoppedEarlyError
from fairshare.events import EventLog
from fairshare.records import CellKey, CellResult, CellStatus, Mode, Provenance
from fairshare.results.store import ResultStore
from fairshare.runner.plan import InfeasibleCell, make_plan, plain
from fairshare.runner.settings import Flags, settle
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.matrix import Matrix
from tests.plans import ONE_TENANT

Script = Callable[["Machine", Job], AsyncIterator[Message]]


@dataclass
class Machine:
    """Stands for an agent: does each job by the next script, the last one again and again."""

    name: str
    scripts: list[Script]
    gpu: str | None = None
    jobs: list[Job] = field(default_factory=list)
    told: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    dismissed: bool = False

    async def run(self, job: bytes) -> AsyncIterator[Message]:
        """What the script says."""
        self.jobs.append(unpacked(job))
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        async for message in script(self, self.jobs[-1]):
            yield message

    def say(self, what: bytes) -> None:
        """Be told something."""
        self.told.put_nowait(what)

    def dismiss(self) -> None:
        """Be let go."""
        self.dismissed = True


def cell_of(cell_id: str, status: CellStatus = CellStatus.OK) -> list[Message]:
    """The messages of one cell that went well, failed, or was given up."""
    complete = status is not CellStatus.INTERRUPTED
    key = CellKey("s", Mode.LOGICAL, 1)
    result = CellResult(cell_id, key, status, "logical", Provenance.SIMULATED)
    return [
        Happened("cell.started", {"cell": cell_id, "label": "logical"}),
        Piece(f"cells/{cell_id}/requests.jsonl", b"", first=True),
        Piece(f"cells/{cell_id}/cell.json", result.to_json(), first=True),
        CellSent(cell_id, cell_id, complete),
        Happened("cell.finished", {"cell": cell_id, "status": status.value, "reason": None}),
    ]


async def good(machine: Machine, job: Job) -> AsyncIterator[Message]:
    """All cells of the job, one after the other."""
    assert job.part is not None
    for cell_id in job.part.cells:
        for message in cell_of(cell_id):
            yield message
            await asyncio.sleep(0)
    yield Ended([], 0.0)


async def lost(machine: Machine, job: Job) -> AsyncIterator[Message]:
    """The first cell, and the end of the machine in the second (or the first, if there is one)."""
    assert job.part is not None
    first, *rest = job.part.cells
    for message in cell_of(first) if rest else []:
        yield message
    yield cell_of((rest or [first])[0])[0]
    raise LostError("the node died", agent_lives=False)


async def crashed(machine: Machine, job: Job) -> AsyncIterator[Message]:
    """Our process dies in the first cell, the machine stays."""
    assert job.part is not None
    yield cell_of(next(iter(job.part.cells)))[0]
    raise LostError("exit code -9", agent_lives=True)


async def refuses(machine: Machine, job: Job) -> AsyncIterator[Message]:
    """Somebody else has the device."""
    yield Failed("another run holds the device")


async def gives_up(machine: Machine, job: Job) -> AsyncIterator[Message]:
    """No server of its starts, so all cells of the job have failed."""
    assert job.part is not None
    told = {"deployment": job.part.deployment, "cells": len(job.part.cells), "reason": "no driver"}
    yield Happened("deployment.left", told)
    for cell_id in job.part.cells:
        for message in cell_of(cell_id, CellStatus.FAILED)[1:]:
            yield message
    yield Ended([], 0.0)


async def no_mps(machine: Machine, job: Job) -> AsyncIterator[Message]:
    """Gives up what shares by MPS."""
    assert job.part is not None
    script = gives_up if job.part.deployment.startswith("mps") else good
    async for message in script(machine, job):
        yield message


async def waits(machine: Machine, job: Job) -> AsyncIterator[Message]:
    """A cell that lasts until it is told to stop."""
    assert job.part is not None
    first = next(iter(job.part.cells))
    yield cell_of(first)[0]
    machine.begun.set()
    assert await machine.told.get() == STOP
    for message in cell_of(first, CellStatus.INTERRUPTED):
        yield message
    yield Ended([], 0.0)


@dataclass
class Stage:
    """A sweep of two deployments with two cells each, and all it does."""

    sweep: ClusterSweep
    roster: Roster
    store: ResultStore
    machines: list[Machine]
    events: list[dict[str, Any]]

    async def run(self) -> list[str]:
        """Run it; the ids of the cells that went well, each time that one did."""
        outcome = await self.sweep.run(self.roster.plan)
        return [result.id for result in outcome.results if result.status is CellStatus.OK]

    def named(self, event: str) -> list[dict[str, Any]]:
        """What events of a name said."""
        return [each for each in self.events if each["event"] == event]


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., Stage]:
    """Sets a stage with these machines."""
    path = tmp_path / "s.yaml"
    path.write_text(ONE_TENANT)
    fields = {"modes": ["logical", "mps"], "concurrency": [1, 4]}
    matrix = Matrix.model_validate({"name": "m", "scenarios": [str(path)], **fields})
    flags = Flags(device="virtual:h200")
    settings = settle(matrix, flags)
    surveyed = Surveyed.of(settings, make_plan(settings), {"python": "3"}, [])
    inputs = inputs_of(matrix, flags, DeviceKind.VIRTUAL)

    def set_up(**scripts: list[Script]) -> Stage:
        machines = [Machine(name, list(each)) for name, each in scripts.items()]
        members = tuple(Member(machine, inputs, surveyed) for machine in machines)  # type: ignore[arg-type]
        roster = group(members, {}, None)
        store = ResultStore.create(tmp_path / "out", {"starts": []})
        events = EventLog()
        seen: list[dict[str, Any]] = []
        events.listen(lambda event: seen.append(dict(event)))
        return Stage(ClusterSweep(roster, store, events, None), roster, store, machines, seen)

    return set_up


async def test_each_deployment_goes_to_one_machine(stage: Callable[..., Stage]) -> None:
    """Both machines work at once, every cell is run once, and says where."""
    on = stage(a=[good], b=[good])
    ran = await on.run()
    assert sorted(ran) == sorted(cell.id for cell in on.roster.plan.cells)
    assert [len(machine.jobs) for machine in on.machines] == [1, 1]
    assert {cell.result.machine for cell in on.store.cells()} == {"a", "b"}


async def test_a_lost_machines_cells_run_elsewhere(stage: Callable[..., Stage]) -> None:
    """What it had completed is not run again, what it had not is, and it gets nothing more."""
    on = stage(a=[lost], b=[good])
    ran = await on.run()
    assert sorted(ran) == sorted(cell.id for cell in on.roster.plan.cells)
    assert len(on.machines[0].jobs) == 1
    (told,) = on.named("machine.lost")
    assert told["machine"] == "a"
    assert len(told["left"]) == 1


async def test_a_cell_that_takes_two_machines_with_it_fails(stage: Callable[..., Stage]) -> None:
    """It is not tried a third time; the other cells of its deployment are."""
    on = stage(a=[crashed, crashed, good])
    ran = await on.run()
    first = on.roster.plan.cells[0]
    assert sorted(ran) == sorted(cell.id for cell in on.roster.plan.cells if cell.id != first.id)
    (failed,) = (c.result for c in on.store.cells() if c.result.status is CellStatus.FAILED)
    assert failed.id == first.id
    assert "a, a" in str(failed.reason)


async def test_a_machine_that_cannot_go_on_is_left_out(stage: Callable[..., Stage]) -> None:
    """Its deployment is run by another, and the reason is told."""
    on = stage(a=[refuses], b=[good])
    assert len(await on.run()) == 4
    assert on.named("machine.left_out")[0]["reason"] == "another run holds the device"


async def test_what_one_machine_gives_up_another_tries(stage: Callable[..., Stage]) -> None:
    """A machine whose servers never start takes no cell with it, and in the end gets none."""
    on = stage(a=[gives_up], b=[good])
    on.sweep.max_like_failures = 1
    assert len(await on.run()) == 4
    assert all(cell.result.machine == "b" for cell in on.store.cells())
    assert [len(machine.jobs) for machine in on.machines] == [1, 2]
    assert [(e["machine"], e["cells"]) for e in on.named("deployment.moved")] == [("a", 2)]
    assert on.named("machine.left_out")[0]["machine"] == "a"


async def test_what_two_machines_give_up_has_failed(stage: Callable[..., Stage]) -> None:
    """Then it is the deployment's own fault: its cells are filed, and both machines stay."""
    on = stage(a=[no_mps], b=[no_mps])
    on.sweep.max_like_failures = 2
    assert len(await on.run()) == 2
    failed = [c.result for c in on.store.cells() if c.result.status is CellStatus.FAILED]
    assert len(failed) == 2
    assert sum(len(machine.jobs) for machine in on.machines) == 3
    assert on.named("machine.left_out") == []


async def test_a_lone_machine_files_what_it_gives_up(stage: Callable[..., Stage]) -> None:
    """With nobody else to try it, a failure is a failure, as on a single machine."""
    on = stage(a=[gives_up, good])
    assert len(await on.run()) == 2
    assert on.named("deployment.moved") == []


async def test_without_a_machine_the_sweep_ends_early(stage: Callable[..., Stage]) -> None:
    """What was completed stays, and the hint says how to go on."""
    on = stage(a=[lost])
    with pytest.raises(StoppedEarlyError, match="no machine is left for 3 cells") as error:
        await on.run()
    assert "--resume" in str(error.value)
    assert [cell.complete for cell in on.store.cells()] == [True]


async def test_a_stop_reaches_every_machine(stage: Callable[..., Stage]) -> None:
    """Each is told, what is in flight is given up, and nothing more is handed out."""
    on = stage(a=[waits], b=[waits])
    running = asyncio.create_task(on.run())
    begun = [machine.begun.wait() for machine in on.machines]
    await asyncio.gather(*begun)
    on.sweep.stop.set()
    assert await running == []
    assert on.sweep.outcome.stopped
    assert [cell.complete for cell in on.store.cells()] == [False, False]
    assert [len(machine.jobs) for machine in on.machines] == [1, 1]


def test_a_node_runs_its_part_and_files_nothing_else(stage: Callable[..., Stage]) -> None:
    """Cells that no machine can run are filed once, where the command is."""
    plan = stage(a=[good]).roster.plan
    first, last = plan.cells[0], plan.cells[-1]
    more = replace(plan, infeasible=(InfeasibleCell(last, "too little memory"),))
    found = _part(more, Part(plan.deployments[0].id, {first.id: plain(first.definition)}))
    assert ([cell.id for cell in found.cells], found.infeasible) == ([first.id], ())


def other(member: Member, **changes: Any) -> Member:
    """A machine whose device is another."""
    settings = member.surveyed.settings
    settled = {**member.surveyed.settled, "device": replace(settings.device, **changes)}
    machine = Machine("odd", [good])
    return Member(machine, member.inputs, replace(member.surveyed, settled=settled))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes", [{"name": "NVIDIA A30"}, {"memory_bytes": 1}, {"driver": "1.2"}]
)
def test_only_like_devices_are_compared(
    stage: Callable[..., Stage], changes: dict[str, Any]
) -> None:
    """The most that are alike take part; of another it is said what it has."""
    members = stage(a=[good], b=[good]).roster.members
    odd = other(members[0], **changes)
    roster = group([odd, *members], {}, None)
    assert [member.agent.name for member in roster.members] == ["a", "b"]
    assert roster.left_out["odd"].startswith("it has ")
    assert odd.agent.dismissed  # type: ignore[attr-defined]


def test_a_sweep_goes_on_with_devices_like_those_it_began_with(
    stage: Callable[..., Stage],
) -> None:
    """Fewer that fit are preferred to more that do not; with none that fits it is refused."""
    members = stage(a=[good], b=[good]).roster.members
    odd = other(members[0], driver="1.2")
    like = odd.surveyed.settings.device
    assert [m.agent.name for m in group([*members, odd], {}, like).members] == ["odd"]
    with pytest.raises(PreflightError, match="the cluster has none like it"):
        group(members, {}, replace(like, name="NVIDIA A30"))
