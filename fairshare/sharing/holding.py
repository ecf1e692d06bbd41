"""Who holds what on this machine: devices, live and dead runs, and what is not ours. Only looks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fairshare.devices.driver import STATE_VARIABLE
from fairshare.devices.nvml import Gpu, Nvml, NvmlUnavailableError
from fairshare.errors import PreflightError
from fairshare.processes import locks
from fairshare.processes.clean import DeadRun, dead_runs_of_others, find_dead_runs
from fairshare.processes.journal import journals, read_state
from fairshare.processes.journal_state import JournalState
from fairshare.processes.labelled import RUN_LABEL, SLOT_LABEL, environment_of, labels, owner_of
from fairshare.processes.locks import Holder
from fairshare.processes.table import command_line, user_of
from fairshare.sharing.lease import simulated_name
from fairshare.sharing.mps_foreign import foreign_daemons


@dataclass(frozen=True, slots=True)
class SeenProcess:
    """A process; ``slot`` is the server's or daemon's name in its run, if it is one of ours."""

    pid: int
    user: str | None
    command: str
    slot: str | None = None


@dataclass(frozen=True, slots=True)
class SeenDevice:
    """A device, who holds it, and who computes on it without being of a run of ours."""

    id: str
    name: str
    holder: Holder | None
    foreign: tuple[SeenProcess, ...] = ()


@dataclass(frozen=True, slots=True)
class SeenRun:
    """A run and what there is of it. ``state``: live, dead (``fairshare clean`` ends it) or other.

    ``problem`` says why its journal cannot be understood; ``changes`` are what it would undo;
    ``remedy`` is the command that cleans up after a dead run.
    """

    run_id: str
    state: str
    user: str
    owner_pid: int | None
    processes: tuple[SeenProcess, ...]
    changes: tuple[str, ...] = ()
    journal: Path | None = None
    problem: str | None = None
    remedy: str | None = None


@dataclass(slots=True)
class Holdings:
    """Everything that can be seen; ``notes`` say what cannot, and why."""

    devices: list[SeenDevice] = field(default_factory=list)
    runs: list[SeenRun] = field(default_factory=list)
    foreign_daemons: list[SeenProcess] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look(folders: Sequence[Path]) -> Holdings:
    """See who holds what now; ``folders`` are those of simulated GPUs."""
    seen = Holdings()
    try:
        seen.devices = _devices(folders, seen.notes)
    except PreflightError as error:
        seen.notes.append(error.message)
    try:
        dead = find_dead_runs() + dead_runs_of_others()
    except PreflightError as error:
        seen.notes.append(error.message)
        dead = dead_runs_of_others()
    known = {run.run_id for run in dead}
    seen.runs = [_dead(run) for run in dead] + _live(known)
    daemons = foreign_daemons({})
    for folder in folders:
        daemons += foreign_daemons({STATE_VARIABLE: str(folder)})
    seen.foreign_daemons = [_seen(row.pid) for row in daemons]
    return seen


def _devices(folders: Sequence[Path], notes: list[str]) -> list[SeenDevice]:
    try:
        gpus = Nvml().list_gpus()
    except NvmlUnavailableError as error:
        gpus = []
        notes.append(f"no GPUs: {error}")
    found = [_device(gpu.uuid, f"GPU {gpu.index}, {gpu.name}", gpu) for gpu in gpus]
    found.append(_device("cpu", "the CPUs of this machine"))
    for folder in folders:
        found.append(_device(simulated_name(folder), f"simulated GPU in {folder}"))
    shown = {locks.path_of(device.id) for device in found}
    for path in locks.existing():
        if path not in shown and (holder := locks.holder_of(path)) is not None:
            found.append(SeenDevice(path.stem, f"device of the lock {path}", holder))
    return found


def _device(device_id: str, name: str, gpu: Gpu | None = None) -> SeenDevice:
    pids = [process.pid for process in gpu.processes] if gpu else []
    foreign = tuple(_seen(pid) for pid in pids if RUN_LABEL not in environment_of(pid))
    return SeenDevice(device_id, name, locks.holder_of(locks.path_of(device_id)), foreign)


def _live(dead: set[str]) -> list[SeenRun]:
    """Runs that have a journal or processes here and are not dead."""
    processes: dict[str, list[SeenProcess]] = {}
    owners: dict[str, tuple[int | None, int]] = {}
    for identity, carried in labels().items():
        run_id = carried[RUN_LABEL]
        processes.setdefault(run_id, []).append(_seen(identity.pid, carried.get(SLOT_LABEL)))
        owner = owner_of(carried)
        owners[run_id] = (owner.pid if owner else None, user_of(identity.pid) or 0)
    states: dict[str, tuple[Path, JournalState | None]] = {
        path.stem: (path, read_state(path)) for path in journals()
    }
    found = []
    for run_id in sorted((set(processes) | set(states)) - dead):
        path, state = states.get(run_id, (None, None))
        owner_pid, uid = owners.get(run_id, (None, os.getuid()))
        if state is not None:
            owner_pid, uid = state.header.owner.pid, state.header.uid
        found.append(
            SeenRun(
                run_id,
                _state_of(state),
                locks.user_name(uid),
                owner_pid,
                tuple(processes.get(run_id, ())),
                _changes(state),
                path,
                None if path is None or state is not None else "its journal cannot be read now",
            )
        )
    return found


def _state_of(state: JournalState | None) -> str:
    """A run that is neither dead nor seen to live may be another host's."""
    elsewhere = state is not None and state.header.host != os.uname().nodename
    return f"on {state.header.host}" if state is not None and elsewhere else "live"


def _dead(run: DeadRun) -> SeenRun:
    state = read_state(run.journal) if run.journal else None
    return SeenRun(
        run.run_id,
        "dead",
        locks.user_name(run.uid),
        run.owner.pid if run.owner else None,
        tuple(_seen(each.pid) for each in run.processes),
        _changes(state),
        run.journal,
        run.problem,
        run.remedy,
    )


def _changes(state: JournalState | None) -> tuple[str, ...]:
    return () if state is None else tuple(step.name for step in state.pending.values())


def _seen(pid: int, slot: str | None = None) -> SeenProcess:
    uid = user_of(pid)
    user = None if uid is None else locks.user_name(uid)
    return SeenProcess(pid, user, locks.plain(command_line(pid))[:80], slot)
