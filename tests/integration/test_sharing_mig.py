"""MIG on stand-in driver programs: made, put back, left alone, and said where it cannot be."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fairshare.devices.constants import spec_of_product
from fairshare.devices.device import Device
from fairshare.devices.driver import STATE_VARIABLE, Driver
from fairshare.devices.inventory import virtual_device
from fairshare.errors import PartitionError
from fairshare.events import EventLog
from fairshare.processes.clean import find_dead_runs, undo
from fairshare.processes.labelled import environment_of
from fairshare.processes.scope import RunScope, run_scope
from fairshare.processes.table import all_pids, command_line
from fairshare.records import Mode, Provenance
from fairshare.sharing import mig_session, mig_state, mig_undo
from fairshare.sharing.emulated import NOT_ISOLATED
from fairshare.sharing.mig_facts import ask_facts
from fairshare.sharing.mig_session import MigSession
from fairshare.sharing.mig_table import known_table
from fairshare.sharing.modes import partitioner_for
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import Partitioner, PartitionPlan, TenantDemand
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.layouts import MigHow
from fairshare.spec.mig import MigSpec
from fairshare.virtual.driver import install
from tests.workplace import Workplace

TENANTS = [TenantDemand("chat", "m"), TenantDemand("batch", "m")]
ALLOWED = SharingOptions(allow_gpu_changes=True, allow_gpu_reset=True)
CHECKOUT = Path(__file__).parents[2]
OFF = {"current": "Disabled", "pending": "Disabled"}
Step = tuple[str, tuple[Any, ...]]


@dataclass
class Bench:
    """A simulated GPU, and what a run on it said."""

    path: Path
    name: str
    env: dict[str, str]
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def driver(self) -> Driver:
        """The way to its stand-ins."""
        return Driver(self.env)

    @property
    def state(self) -> dict[str, Any]:
        """What the simulated GPU remembers."""
        state: dict[str, Any] = json.loads((self.path / "state.json").read_text())
        return state

    @property
    def places(self) -> list[tuple[str, int]]:
        """The instances that are there: profile and start."""
        return sorted((i["profile"], i["start"]) for i in self.state["instances"])

    def smi(self, *arguments: str) -> str:
        """Run the stand-in nvidia-smi by hand, as somebody else would."""
        done = subprocess.run(
            ["nvidia-smi", *arguments],
            env=os.environ | self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout

    def fail(self, *knobs: str) -> None:
        """Switch failure knobs on, for programs that run already, too."""
        (self.path / "fail").write_text(",".join(knobs))

    def device(self, *, real: bool = False) -> Device:
        """The simulated GPU as it is, or described as the inventory would describe a real one."""
        if not real:
            return virtual_device(self.name)
        gpu = self.state["gpu"]
        spec = spec_of_product(gpu["name"])
        assert spec is not None
        return Device(
            DeviceKind.CUDA, gpu["uuid"], gpu["name"], spec.memory_bytes, index=0, mig_capable=True
        )

    @asynccontextmanager
    async def run(self) -> AsyncIterator[RunScope]:
        """A run scope that notes its events."""
        log = EventLog()
        log.listen(lambda entry: self.events.append(dict(entry)))
        async with run_scope(log) as scope:
            yield scope

    def named(self, name: str) -> list[dict[str, Any]]:
        """The events of that name."""
        return [event for event in self.events if event["event"] == name]


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    """A fresh simulated GPU: an A100-40 unless the test asks for another."""
    name = getattr(request, "param", "a100-40")
    return Bench(tmp_path / "gpu", name, install(tmp_path / "gpu", name))


def planned(
    bench: Bench, options: SharingOptions = ALLOWED, *, real: bool = False
) -> tuple[Partitioner, PartitionPlan]:
    """The partitioner of mode mig, and its plan for two tenants."""
    device = bench.device(real=real)
    partitioner = partitioner_for(Mode.MIG, device, bench.driver, options)
    return partitioner, partitioner.plan(device, TENANTS)


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait for something another process does; fails loudly when it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def refused(bench: Bench, options: SharingOptions = ALLOWED, *, real: bool = False) -> str:
    """Apply what must not come about; returns what is said."""
    partitioner, plan = planned(bench, options, real=real)
    async with bench.run() as scope:
        with pytest.raises(PartitionError) as caught:
            async with partitioner.apply(plan, scope):
                pytest.fail("it must not come so far")
    return str(caught.value)


@pytest.mark.parametrize(
    ("bench", "layout", "profiles"),
    [
        ("a100-40", None, [("3g.20gb", 0), ("3g.20gb", 4)]),
        ("h200", "2:5", [("2g.35gb", 4), ("4g.71gb", 0)]),
        ("rtx-pro-6000", "1g.24gb-me,2g.48gb", [("1g.24gb-me", 6), ("2g.48gb", 0)]),
    ],
    indirect=["bench"],
)
async def test_instances_are_made_where_they_were_planned(
    bench: Bench, layout: str | None, profiles: list[tuple[str, int]]
) -> None:
    """Each slot gets a MIG UUID of its own; afterwards the GPU is as it was found."""
    before = bench.state
    options = SharingOptions(mig=MigSpec(layout=layout))
    partitioner, plan = planned(bench, options)
    async with bench.run() as scope:
        async with partitioner.apply(plan, scope) as applied:
            assert bench.places == sorted(profiles)
            listed = bench.smi("-L")
            uuids = [slot.env["CUDA_VISIBLE_DEVICES"] for slot in applied.slots]
            assert len(set(uuids)) == 2
            assert all(uuid in listed for uuid in uuids)
        assert bench.state == before
    sizes = [event["profile"] for event in bench.named("partition.mig_created")]
    assert sizes == sorted(sizes, key=lambda name: -int(name[0]))
    assert not bench.named("run.undone")


@pytest.mark.parametrize("bench", ["h100-80"], indirect=True)
async def test_a_real_gpu_is_addressed_by_uuid(bench: Bench) -> None:
    """On a machine with several GPUs an index would be a gamble."""
    partitioner, plan = planned(bench, SharingOptions(allow_gpu_changes=True), real=True)
    async with bench.run() as scope, partitioner.apply(plan, scope) as applied:
        assert all(s.env["CUDA_VISIBLE_DEVICES"].startswith("MIG-") for s in applied.slots)
        journal = scope.journal.path.read_text()
        assert bench.state["gpu"]["uuid"] in journal
    assert bench.state["mig_mode"] == OFF


@pytest.mark.parametrize(
    ("knob", "said"),
    [
        ("mig_pending", "pending"),
        ("mig_in_use", "hint: stop whatever else uses the GPU"),
        ("mode_lies=enable", "is Disabled (pending: Disabled) and should be Enabled"),
        ("mig_no_permission", "hint: changing the driver needs root"),
        ("cgi_no_permission", "hint: changing the driver needs root"),
        ("cgi_insufficient", "Insufficient Resources"),
        ("cgi_partial", "has no compute instance"),
        ("driver_missing", "couldn't communicate with the NVIDIA driver"),
    ],
)
async def test_a_failure_quotes_the_driver_and_leaves_nothing(
    knob: str, said: str, bench: Bench
) -> None:
    """Whatever step fails: the driver's words are in the error, and the GPU is as found."""
    before = bench.state
    bench.env["FAIRSHARE_VIRTUAL_FAIL"] = knob
    assert said in await refused(bench)
    assert bench.state == before


async def test_a_partial_failure_undoes_what_came_before(bench: Bench) -> None:
    """The first instance was made, the second not: neither stays."""
    before = bench.state
    real_create = mig_state.make_instance
    made: list[int] = []

    async def second_fails(*arguments: Any) -> Any:
        if made:
            bench.fail("cgi_partial")
        made.append(1)
        return await real_create(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mig_session, "make_instance", second_fails)
        assert "has no compute instance" in await refused(bench)
    assert len(made) == 2
    assert bench.state == before
    assert not bench.named("run.undone")  # by the session itself, not by the clean-up after it


async def test_the_room_that_others_leave_is_used_and_theirs_stays(bench: Bench) -> None:
    """Foreign instances keep their ids and places; MIG mode stays on."""
    bench.smi("-i", "0", "-mig", "1")
    bench.smi("mig", "-i", "0", "-cgi", "19:6", "-C")
    before = bench.state
    partitioner, plan = planned(bench, SharingOptions(mig=MigSpec(layout="3g.20gb,2g.10gb")))
    async with bench.run() as scope, partitioner.apply(plan, scope):
        assert bench.places == [("1g.5gb", 6), ("2g.10gb", 4), ("3g.20gb", 0)]
    assert bench.state == before


async def test_a_gpu_in_mig_mode_has_no_whole_to_emulate_on(bench: Bench) -> None:
    """Said when it starts, as a dead run's leavings are gone by then; with both ways out."""
    bench.smi("-i", "0", "-mig", "1")
    said = await refused(bench, SharingOptions(mig=MigSpec(how=MigHow.EMULATED)))
    assert "is in MIG mode" in said
    assert "--allow-gpu-changes" in said


async def test_no_room_is_refused_and_nothing_is_touched(bench: Bench) -> None:
    """Who is in the way is said, and what would fit beside it."""
    bench.smi("-i", "0", "-mig", "1")
    bench.smi("mig", "-i", "0", "-cgi", "19:6", "-C")
    before = bench.state
    said = await refused(bench)
    assert "1g.5gb at 6" in said
    assert "--mig-layout 3g.20gb,2g.10gb" in said
    assert bench.state == before


async def test_a_pending_mode_is_not_ours_to_settle(bench: Bench) -> None:
    """Somebody has asked for a mode that comes with the next reset."""
    bench.fail("mig_pending:1")
    bench.smi("-i", "0", "-mig", "1")
    assert "a change of MIG mode is pending" in await refused(bench)
    assert bench.state["mig_mode"] == {"current": "Disabled", "pending": "Enabled"}


async def test_an_instance_that_somebody_else_makes_meanwhile_stays(bench: Bench) -> None:
    """Ours go; theirs does not, nor the mode that it needs; and that is no success."""
    partitioner, plan = planned(bench, SharingOptions(mig=MigSpec(layout="3g.20gb,2g.10gb")))
    async with bench.run() as scope:
        with pytest.raises(PartitionError, match="MIG mode of GPU 0 was left on"):
            async with partitioner.apply(plan, scope):
                bench.smi("mig", "-i", "0", "-cgi", "19:6", "-C")
        assert bench.places == [("1g.5gb", 6)]
    assert bench.places == [("1g.5gb", 6)]
    bench.smi("mig", "-i", "0", "-dci")
    bench.smi("mig", "-i", "0", "-dgi")
    # The journal lies in this test's state folder; its owner, this process, still lives.


async def test_losing_a_race_for_a_place_leaves_the_winner_alone(bench: Bench) -> None:
    """The driver refuses us, an instance is there: it is not ours to destroy."""
    bench.smi("-i", "0", "-mig", "1")
    real_create = mig_state.NvidiaSmi.create

    async def too_late(smi: Any, profile: int, start: int) -> Any:
        bench.smi("mig", "-i", "0", "-cgi", f"{profile}:{start}", "-C")
        return await real_create(smi, profile, start)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mig_state.NvidiaSmi, "create", too_late)
        assert "somebody else made a MIG instance" in await refused(bench)
    assert bench.places == [("3g.20gb", 0)]


@pytest.mark.parametrize("knob", ["dci_in_use", "dgi_in_use", "dgi_lies"])
async def test_a_stuck_instance_is_reported_and_undone_later(
    knob: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance that stays is no success, whatever the driver says; the journal undoes it."""
    monkeypatch.setattr(mig_session, "destroy_instances", _impatient)
    partitioner, plan = planned(bench, SharingOptions())
    async with bench.run() as scope:
        with pytest.raises(PartitionError, match="cannot be destroyed: 3g"):
            async with partitioner.apply(plan, scope):
                bench.fail(knob)
        assert bench.places
        bench.fail()
    assert bench.state["mig_mode"] == OFF
    assert bench.places == []
    assert [event["step"] for event in bench.named("run.undone")] == [
        "MIG instance 3g.20gb at 4 on GPU 0",
        "MIG instance 3g.20gb at 0 on GPU 0",
        "MIG mode on GPU 0",
    ]


async def _impatient(smi: Any, places: Any) -> None:
    await mig_state.destroy_instances(smi, places, patience_s=0.0)


async def test_a_stop_with_stuck_instances_takes_no_longer_than_it_must(bench: Bench) -> None:
    """Two instances that can never be destroyed: said soon (idle machine: 10 s), not forgotten."""
    partitioner, plan = planned(bench, SharingOptions())
    started_s = time.monotonic()
    with pytest.raises(PartitionError, match="In use by another client"):
        async with bench.run() as scope, partitioner.apply(plan, scope):
            bench.fail("dci_in_use")
            started_s = time.monotonic()
    assert time.monotonic() - started_s < 30
    assert len(bench.places) == 2
    assert bench.events[-1] == bench.events[-1] | {"event": "run.closed", "complete": False}


async def test_a_mode_that_waits_for_a_reset_gets_one(bench: Bench) -> None:
    """The driver could not reset the GPU in time, twice; allowed to, we do."""
    bench.env["FAIRSHARE_VIRTUAL_FAIL"] = "mig_timeout"
    before = bench.state
    partitioner, plan = planned(bench, real=True)
    async with bench.run() as scope, partitioner.apply(plan, scope):
        assert bench.state["mig_mode"]["current"] == "Enabled"
    assert bench.state == before


async def test_ampere_is_reset_and_its_modes_are_put_back(bench: Bench) -> None:
    """A reset forgets the compute mode; it is set again, and the comparison proves it."""
    bench.smi("-i", "0", "-c", "EXCLUSIVE_PROCESS")
    before = bench.state
    partitioner, plan = planned(bench, real=True)
    async with bench.run() as scope, partitioner.apply(plan, scope):
        assert bench.state["mig_mode"]["current"] == "Enabled"
    assert bench.state == before


async def test_what_cannot_be_put_back_is_reported(bench: Bench) -> None:
    """Never success where the GPU differs from what was found."""
    bench.smi("-i", "0", "-c", "EXCLUSIVE_PROCESS")
    partitioner, plan = planned(bench)
    async with bench.run() as scope:
        with pytest.raises(PartitionError, match="not as it was found") as caught:
            async with partitioner.apply(plan, scope):
                bench.fail("compute_mode_no_permission")
    assert "compute mode: was Exclusive_Process, is Default" in str(caught.value)
    assert not bench.named("partition.restored")
    assert not bench.named("run.undone")  # nor by who cleans up after it
    (problem,) = [event["problem"] for event in bench.named("run.not_undone")]
    assert "compute mode: was Exclusive_Process, is Default" in problem
    assert journals(bench)


async def test_a_gpu_left_changed_is_said_with_what_puts_it_back(bench: Bench) -> None:
    """When MIG mode stays on at the end, the message names fairshare clean, not another mode."""
    partitioner, plan = planned(bench)
    async with bench.run() as scope:
        with pytest.raises(PartitionError, match="should be Disabled") as caught:
            async with partitioner.apply(plan, scope):
                bench.fail("mig_pending=disable")
    assert "fairshare clean tries again" in str(caught.value)
    assert "--mig emulated" not in str(caught.value)


async def test_a_second_ctrl_c_does_not_cut_the_restoring_short(bench: Bench) -> None:
    """Cancelled while instances are destroyed: all is put back and compared before it ends."""
    before = bench.state
    partitioner, plan = planned(bench)

    async def sweep() -> None:
        async with bench.run() as scope, partitioner.apply(plan, scope):
            bench.fail("smi_slow=-dgi:1")

    task = asyncio.create_task(sweep())
    await until((bench.path / "fail").exists)
    await until(lambda: not (bench.path / "fail").read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.state == before
    assert bench.named("partition.restored")
    assert not bench.named("run.undone")


async def test_ampere_is_not_switched_without_leave_to_reset(bench: Bench) -> None:
    """Turning MIG on there survives a reboot: the session itself refuses."""
    device = bench.device(real=True)
    table = known_table(device)
    assert table is not None
    async with bench.run() as scope:
        session = await MigSession.open(device, table, scope, bench.driver, may_reset=False)
        with pytest.raises(PartitionError, match="survives a reboot"):
            await session.enable()
    assert bench.state["mig_mode"] == OFF


async def test_the_mode_is_not_changed_while_we_hold_the_gpu(bench: Bench) -> None:
    """An NVML of ours that is open would block the change on a real GPU."""

    class Held:
        def is_held(self) -> bool:
            return True

    driver = Driver(bench.env, Held())  # type: ignore[arg-type]
    partitioner = partitioner_for(Mode.MIG, bench.device(), driver, SharingOptions())
    async with bench.run() as scope:
        with pytest.raises(PartitionError, match="still holds the GPU open"):
            async with partitioner.apply(partitioner.plan(bench.device(), TENANTS), scope):
                pytest.fail("it must not come so far")
    assert bench.state["mig_mode"] == OFF


async def test_facts_are_the_drivers_own_and_asking_changes_nothing(bench: Bench) -> None:
    """A board with other profiles than its model's: it is planned with them."""
    state = bench.state
    state["gpu"]["mig_profiles"] = [p for p in state["gpu"]["mig_profiles"] if p["id"] in (0, 14)]
    (bench.path / "state.json").write_text(json.dumps(state))
    facts = await ask_facts(bench.device(), bench.driver)
    assert facts.table is not None
    assert [profile.name for profile in facts.table.profiles] == ["2g.10gb", "7g.40gb"]
    assert facts.table.profiles[0].starts == (0, 2, 4)
    assert bench.state == state


async def test_another_simulated_gpu_in_the_folder_is_not_asked(bench: Bench) -> None:
    """It will be replaced by the one that the run is for."""
    facts = await ask_facts(virtual_device("h200"), bench.driver)
    assert facts == facts.__class__(known_table(virtual_device("h200")))


@pytest.mark.parametrize(
    ("boot", "keeps", "mode"), [("another", "kept", "Disabled"), ("another", "lost", "Enabled")]
)
async def test_after_a_reboot_only_the_mode_that_ampere_keeps_is_undone(
    boot: str, keeps: str, mode: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere the mode was lost with the boot, and one that is on is somebody else's."""
    bench.smi("-i", "0", "-mig", "1")
    for name, value in bench.env.items():
        monkeypatch.setenv(name, value)
    await mig_undo.undo_mode(["0", boot, keeps, "reset", "Exclusive_Process", "Enabled"])
    assert bench.state["mig_mode"]["current"] == mode
    assert bench.state["compute_mode"] == "Default"


async def test_after_a_reboot_no_instance_is_ours(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instances do not survive a reboot: what lies at our place was made by somebody else."""
    bench.smi("-i", "0", "-mig", "1")
    bench.smi("mig", "-i", "0", "-cgi", "9:0", "-C")
    for name, value in bench.env.items():
        monkeypatch.setenv(name, value)
    await mig_undo.undo_instance(["0", "another", "9", "0"])
    assert bench.places == [("3g.20gb", 0)]


KILLED = """
import asyncio, os, sys
from fairshare.devices.driver import STATE_VARIABLE, Driver
from fairshare.devices.inventory import virtual_device
from fairshare.events import EventLog
from fairshare.processes.scope import run_scope
from fairshare.records import Mode, Provenance
from fairshare.sharing import mig_session
from fairshare.sharing.modes import partitioner_for
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import TenantDemand
env = {"PATH": os.environ["PATH"], STATE_VARIABLE: os.environ[STATE_VARIABLE]}
real = mig_session.make_instance
async def make(smi, profile, start):
    if start == 4 and sys.argv[1] == "before":
        print("now", flush=True)
        await asyncio.sleep(60)
    made = await real(smi, profile, start)
    if start == 4:
        print("now", flush=True)
        await asyncio.sleep(60)
    return made
mig_session.make_instance = make
async def main():
    device = virtual_device("a100-40")
    partitioner = partitioner_for(Mode.MIG, device, Driver(env), SharingOptions())
    plan = partitioner.plan(device, [TenantDemand("chat", "m"), TenantDemand("batch", "m")])
    async with run_scope(EventLog()) as scope, partitioner.apply(plan, scope):
        pass
asyncio.run(main())
"""

pytestmark = pytest.mark.usefixtures("own_state_dir")


async def doomed(bench: Bench, when: str) -> asyncio.subprocess.Process:
    """Start a run that waits before or after it makes the second instance."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        KILLED,
        when,
        env={**os.environ, **bench.env, "PYTHONPATH": str(CHECKOUT)},
        stdout=asyncio.subprocess.PIPE,
    )


async def killed(bench: Bench, when: str) -> None:
    """Run up to the second instance, before or after it is made, and kill the run there."""
    process = await doomed(bench, when)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"now\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()


def journals(bench: Bench) -> list[Path]:
    """The journals that are left."""
    return list((bench.path.parent / "state/runs").glob("*.jsonl"))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_killed_run_is_undone(when: str, bench: Bench) -> None:
    """The reaper destroys what was journaled, made or not, and turns the mode off."""
    before = bench.state
    await killed(bench, when)
    await until(lambda: not journals(bench))
    assert bench.state == before


@pytest.mark.parametrize("change", ["-mig", "-cgi"])
async def test_a_change_under_way_at_the_kill_does_not_come_after_the_undoing(
    change: str, bench: Bench
) -> None:
    """The tool that outlives its run is ended before what it may have done is undone."""
    before = bench.state
    bench.fail(f"smi_slow={change}:1")
    process = await doomed(bench, "after")
    await until(lambda: not (bench.path / "fail").read_text())
    process.kill()
    await process.wait()
    await until(lambda: not journals(bench))
    at_work = [each for each in all_pids() if "nvidia_smi" in command_line(each)]
    theirs = {environment_of(pid).get(STATE_VARIABLE) for pid in at_work}
    assert str(bench.path) not in theirs
    assert bench.state == before


async def test_after_a_kill_only_our_places_are_cleared(bench: Bench) -> None:
    """An instance made by somebody else after the kill stays, and so does the mode it needs."""
    bench.fail("dci_in_use")
    await killed(bench, "before")
    await until(find_dead_runs)
    bench.smi("mig", "-i", "0", "-cgi", "14:4", "-C")
    bench.fail()
    told = await asyncio.to_thread(lambda: [undo(run, dry_run=False) for run in find_dead_runs()])
    assert bench.places == [("2g.10gb", 4)], told
    assert "was left on, since it has instances: 2g.10gb at 4" in str(told)
    bench.smi("mig", "-i", "0", "-dci")
    bench.smi("mig", "-i", "0", "-dgi")
    for run in find_dead_runs():
        await asyncio.to_thread(undo, run, dry_run=False)
    assert bench.state["mig_mode"] == OFF
    assert journals(bench) == []


def test_emulated_is_called_so_in_every_output(workplace: Workplace) -> None:
    """Plan, table, page, summary and cell.json: the label, and what is not isolated."""
    said = ["--device", "virtual:h200", "--modes", "mig", "--mig", "emulated", "brief.yaml"]
    plan = workplace.run("plan", *said, "--mig-layout", "3g.71gb,1g.18gb+me")
    out = workplace.run("matrix", *said, "--mig-layout", "2:1", "--output-dir", "out")
    assert out.returncode == 0, out.stdout
    (cell,) = workplace.cells("out").values()
    assert (cell.result.label, cell.result.provenance) == ("mig-emulated", Provenance.SIMULATED)
    assert NOT_ISOLATED in cell.result.notes
    assert [share["planned"]["mig_profile"] for share in cell.result.shares] == [
        "4g.71gb",
        "2g.35gb",
    ]
    analysis = workplace.path / "out" / "analysis"
    texts = [plan.stdout, out.stdout]
    texts += [(analysis / name).read_text() for name in ("report.html", "summary.csv")]
    for text in texts:
        assert "mig-emulated" in text
        assert "copy engines and faults are not isolated" in " ".join(text.split())


def test_a_plan_leaves_no_file(workplace: Workplace) -> None:
    """Not even a simulated GPU is switched on by looking at what would be done on it."""
    workplace.run("plan", "--device", "virtual:h200", "--modes", "mig", "brief.yaml")
    assert not (workplace.path / "state/virtual").exists()
